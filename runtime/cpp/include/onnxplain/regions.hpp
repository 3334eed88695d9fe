// Regions of pictures: the caller's segments as masks, and the growing of the most important ones.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "onnxplain/error.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

using PictureMasks = Array<std::uint8_t>;  // [S, H, W]

namespace growing {

constexpr std::int64_t SIDE = 224, SMALLEST_GAIN = 50;

// An area in pictures of SIDE, in a smaller one; larger ones keep it. Rounded half to even.
inline std::int64_t scaled_area(std::int64_t area, std::int64_t pixels) {
  const double share = static_cast<double>(area * pixels) / static_cast<double>(SIDE * SIDE);
  return std::max<std::int64_t>(1, std::min(area, static_cast<std::int64_t>(std::nearbyint(share))));
}

inline PictureMasks of_labels(const std::int64_t* labels, std::int64_t height, std::int64_t width) {
  std::map<std::int64_t, std::int64_t> known;
  for (std::int64_t i = 0; i < height * width; ++i) known[labels[i]] = 0;
  std::int64_t next = 0;
  for (auto& entry : known) entry.second = next++;
  PictureMasks masks({next, height, width});
  for (std::int64_t i = 0; i < height * width; ++i) masks.at(known[labels[i]])[i] = 1;
  return masks;
}

}  // namespace growing

// The caller's segments for each of `count` images, as masks [S, H, W].
//
// Whole numbers are labels, [H, W] for all images or [N, H, W] for each; bytes of 0 and 1 are masks, [S, H, W] for all
// or [N, S, H, W] for each. ParameterError for other shapes.
inline std::vector<PictureMasks> given_masks(const Value& segments, std::int64_t count, std::int64_t height,
                                             std::int64_t width) {
  const Shape shape = segments.shape();
  const bool are_masks = segments.as<Masks>() != nullptr;
  const std::size_t rank = shape.size() - (are_masks && !shape.empty() ? 1 : 0);
  const bool fits = shape.size() >= 2 && shape[shape.size() - 2] == height && shape.back() == width &&
                    (rank == 2 || rank == 3) && !segments.as<Floats>();
  if (!fits || (rank == 3 && shape[0] != count) || count_of(shape) == 0) {
    const std::string h = std::to_string(height), w = std::to_string(width), n = std::to_string(count);
    throw ParameterError("segments of shape " + shown(shape) + " (" +
                         (are_masks               ? "bool"
                          : segments.as<Labels>() ? "int64"
                                                  : "float32") +
                         ") fit no picture here; give whole numbers [" + h + ", " + w + "] or [" + n + ", " + h + ", " +
                         w + "], or masks of True and False [S, " + h + ", " + w + "] or [" + n + ", S, " + h + ", " +
                         w + "]");
  }
  std::vector<PictureMasks> found;
  for (std::int64_t image = 0; image < count; ++image) {
    const std::int64_t own = rank == 3 ? image : 0;
    if (are_masks) {
      const Array<std::uint8_t>& masks = **segments.as<Masks>();
      if (rank == 2) {
        found.push_back(masks);
      } else {
        found.emplace_back(Shape{shape[1], height, width}, std::vector<std::uint8_t>(masks.at(own), masks.at(own + 1)));
      }
    } else {
      const Array<std::int64_t>& labels = **segments.as<Labels>();
      found.push_back(growing::of_labels(labels.values.data() + own * height * width, height, width));
    }
  }
  return found;
}

// The map [H, W] of regions added one by one, best first, each worth the mean attribution of its new pixels.
//
// Segments that would add too few pixels (50 in a picture of 224 by 224) are left out; what no segment covers gets its
// own mean. Kapishnikov et al.: XRAI (2019, arXiv:1906.02825), algorithm 1.
inline std::vector<double> grown(const std::vector<double>& attribution, const PictureMasks& masks) {
  const auto pixels = static_cast<std::int64_t>(attribution.size());
  const std::int64_t least = growing::scaled_area(growing::SMALLEST_GAIN, pixels), count = masks.length();
  std::vector<double> sums(static_cast<std::size_t>(count)), worth(attribution.size());
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(count));
  std::vector<std::uint8_t> free(attribution.size(), 1);
  const auto pass = [&](const std::vector<std::int64_t>& places, int sign) {
    for (std::int64_t s = 0; s < count; ++s) {
      const std::uint8_t* mask = masks.at(s);
      double sum = 0;
      std::int64_t size = 0;
      for (const std::int64_t place : places)
        if (mask[place]) {
          sum += attribution[static_cast<std::size_t>(place)];
          ++size;
        }
      sums[static_cast<std::size_t>(s)] += sign * sum;
      sizes[static_cast<std::size_t>(s)] += sign * size;
    }
  };
  const auto value = [&](const std::vector<std::int64_t>& places) {
    double sum = 0;
    for (const std::int64_t place : places) sum += attribution[static_cast<std::size_t>(place)];
    for (const std::int64_t place : places)
      worth[static_cast<std::size_t>(place)] = sum / static_cast<double>(places.size());
  };
  pass(numbers_to(pixels), 1);
  while (true) {
    std::int64_t best = -1;
    double highest = -std::numeric_limits<double>::infinity();
    for (std::int64_t s = 0; s < count; ++s) {
      const auto at = static_cast<std::size_t>(s);
      if (sizes[at] < least) continue;
      const double density = sums[at] / static_cast<double>(sizes[at]);
      if (density > highest) {
        highest = density;
        best = s;
      }
    }
    if (best < 0 || !std::isfinite(highest)) break;
    std::vector<std::int64_t> added;
    for (std::int64_t place = 0; place < pixels; ++place)
      if (masks.at(best)[place] && free[static_cast<std::size_t>(place)]) added.push_back(place);
    value(added);
    for (const std::int64_t place : added) free[static_cast<std::size_t>(place)] = 0;
    pass(added, -1);  // only segments with some of the new pixels change
  }
  std::vector<std::int64_t> rest;
  for (std::int64_t place = 0; place < pixels; ++place)
    if (free[static_cast<std::size_t>(place)]) rest.push_back(place);
  if (!rest.empty()) value(rest);
  return worth;
}

}  // namespace onnxplain
