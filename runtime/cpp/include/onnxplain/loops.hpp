// The engine's procedures by the name that explainer.json gives a method's: most methods are a sum over steps.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "onnxplain/loops/blur_path.hpp"
#include "onnxplain/loops/cam.hpp"
#include "onnxplain/loops/guided_path.hpp"
#include "onnxplain/loops/noisy.hpp"
#include "onnxplain/loops/paths.hpp"
#include "onnxplain/loops/perturbation.hpp"
#include "onnxplain/loops/single.hpp"
#include "onnxplain/loops/xrai.hpp"
#include "onnxplain/work.hpp"

namespace onnxplain {

// What runs a method's graphs: float32 maps [N, T, …].
using Loop = std::function<Array<float>(const Work&)>;

inline const std::map<std::string, Loop>& all_loops() {
  static const std::map<std::string, Loop> known = {
      {"sum", loops::summed},
      {"saliency", loops::saliency},
      {"input_x_gradient", loops::input_x_gradient},
      {"smoothgrad_squared", loops::smoothgrad_squared},
      {"vargrad", loops::vargrad},
      {"integrated_gradients", loops::integrated_gradients},
      {"smoothgrad_integrated", loops::smoothgrad_integrated},
      {"expected_gradients", loops::expected_gradients},
      {"blur_integrated_gradients", loops::blur_integrated_gradients},
      {"guided_integrated_gradients", loops::guided_integrated_gradients},
      {"xrai", loops::xrai},
      {"cam", loops::cam},
      {"scorecam", loops::score_cam},
      {"ablation_cam", loops::ablation_cam},
      {"recipro_cam", loops::recipro_cam},
      {"guided_gradcam", loops::guided_gradcam},
      {"solve", loops::solve},
      {"detected", loops::detected},
      {"single", loops::single},
  };
  return known;
}

// The loop of that name; BundleError for one that this version doesn't know.
inline const Loop& find_loop(const std::string& name) {
  const auto found = all_loops().find(name);
  if (found == all_loops().end())
    throw BundleError(unknown("loop", name, names_in(all_loops())) + "; pip install --upgrade onnxplain");
  return found->second;
}

}  // namespace onnxplain
