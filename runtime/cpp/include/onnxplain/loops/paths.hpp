// Methods on the straight path from baselines to the image, and the gradient's other plain forms.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "onnxplain/integration.hpp"
#include "onnxplain/work.hpp"

namespace onnxplain::loops {

// The draw numbers of the points of expected gradients and of their baselines: the last, which noise never reaches.
constexpr std::int64_t ALPHA_DRAW = LIMIT - 1, CHOICE_DRAW = LIMIT - 2;

inline void add(Array<double>& total, const Array<double>& part) {
  if (total.values.empty()) {
    total = part;
    return;
  }
  for (std::size_t i = 0; i < total.values.size(); ++i) total.values[i] += part.values[i];
}

inline Array<double> over(Array<double> total, std::int64_t count) {
  for (double& value : total.values) value /= static_cast<double>(count);
  return total;
}

// The finished sum over the plan's steps.
inline Array<float> summed(const Work& work) { return work.sum(); }

// |∂ score / ∂ value|. Simonyan, Vedaldi, Zisserman (2013, arXiv:1312.6034).
inline Array<float> saliency(const Work& work) {
  Array<float> maps = work.sum();
  for (float& value : maps.values) value = std::abs(value);
  return maps;
}

// value · ∂ score / ∂ value. Shrikumar et al. (2016, arXiv:1605.01713).
inline Array<float> input_x_gradient(const Work& work) {
  Array<float> maps = work.sum();
  const Array<float>& values = work.values();
  const std::int64_t size = values.stride();
  const std::int64_t targets = work.asked.count();
  float* map = maps.values.data();
  for (std::int64_t image = 0; image < maps.length(); ++image)
    for (std::int64_t target = 0; target < targets; ++target) {
      const float* value = values.at(image);
      for (std::int64_t i = 0; i < size; ++i) *map++ *= *value++;
    }
  return maps;
}

// The mean over the method's baselines of the sum over a table of steps: float64 [N, T, …].
//
// The sum is not divided by the weights: a rule whose weights don't add up to 1 means them so.
inline Array<double> over_baselines(const Work& work, Pass pass) {
  const Parameters& own = work.parameters;
  const Baselines baselines(own["baseline"], work.values(), *work.bundle, own.whole("baselines"), own.whole("seed"));
  Array<double> total;
  for (std::int64_t number = 0; number < baselines.count(); ++number) {
    pass.feeds["baseline"] = feed_for(baselines.at(number), work.count());
    add(total, work.sums({"total"}, pass)[0]);
  }
  return over(std::move(total), baselines.count());
}

// (x − b)·Σ_k w_k g(b + α_k (x − b)), the mean over all baselines b. Sundararajan, Taly, Yan (2017, arXiv:1703.01365).
inline Array<float> integrated_gradients(const Work& work) {
  Pass pass;
  pass.steps = converted<float>(points_of(work.parameters.text("rule"), work.parameters.whole("steps")));
  return converted<float>(over_baselines(work, std::move(pass)));
}

// The mean integrated gradients of noisy copies x + σ·z of the image, and over all baselines.
inline Array<float> smoothgrad_integrated(const Work& work) {
  const Array<double> points = points_of(work.parameters.text("rule"), work.parameters.whole("steps"));
  const std::int64_t samples = work.parameters.whole("samples");
  std::vector<std::vector<double>> rows;
  for (std::int64_t draw = 0; draw < samples; ++draw)
    for (std::int64_t k = 0; k < points.length(); ++k)
      rows.push_back({static_cast<double>(draw), points.at(k)[0], points.at(k)[1] / static_cast<double>(samples), 1});
  Pass pass;
  pass.steps = plan::table_of(rows, 4);
  pass.feeds["sigma"] = feed_of(deviations_of(work.values(), work.parameters), true);
  return converted<float>(over_baselines(work, std::move(pass)));
}

// The point α and the number of the baseline of every sample; `fresh` gives each its own.
struct ExpectedDraws {
  std::vector<float> alpha;
  std::vector<std::int64_t> baseline;
};

inline ExpectedDraws expected_draws(std::int64_t samples, std::int64_t baselines, std::int64_t seed, bool fresh) {
  const Array<float> noise = uniform(seed, {ALPHA_DRAW, CHOICE_DRAW}, samples);
  ExpectedDraws draws;
  for (std::int64_t i = 0; i < samples; ++i) {
    draws.alpha.push_back(noise.at(0)[i]);
    const float choice = noise.at(1)[i] * static_cast<float>(baselines);
    draws.baseline.push_back(fresh ? i : static_cast<std::int64_t>(std::floor(choice)));
  }
  return draws;
}

// The mean of (x̃ − b)·g(b + α (x̃ − b)) over random baselines b and α between 0 and 1; x̃ = x + σ·z.
//
// Erion et al. (2021, arXiv:1906.10670); with noise it is Captum's GradientShap.
inline Array<float> expected_gradients(const Work& work) {
  const Parameters& own = work.parameters;
  const std::int64_t samples = own.whole("samples"), seed = own.whole("seed");
  const Baselines baselines(own["baseline"], work.values(), *work.bundle, samples, seed);
  const ExpectedDraws draws = expected_draws(samples, baselines.count(), seed, own["baseline"].is_text("random"));
  const bool noisy = own.number("noise") != 0;
  Array<double> total;
  for (std::int64_t number = 0; number < baselines.count(); ++number) {
    std::vector<std::vector<double>> rows;
    for (std::int64_t i = 0; i < samples; ++i) {
      if (draws.baseline[static_cast<std::size_t>(i)] != number) continue;
      const auto alpha = static_cast<double>(draws.alpha[static_cast<std::size_t>(i)]);
      rows.push_back(noisy ? std::vector<double>{static_cast<double>(i), alpha, 1, 1} : std::vector<double>{alpha, 1});
    }
    if (rows.empty()) continue;
    Pass pass;
    pass.graph = noisy ? "noise" : "path";
    pass.steps = plan::table_of(rows, noisy ? 4 : 2);
    pass.feeds["baseline"] = feed_for(baselines.at(number), work.count());
    if (noisy) pass.feeds["sigma"] = feed_of(deviations_of(work.values(), own), true);
    add(total, work.sums({"total"}, pass)[0]);
  }
  return converted<float>(over(std::move(total), samples));
}

}  // namespace onnxplain::loops
