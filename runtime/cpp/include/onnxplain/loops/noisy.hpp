// Statistics of the gradient at noisy copies of the image.
#pragma once

#include <algorithm>

#include "onnxplain/work.hpp"

namespace onnxplain::loops {

// The mean and the mean square of the gradient over the noisy copies, each [N, T, …], in float64.
inline std::pair<Array<double>, Array<double>> moments(const Work& work) {
  const Graph& graph = work.bundle->graphs.at("noise");
  if (!graph.gives("squares"))
    throw BundleError(graph.file + " was exported before " + work.method.name + " existed; export the network again");
  Pass pass;
  pass.graph = "noise";
  pass.steps = work.steps();
  pass.feeds["sigma"] = feed_of(deviations_of(work.values(), work.parameters), true);
  auto sums = work.sums({"total", "squares", "norm"}, pass);
  const auto divide = [&](Array<double>& array) {
    over_broadcast(array.shape, sums[2].shape, [&](std::int64_t place, std::int64_t other) {
      array.values[static_cast<std::size_t>(place)] /= sums[2].values[static_cast<std::size_t>(other)];
    });
  };
  divide(sums[0]);
  divide(sums[1]);
  return {std::move(sums[0]), std::move(sums[1])};
}

// The mean square. Hooker et al. (2019, arXiv:1806.10758).
inline Array<float> smoothgrad_squared(const Work& work) { return converted<float>(moments(work).second); }

// The variance over noisy copies, dividing by their number. Adebayo et al. (2018, arXiv:1810.03307). Mean square less
// squared mean: what falls below 0 by rounding is 0.
inline Array<float> vargrad(const Work& work) {
  auto [mean, square] = moments(work);
  for (std::size_t i = 0; i < mean.values.size(); ++i)
    square.values[i] = std::max(square.values[i] - mean.values[i] * mean.values[i], 0.0);
  return converted<float>(square);
}

}  // namespace onnxplain::loops
