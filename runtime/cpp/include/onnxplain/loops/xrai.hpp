// Attribution of regions: the picture's segments, ranked by integrated gradients.
//
// Kapishnikov, Bolukbasi, Viégas, Terry: XRAI: Better Attributions Through Regions (2019, arXiv:1906.02825).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "onnxplain/loops/paths.hpp"
#include "onnxplain/regions.hpp"
#include "onnxplain/work.hpp"

namespace onnxplain::loops {

// Each image's least or largest value, [N, 1, …].
inline Array<float> bound_of(const Array<float>& values, bool least) {
  Array<float> bound(joined({values.length()}, Shape(values.rank() - 1, 1)));
  for (std::int64_t image = 0; image < values.length(); ++image) {
    const auto [low, high] = range_of(values, image);
    bound.at(image)[0] = least ? low : high;
  }
  return bound;
}

inline std::vector<Array<float>> xrai_baselines(const Work& work) {
  const Value& value = work.parameters["baseline"];
  const Array<float>& rows = work.values();
  const bool black_white = value.is_text("black_white");
  if (black_white && !work.bundle->steps.empty())
    return {fill_values("baseline", "black", rows, *work.bundle), fill_values("baseline", "white", rows, *work.bundle)};
  if (black_white || value.is_text("range"))  // without preprocessing nobody knows what black is
    return {bound_of(rows, true), bound_of(rows, false)};
  const Baselines given(value, rows, *work.bundle);
  std::vector<Array<float>> all;
  for (std::int64_t number = 0; number < given.count(); ++number) all.push_back(given.at(number));
  return all;
}

// Integrated gradients [N, T, …], the mean over the baselines.
inline Array<double> region_attributions(const Work& work) {
  const auto baselines = xrai_baselines(work);
  Array<double> total;
  for (const Array<float>& baseline : baselines) {
    Pass pass;
    pass.graph = "path";
    pass.steps = converted<float>(points_of(work.parameters.text("rule"), work.parameters.whole("steps")));
    pass.feeds["baseline"] = feed_for(baseline, work.count());
    add(total, work.sums({"total"}, pass)[0]);
  }
  return over(std::move(total), static_cast<std::int64_t>(baselines.size()));
}

// Maps [N, T, 1, H, W] ([N, T, H, W, 1] for NHWC): each region's mean attribution.
//
// The attribution is the mean of integrated gradients from all baselines, its channels added up, or the largest for
// `reduction` "max".
inline Array<float> xrai(const Work& work) {
  if (work.bundle->inside)
    throw ParameterError("xrai needs gradients at the picture; this bundle's are at " +
                         in_quotes(work.bundle->inside->name));
  const Shape shape = work.map_shape();
  const auto [height, width] = work.size();
  if (work.parameters["segments"].none())
    throw ParameterError(
        work.method.name +
        " needs scikit-image to segment pictures, which this engine lacks: give segments= of your own");
  const auto masks = given_masks(work.parameters["segments"], work.count(), height, width);
  const Array<double> attributions = region_attributions(work);
  const bool largest = work.parameters.text("reduction") == "max", first = work.channels_first();
  const std::int64_t pixels = height * width, channels = attributions.shape[first ? 2 : 4];
  Array<float> maps(joined({work.count(), attributions.shape[1]}, shape));
  for (std::int64_t image = 0; image < work.count(); ++image)
    for (std::int64_t t = 0; t < attributions.shape[1]; ++t) {
      const double* own = attributions.at(image) + t * channels * pixels;
      std::vector<double> reduced(static_cast<std::size_t>(pixels));
      for (std::int64_t i = 0; i < pixels; ++i) {
        double value = own[first ? i : i * channels];
        for (std::int64_t c = 1; c < channels; ++c) {
          const double next = own[first ? c * pixels + i : i * channels + c];
          value = largest ? std::max(value, next) : value + next;
        }
        reduced[static_cast<std::size_t>(i)] = value;
      }
      const auto worth = grown(reduced, masks[static_cast<std::size_t>(image)]);
      std::transform(worth.begin(), worth.end(), maps.at(image) + t * pixels,
                     [](double value) { return static_cast<float>(value); });
    }
  return maps;
}

}  // namespace onnxplain::loops
