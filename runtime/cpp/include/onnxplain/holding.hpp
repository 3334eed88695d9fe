// What a loop holds in arrays of its own, beside what the runs of its graphs take: the planner leaves room for it.
//
// The numbers are those that the Python engine was measured to take, in float32 arrays of the explained value's size.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "onnxplain/bundle.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

// Bytes for each image, for each row of a run, and for the call.
struct Held {
  std::int64_t image = 0, row = 0, call = 0;
};

namespace holding {

// For each target, once: one group's sums and its finished map. A run that draws has an image in each row.
constexpr double AT_ONCE = 8.0;
constexpr double LAYER = 12.0;  // layers of features and of their gradients, for each image and target
constexpr std::int64_t MASKS = 1500;  // bytes for each pixel that XRAI's regions take

inline double per_image(const std::string& loop) {
  static const std::map<std::string, double> known = {
      {"sum", 1.0}, {"solve", 2.0}, {"smoothgrad_squared", 8.0}, {"vargrad", 8.0}, {"guided_gradcam", 6.0}};
  const auto found = known.find(loop);
  return found == known.end() ? 6.0 : found->second;
}

inline double per_row(const std::string& loop) {
  static const std::map<std::string, double> known = {
      {"blur_integrated_gradients", 30.0}, {"guided_integrated_gradients", 36.0}, {"scorecam", 7.0}};
  const auto found = known.find(loop);
  return found == known.end() ? 2.0 : found->second;
}

// The design's matrix and the copies that the fit makes of it; of HSIC, also the distances of the scores.
inline std::int64_t solver(const Method& method, const Parameters& parameters) {
  const std::int64_t cells = parameters.whole("cells", 0), segments = cells * cells;
  const std::int64_t samples = parameters.whole("samples", 0);
  const std::int64_t shown = samples ? samples : parameters.whole("designs", 0) * (segments + 1);
  const std::int64_t some = std::min<std::int64_t>(shown, 1000);
  const std::int64_t distances = method.finish == "dependence" ? 3072 * shown + 16 * some * some : 0;
  return 64 * shown * std::max<std::int64_t>(segments, 1) + distances;
}

}  // namespace holding

// What a method's loop holds for images of `value_bytes` in float32, with so many targets each.
inline Held held_by(const Bundle& bundle, const Method& method, const Parameters& parameters, std::int64_t targets,
                    std::int64_t value_bytes) {
  const std::string& loop = method.loop;
  const auto value = static_cast<double>(value_bytes), several = static_cast<double>(targets);
  double image = holding::per_image(loop) * value * several;
  double row = holding::per_row(loop) * value * (loop.rfind("blur", 0) == 0 ? several : 1.0);
  double call = holding::AT_ONCE * value * several;
  if (bundle.graphs.at(method.graph).draws()) {
    row += call;
    call = 0;
  }
  const bool of_layer = loop == "cam" || loop == "scorecam" || loop == "ablation_cam" || loop == "recipro_cam" ||
                        loop == "guided_gradcam";
  if (of_layer && !bundle.layers.empty()) {
    std::int64_t chosen = 0, largest = 0;
    for (const Layer& layer : bundle.layers) {
      const std::int64_t size = 4 * count_of(sizes_of(layer.shape));
      largest = std::max(largest, size);
      if (layer.name == parameters.text("layer", "")) chosen = size;
    }
    const auto size = static_cast<double>(chosen ? chosen : largest);
    image += holding::LAYER * size * several;
    row += 4 * size;
  }
  if (loop == "solve") call += static_cast<double>(holding::solver(method, parameters));
  if (loop == "xrai") call += static_cast<double>(holding::MASKS * value_bytes / 4);
  return {static_cast<std::int64_t>(image), static_cast<std::int64_t>(row), static_cast<std::int64_t>(call)};
}

// Whether the images of a call don't depend on each other, so that some can be explained before the others.
inline bool one_by_one(const Parameters& parameters) { return parameters.text("noise_of", "image") != "batch"; }

}  // namespace onnxplain
