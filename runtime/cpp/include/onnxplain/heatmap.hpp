// Attributions as pictures: heat maps, signed maps, and heat over its picture.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/colours.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/resize.hpp"

namespace onnxplain {

namespace drawing {

// The channels of an attribution [..., C, H, W] ("NCHW") or [..., H, W, C] ("NHWC") added up, one number a pixel:
// [..., H, W]; with `absolute` their magnitudes. ParameterError for NaN or infinity.
inline Array<double> reduced(const Array<float>& attribution, const std::string& layout, bool absolute) {
  if (layout != "NCHW" && layout != "NHWC") throw ParameterError(unknown("layout", layout, {"NCHW", "NHWC"}));
  const Shape& shape = attribution.shape;
  if (shape.size() < 3 || attribution.values.empty())
    throw ParameterError("an attribution of shape " + shown(shape) + " has no height and width to draw");
  const auto bad = std::count_if(attribution.values.begin(), attribution.values.end(),
                                 [](float value) { return !std::isfinite(value); });
  if (bad)
    throw ParameterError("the attribution has " + std::to_string(bad) +
                         " values that are NaN or infinite; no map can be drawn from it");
  const bool first = layout == "NCHW";
  const std::size_t rank = shape.size(), of_channels = first ? rank - 3 : rank - 1;
  const std::int64_t channels = shape[of_channels];
  Shape axes = shape;
  axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(of_channels));
  Array<double> total(axes);
  const std::int64_t places = axes[rank - 3] * axes[rank - 2];
  for (std::size_t i = 0; i < attribution.values.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    const std::int64_t map = index / (channels * places), inside = index % (channels * places);
    const auto value = static_cast<double>(attribution.values[i]);
    total.values[static_cast<std::size_t>(map * places + (first ? inside % places : inside / channels))] +=
        absolute ? std::abs(value) : value;
  }
  return total;
}

// The percentile of some numbers, a point between two of them where it falls there.
inline double percentile_of(std::vector<double> numbers, double percentile) {
  const double place = percentile / 100 * static_cast<double>(numbers.size() - 1), before = std::floor(place);
  const auto low = numbers.begin() + static_cast<std::ptrdiff_t>(before);
  std::nth_element(numbers.begin(), low, numbers.end());
  const double share = place - before, first = *low;
  if (share == 0 || low + 1 == numbers.end()) return first;
  const double second = *std::min_element(low + 1, numbers.end());
  return share >= 0.5 ? second - (second - first) * (1 - share) : first + (second - first) * share;
}

inline void check_percentile(double percentile) {
  if (!(percentile > 0 && percentile <= 100))
    throw ParameterError("percentile must be above 0 and at most 100, not " + shown(percentile));
}

// Calls `draw(map, result)` with each map [H · W] of reduced maps and where its result goes.
template <class Draw>
Array<float> each_map(const Array<double>& total, const Draw& draw) {
  Array<float> result(total.shape);
  const std::int64_t places = total.shape[total.rank() - 2] * total.shape[total.rank() - 1];
  for (std::int64_t start = 0; start < total.size(); start += places) {
    const std::vector<double> map(total.values.begin() + start, total.values.begin() + start + places);
    draw(map, result.values.data() + start);
  }
  return result;
}

}  // namespace drawing

// Maps to look at, [..., H, W] in 0..1, of an attribution [..., C, H, W] ("NCHW") or [..., H, W, C] ("NHWC").
//
// Magnitudes are added up over the channels; each image's smallest sum becomes 0 and its 99th percentile 1 (the largest
// where that equals the smallest, as in a map of few pixels). A constant map gives zeros.
inline Array<float> heatmap(const Array<float>& attribution, const std::string& layout = "NCHW",
                            double percentile = 99.0) {
  drawing::check_percentile(percentile);
  return drawing::each_map(drawing::reduced(attribution, layout, true), [&](const auto& map, float* result) {
    const auto [low, highest] = std::minmax_element(map.begin(), map.end());
    double high = drawing::percentile_of(map, percentile);
    if (!(high > *low)) high = *highest;
    const double span = high > *low ? high - *low : 1.0;
    for (const double value : map) *result++ = static_cast<float>(std::min(std::max((value - *low) / span, 0.0), 1.0));
  });
}

// Maps with their sign, [..., H, W] in −1..1: what speaks for the target and what against it. 1 is each image's 99th
// percentile of the absolute sum (the largest where that is 0), −1 the same below, and 0 stays 0.
inline Array<float> signed_map(const Array<float>& attribution, const std::string& layout = "NCHW",
                               double percentile = 99.0) {
  drawing::check_percentile(percentile);
  return drawing::each_map(drawing::reduced(attribution, layout, false), [&](const auto& map, float* result) {
    std::vector<double> sizes;
    for (const double value : map) sizes.push_back(std::abs(value));
    double high = drawing::percentile_of(sizes, percentile);
    if (!(high > 0)) high = *std::max_element(sizes.begin(), sizes.end());
    if (!(high > 0)) high = 1;
    for (const double value : map) *result++ = static_cast<float>(std::min(std::max(value / high, -1.0), 1.0));
  });
}

// A map [h, w] as [height, width]: bilinear, centres at half-integers.
inline Array<float> at_size(const Array<float>& map, std::int64_t height, std::int64_t width) {
  if (map.rank() != 2 || map.values.empty())
    throw ParameterError("a map of one picture is [h, w], not " + shown(map.shape));
  Array<double> pixels = converted<double>(map);
  pixels.shape.push_back(1);
  Array<float> result = converted<float>(resize(pixels, height, width, {"bilinear", true, false}));
  result.shape = {height, width};
  return result;
}

// The picture `seen`, RGB [H, W, 3], in darkened grey with `heat` [H, W] (0..1) glowing over it.
//
// Colour covers the picture as far as there is heat, `strength` (0..1) at most.
inline Array<std::uint8_t> overlay(const Array<std::uint8_t>& seen, const Array<float>& heat, double strength = 0.85) {
  if (seen.rank() != 3 || Shape{seen.shape[0], seen.shape[1]} != heat.shape)
    throw ParameterError("a map of " + shown(heat.shape) + " doesn't fit a picture of " +
                         shown(Shape(seen.shape.begin(), seen.shape.end() - 1)));
  if (!(strength >= 0 && strength <= 1))
    throw ParameterError("strength must be between 0 and 1, not " + shown(strength));
  Array<std::uint8_t> drawn(seen.shape);
  for (std::size_t place = 0; place < heat.values.size(); ++place) {
    const std::uint8_t* pixel = seen.values.data() + 3 * place;
    const double share = std::min(std::max(static_cast<double>(heat.values[place]), 0.0), 1.0);
    // ITU-R 601, as the grey of OpenCV.
    const double grey = (0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]) * (1 - 0.35 * strength);
    const Colour& colour = inferno()[static_cast<std::size_t>(std::nearbyint(share * 255))];
    // Colour is added, as light, over a picture that fades with the heat: weak heat tints it and never darkens it.
    for (std::size_t channel = 0; channel < 3; ++channel) {
      const double light = colour[channel] * std::min(5 * share, 1.0);
      const double value = grey * (1 - strength * share) + light * strength;
      drawn.values[3 * place + channel] =
          static_cast<std::uint8_t>(std::nearbyint(std::min(std::max(value, 0.0), 255.0)));
    }
  }
  return drawn;
}

}  // namespace onnxplain
