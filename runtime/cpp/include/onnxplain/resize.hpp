// Resizing as weighted sums along each axis, the same numbers in every language that runs a bundle.
//
// Libraries disagree on what "bilinear" means: Pillow widens its kernel when it shrinks a picture, OpenCV does not. A
// network sees the difference, so a bundle names the kernel and this file computes it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"

namespace onnxplain {

// Pillow's fixed point for 8-bit pictures: weights are rounded to this many binary places (Resample.c, PRECISION_BITS).
constexpr double PILLOW_UNIT = 4194304.0;  // 2^22

// The stretch of a line, in source pixels, that the target covers.
struct Stretch {
  double start = 0, end = 0;
};

// The source pixels that one target pixel reads, and their weights.
struct Taps {
  std::vector<std::int64_t> places;
  std::vector<double> weights;
};

namespace resampling {

inline double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

// Keys 1981, doi:10.1109/TASSP.1981.1163711, with slope `a`.
inline double cubic(double x, double a) {
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0.0;
}

inline Taps antialiased(double centre, double width, std::int64_t source, bool bilinear) {
  // The bounds truncate as Pillow's precompute_coeffs does; a tap just inside the support but outside them stays 0.
  const auto length = static_cast<double>(source);
  const double support = (bilinear ? 1.0 : 2.0) * width;
  centre = std::min(std::max(centre, 0.0), length);
  const double first = std::max(std::trunc(centre - support + 0.5), 0.0);
  const double past = std::min(std::trunc(centre + support + 0.5), length);
  Taps taps;
  double sum = 0;
  for (double place = first; place < past; ++place) {
    const double distance = (place - centre + 0.5) * (1.0 / width);
    taps.places.push_back(static_cast<std::int64_t>(place));
    taps.weights.push_back(bilinear ? triangle(distance) : cubic(distance, -0.5));
    sum += taps.weights.back();
  }
  for (double& weight : taps.weights) weight /= sum;
  return taps;
}

inline Taps interpolated(double centre, std::int64_t source, bool bilinear) {
  const double position = centre - 0.5, first = std::floor(position);
  Taps taps;
  for (int offset = bilinear ? 0 : -1; offset < (bilinear ? 2 : 3); ++offset) {
    const double place = first + offset, distance = position - place;
    taps.places.push_back(std::min(std::max(static_cast<std::int64_t>(place), std::int64_t{0}), source - 1));
    taps.weights.push_back(bilinear ? triangle(distance) : cubic(distance, -0.75));
  }
  return taps;
}

}  // namespace resampling

// What each of `target` pixels reads of a line of `source`; each one's weights sum to 1.
//
// Pixel centres lie at half-integers; what lies beyond the ends of the line repeats the border. With `antialias` the
// kernel widens as the line shrinks and is cut off at the ends, and bicubic has slope −0.5 (Pillow, torchvision on PIL
// pictures); without it bicubic has slope −0.75 (OpenCV, torch). "nearest" takes the pixel that the centre falls in.
inline std::vector<Taps> taps_of(std::int64_t source, std::int64_t target, const std::string& kernel, bool antialias,
                                 std::optional<Stretch> box = std::nullopt) {
  if (kernel != "bilinear" && kernel != "bicubic" && kernel != "nearest")
    throw ParameterError(unknown("resize kernel", kernel, {"bilinear", "bicubic", "nearest"}));
  if (source < 1 || target < 1)
    throw ParameterError("can't resize " + std::to_string(source) + " pixels to " + std::to_string(target) +
                         ": both must be at least 1");
  const Stretch line = box.value_or(Stretch{0.0, static_cast<double>(source)});
  const double scale = (line.end - line.start) / static_cast<double>(target);
  std::vector<Taps> all;
  // Added up, not multiplied, as Pillow does (Geometry.c): where a centre falls between two pixels the rounding
  // decides.
  double sum = line.start + 0.5 * scale;
  for (std::int64_t i = 0; i < target; ++i, sum += scale) {
    const double centre = line.start + (static_cast<double>(i) + 0.5) * scale;
    if (kernel == "nearest") {
      const auto place = static_cast<std::int64_t>(std::floor(sum));
      all.push_back({{std::min(std::max(place, std::int64_t{0}), source - 1)}, {1.0}});
    } else if (antialias) {
      all.push_back(resampling::antialiased(centre, std::max(scale, 1.0), source, kernel == "bilinear"));
    } else {
      all.push_back(resampling::interpolated(centre, source, kernel == "bilinear"));
    }
  }
  return all;
}

// Rounded, halves up, to 0..255.
inline double to_byte(double value) { return std::floor(std::min(std::max(value + 0.5, 0.0), 255.5)); }

// The part of a picture that is wanted.
struct Region {
  Range rows, columns;
};

struct Resampling {
  std::string kernel = "bilinear";
  bool antialias = true, rounded = true;
};

namespace resampling {

// The taps of the lines from `lines.start` to `lines.stop`; with `fixed` in Pillow's fixed point.
inline std::vector<Taps> some(std::int64_t source, std::int64_t target, const Resampling& how, Range lines) {
  std::vector<Taps> taps = taps_of(source, target, how.kernel, how.antialias);
  taps = {taps.begin() + lines.start, taps.begin() + lines.stop};
  if (how.antialias && how.rounded)
    for (Taps& each : taps)
      for (double& weight : each.weights)
        weight = std::trunc(weight * PILLOW_UNIT + std::copysign(0.5, weight)) / PILLOW_UNIT;
  return taps;
}

// [H, W, C] resampled along its columns.
inline Array<double> across(const Array<double>& pixels, const std::vector<Taps>& taps) {
  const std::int64_t channels = pixels.shape[2];
  Array<double> result({pixels.shape[0], static_cast<std::int64_t>(taps.size()), channels});
  double* to = result.values.data();
  for (std::int64_t row = 0; row < pixels.shape[0]; ++row) {
    const double* line = pixels.at(row);
    for (const Taps& each : taps)
      for (std::int64_t channel = 0; channel < channels; ++channel) {
        double sum = 0;
        for (std::size_t k = 0; k < each.places.size(); ++k)
          sum += each.weights[k] * line[each.places[k] * channels + channel];
        *to++ = sum;
      }
  }
  return result;
}

// [H, W, C] resampled along its rows.
inline Array<double> down(const Array<double>& pixels, const std::vector<Taps>& taps) {
  Array<double> result({static_cast<std::int64_t>(taps.size()), pixels.shape[1], pixels.shape[2]});
  for (std::int64_t row = 0; row < result.length(); ++row) {
    const Taps& each = taps[static_cast<std::size_t>(row)];
    double* to = result.at(row);
    for (std::size_t k = 0; k < each.places.size(); ++k) {
      const double* from = pixels.at(each.places[k]);
      for (std::int64_t i = 0; i < result.stride(); ++i) to[i] += each.weights[k] * from[i];
    }
  }
  return result;
}

inline Array<double> crop(const Array<double>& pixels, Region region) {
  Array<double> part({region.rows.size(), region.columns.size(), pixels.shape[2]});
  for (std::int64_t row = 0; row < part.length(); ++row) {
    const double* from = pixels.at(row + region.rows.start) + region.columns.start * pixels.shape[2];
    std::copy(from, from + part.stride(), part.at(row));
  }
  return part;
}

}  // namespace resampling

// Pixels [H, W, C] resized to [height, width, C], whole numbers 0..255 if rounded; of a result of which only a region
// is wanted, no more.
//
// With `antialias` and `rounded` the result equals Pillow's for 8-bit pictures bit for bit: the width first, then the
// height, each in fixed point and rounded to a byte.
inline Array<double> resize(const Array<double>& pixels, std::int64_t height, std::int64_t width,
                            const Resampling& how = {}, std::optional<Region> wanted = std::nullopt) {
  const Region region = wanted.value_or(Region{{0, height}, {0, width}});
  const bool fixed = how.antialias && how.rounded;
  const bool same_rows = pixels.shape[0] == height, same_columns = pixels.shape[1] == width;
  const auto rounded = [](Array<double>& array) {
    for (double& value : array.values) value = to_byte(value);
  };
  Array<double> part = pixels;
  if (!same_columns) {
    part = resampling::across(part, resampling::some(pixels.shape[1], width, how, region.columns));
    if (fixed) rounded(part);
  }
  if (!same_rows) {
    part = resampling::down(part, resampling::some(pixels.shape[0], height, how, region.rows));
    if (fixed) rounded(part);
  }
  const Range rows = same_rows ? region.rows : Range{0, part.shape[0]};
  const Range columns = same_columns ? region.columns : Range{0, part.shape[1]};
  if (!(rows == Range{0, part.shape[0]}) || !(columns == Range{0, part.shape[1]}))
    part = resampling::crop(part, {rows, columns});
  if (how.rounded && !fixed) rounded(part);
  if (!how.rounded)
    for (double& value : part.values) value = static_cast<double>(static_cast<float>(value));
  return part;
}

}  // namespace onnxplain
