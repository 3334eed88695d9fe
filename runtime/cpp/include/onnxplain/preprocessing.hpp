// From a picture to the numbers that a network takes: an ordered list of steps, the same in every language.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/preprocessing_steps.hpp"
#include "onnxplain/resize.hpp"

namespace onnxplain {

// A sliver of 1 x 10,000 pixels, its shorter side scaled to 256, would fill gigabytes.
constexpr std::int64_t MOST_PIXELS = 100'000'000;

// Top, left, bottom, right.
using Box = std::array<double, 4>;

// One picture, ready for the network: `row` [C, H, W] or [H, W, C]; `seen` is the picture as the network sees it, RGB
// [H, W, 3]; `box` is the part of the original that `seen` covers, in its pixels.
struct Prepared {
  Array<float> row;
  Array<std::uint8_t> seen;
  Box box{};
};

namespace preparing {

inline Array<double> coloured(const Array<std::uint8_t>& pixels, const std::string& order) {
  if (order == "RGB") return converted<double>(pixels);
  const bool grey = order == "GREY";
  Array<double> result({pixels.shape[0], pixels.shape[1], grey ? 1 : 3});
  const std::uint8_t* from = pixels.values.data();
  for (double* to = result.values.data(); to != result.values.data() + result.values.size(); from += 3) {
    if (grey) {
      // ITU-R 601 in Pillow's fixed point (Convert.c, L24), so that grey networks see what they were trained on.
      *to++ = (from[0] * 19595u + from[1] * 38470u + from[2] * 7471u + 0x8000u) >> 16;
    } else {
      for (int channel = 2; channel >= 0; --channel) *to++ = from[channel];
    }
  }
  return result;
}

// The (height, width) that a resize step gives; "shorter" truncates the longer side as torchvision does.
inline std::pair<std::int64_t, std::int64_t> resized_shape(std::int64_t height, std::int64_t width, const Step& step) {
  if (step.rule == "exact") return {step.size[0], step.size[1]};
  const auto longer = static_cast<std::int64_t>(static_cast<double>(step.size[0] * std::max(height, width)) /
                                                static_cast<double>(std::min(height, width)));
  const auto shape = height <= width ? std::pair(step.size[0], longer) : std::pair(longer, step.size[0]);
  if (shape.first * shape.second > MOST_PIXELS)
    throw PictureError("a picture of " + std::to_string(width) + "x" + std::to_string(height) +
                       " pixels is too long and thin: with its shorter side resized to " +
                       std::to_string(step.size[0]) + " it would have " + with_commas(shape.first * shape.second) +
                       " pixels");
  return shape;
}

inline std::int64_t half_to_even(double value) { return static_cast<std::int64_t>(std::nearbyint(value)); }

// torchvision's center_crop: the padding before is rounded down, a crop's start is rounded half to even.
inline Range centre(std::int64_t length, std::int64_t target) {
  const std::int64_t start =
      target > length ? -((target - length) / 2) : half_to_even(static_cast<double>(length - target) / 2);
  return {start, start + target};
}

// A picture resized and cropped at its centre, padded with 0 where it is smaller, and the box that it covers.
inline std::pair<Array<double>, Box> placed(const Array<double>& pixels, const Step* resized, const Step* cropped) {
  const std::int64_t rows = pixels.shape[0], columns = pixels.shape[1], channels = pixels.shape[2];
  const auto [height, width] = resized ? resized_shape(rows, columns, *resized) : std::pair(rows, columns);
  const Range down = centre(height, cropped ? cropped->size[0] : height);
  const Range across = centre(width, cropped ? cropped->size[1] : width);
  const Region region{{std::max<std::int64_t>(down.start, 0), std::min(down.stop, height)},
                      {std::max<std::int64_t>(across.start, 0), std::min(across.stop, width)}};
  Array<double> inside =
      resized ? resize(pixels, height, width, {resized->kernel, resized->antialias, resized->round}, region)
              : resampling::crop(pixels, region);
  const double row = static_cast<double>(rows) / static_cast<double>(height);
  const double column = static_cast<double>(columns) / static_cast<double>(width);
  const Box box = {static_cast<double>(down.start) * row, static_cast<double>(across.start) * column,
                   static_cast<double>(down.stop) * row, static_cast<double>(across.stop) * column};
  if (inside.shape[0] == down.size() && inside.shape[1] == across.size()) return {std::move(inside), box};
  Array<double> padded({down.size(), across.size(), channels});
  for (std::int64_t line = 0; line < inside.length(); ++line)
    std::copy(inside.at(line), inside.at(line + 1),
              padded.at(line + region.rows.start - down.start) + (region.columns.start - across.start) * channels);
  return {std::move(padded), box};
}

// The numbers that the network takes, [C, H, W] or [H, W, C].
inline Array<float> valued(const Array<double>& pixels, const std::vector<Step>& steps) {
  const std::int64_t channels = pixels.shape[2], places = pixels.shape[0] * pixels.shape[1];
  const bool planes = !steps.empty() && steps.back().order == "NCHW";
  Array<float> row(planes ? Shape{channels, pixels.shape[0], pixels.shape[1]} : pixels.shape);
  for (std::int64_t channel = 0; channel < channels; ++channel)
    for (std::int64_t place = 0; place < places; ++place) {
      double value = pixels.values[static_cast<std::size_t>(place * channels + channel)];
      for (const Step& step : steps) {
        if (step.kind == "scale") value *= step.factor;
        if (step.kind != "mean" && step.kind != "std") continue;
        const double number = step.values[step.values.size() == 1 ? 0 : static_cast<std::size_t>(channel)];
        value = step.kind == "mean" ? value - number : value / number;
      }
      row.values[static_cast<std::size_t>(planes ? channel * places + place : place * channels + channel)] =
          static_cast<float>(value);
    }
  return row;
}

// Values [H, W, C] as a picture in RGB, [H, W, 3]: rounded half to even.
inline Array<std::uint8_t> pictured(const Array<double>& pixels, const std::string& order) {
  const std::int64_t channels = pixels.shape[2];
  Array<std::uint8_t> seen({pixels.shape[0], pixels.shape[1], 3});
  std::uint8_t* to = seen.values.data();
  for (std::int64_t place = 0; place < pixels.shape[0] * pixels.shape[1]; ++place)
    for (std::int64_t channel = 0; channel < 3; ++channel) {
      const std::int64_t from = channels == 1 ? 0 : order == "BGR" ? 2 - channel : channel;
      const double value = std::nearbyint(pixels.values[static_cast<std::size_t>(place * channels + from)]);
      *to++ = static_cast<std::uint8_t>(std::min(std::max(value, 0.0), 255.0));
    }
  return seen;
}

}  // namespace preparing

// A picture, RGB [H, W, 3], as the network takes it; PictureError where it doesn't fit. Orientation ("exif") is for
// whoever reads the file.
inline Prepared prepare(const Array<std::uint8_t>& pixels, const std::vector<Step>& steps) {
  if (pixels.rank() != 3 || pixels.shape[2] != 3 || pixels.values.empty())
    throw PictureError("a picture must be uint8 [H, W, 3] in RGB, not uint8 " + shown(pixels.shape));
  const Step* const colour = find_step(steps, "colour");
  const std::string order = colour ? colour->order : "RGB";
  auto [drawn, box] =
      preparing::placed(preparing::coloured(pixels, order), find_step(steps, "resize"), find_step(steps, "crop"));
  return {preparing::valued(drawn, steps), preparing::pictured(drawn, order), box};
}

// The picture [H, W, 3] that a preprocessed row [C, H, W] or [H, W, C] stands for.
inline Array<std::uint8_t> undone(const Array<float>& row, const std::vector<Step>& steps) {
  const bool planes = steps.back().order == "NCHW";
  const std::int64_t channels = planes ? row.shape[0] : row.shape[2];
  const std::int64_t height = row.shape[planes ? 1 : 0], width = row.shape[planes ? 2 : 1], places = height * width;
  Array<double> pixels({height, width, channels});
  const auto value_in = [&](const char* kind, std::int64_t channel, double otherwise) {
    const Step* step = find_step(steps, kind);
    return step ? step->values[step->values.size() == 1 ? 0 : static_cast<std::size_t>(channel)] : otherwise;
  };
  const Step* const scale = find_step(steps, "scale");
  for (std::int64_t channel = 0; channel < channels; ++channel) {
    const double std = value_in("std", channel, 1), mean = value_in("mean", channel, 0);
    for (std::int64_t place = 0; place < places; ++place) {
      const auto from = static_cast<std::size_t>(planes ? channel * places + place : place * channels + channel);
      pixels.values[static_cast<std::size_t>(place * channels + channel)] =
          (static_cast<double>(row.values[from]) * std + mean) / (scale ? scale->factor : 1.0);
    }
  }
  const Step* const colour = find_step(steps, "colour");
  return preparing::pictured(pixels, colour ? colour->order : "RGB");
}

}  // namespace onnxplain
