// The loops of methods that perturb a picture and are no plain sum: solved segments, and RISE with a detector.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "onnxplain/segments.hpp"
#include "onnxplain/solvers.hpp"
#include "onnxplain/work.hpp"

namespace onnxplain::loops {

// The values of shared segments [1, H, W], painted on the pixels: [N, T, H · W].
inline Array<float> painted(const Work& work, const Array<std::int64_t>& segments) {
  const Solver& solver = find_solver(work.method.finish);
  const std::int64_t count = *std::max_element(segments.values.begin(), segments.values.end()) + 1;
  const Design design = solver.design(work.parameters, count);
  Pass pass;
  pass.steps = design.states;
  pass.feeds["segments"] = {data_of(segments)};
  const Array<float> scores = work.collect({"scores"}, pass)[0];  // [N, K, T]
  const std::int64_t images = scores.shape[0], steps = scores.shape[1], targets = scores.shape[2];
  Matrix columns({steps, images * targets});
  for (std::int64_t image = 0; image < images; ++image)
    for (std::int64_t step = 0; step < steps; ++step)
      for (std::int64_t t = 0; t < targets; ++t)
        columns.at(step)[image * targets + t] = static_cast<double>(scores.at(image)[step * targets + t]);
  const Matrix values = solver.solve(design, columns, work.parameters);
  const std::int64_t pixels = segments.size();
  Array<float> maps({images, targets, pixels});
  for (std::int64_t column = 0; column < images * targets; ++column)
    for (std::int64_t i = 0; i < pixels; ++i)
      maps.values[static_cast<std::size_t>(column * pixels + i)] =
          static_cast<float>(values.at(segments.values[static_cast<std::size_t>(i)])[column]);
  return maps;
}

// Every pixel gets its segment's value, [N, T, 1, H, W], that the method's solver finds from the masked scores.
inline Array<float> solve(const Work& work) {
  const Shape shape = work.map_shape();
  const auto [height, width] = work.size();
  const Array<std::int64_t> segments = segments_of(work.parameters, work.count(), height, width);
  Array<float> maps(joined({work.count(), work.asked.count()}, shape));
  if (segments.length() == 1) {
    maps.values = painted(work, segments).values;
    return maps;
  }
  for (std::int64_t image = 0; image < work.count(); ++image) {
    const Array<float> own = painted(work.part({image, image + 1}), part_of(segments, {image, image + 1}));
    std::copy(own.values.begin(), own.values.end(), maps.at(image));
  }
  return maps;
}

// BundleError where the detector was trained on another network.
inline void check_detector(const Bundle& bundle) {
  if (!bundle.detector_network.empty() && bundle.detector_network == bundle.source_sha256) return;
  const std::string whose = bundle.detector_network.empty()
                                ? "nobody knows which network"
                                : "another network (" + bundle.detector_network.substr(0, 12) + "…)";
  throw BundleError("the detector in " + bundle.path.string() + " belongs to " + whose +
                    "; train one for this: onnxplain detector " + bundle.path.string() + " --data PICTURES");
}

// RISE, each mask weighted by how far the masked image looks like training data, on a scale from fill to image.
//
// The detector's confidence in the empty image is 0 on that scale, in the image itself 1; where the empty image looks
// more like training data, the ends change places, and where both are alike all masks count the same.
inline Array<float> detected(const Work& work) {
  check_detector(*work.bundle);
  const auto [height, width] = work.size();
  const double down = static_cast<double>(height) / 2, across = static_cast<double>(width) / 2;
  Pass pass;
  pass.steps = plan::table_of({{0, 0, 2, down, across, 1, 1, 0, 0}, {0, 2, 2, down, across, 1, 1, 0, 0}}, 9);
  const Array<float> nothing({work.count()});
  pass.feeds["low"] = feed_of(nothing, true);
  pass.feeds["high"] = feed_of(nothing, true);
  const Array<float> ends = work.collect({"confidence"}, pass)[0];
  Array<float> low({work.count()}), high({work.count()});
  for (std::int64_t image = 0; image < work.count(); ++image) {
    const float empty = ends.at(image)[0], whole = ends.at(image)[1];
    // Cosines lie in [−1, 1]: with ends below them, every mask has weight 1.
    low.at(image)[0] = empty == whole ? -3.0f : std::min(empty, whole);
    high.at(image)[0] = empty == whole ? -2.0f : std::max(empty, whole);
  }
  Pass masks;
  masks.feeds["low"] = feed_of(std::move(low), true);
  masks.feeds["high"] = feed_of(std::move(high), true);
  return work.sum(masks);
}

}  // namespace onnxplain::loops
