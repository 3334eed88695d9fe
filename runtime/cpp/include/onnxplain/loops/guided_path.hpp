// Integrated gradients on a path that changes the least sensitive pixels first.
//
// Kapishnikov et al.: Guided Integrated Gradients: an Adaptive Path Method for Removing Noise (2021, arXiv:2106.09788).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "onnxplain/work.hpp"

namespace onnxplain::loops {

// Distances that differ by less than this share are equal.
constexpr double CLOSE = 1e-9;

using Line = std::vector<double>;

// Where one image's path is, whence it comes and where it goes.
struct GuidedPath {
  Line here, start, end;
  double distance = 0;

  GuidedPath(const float* image, const float* baseline, std::int64_t size)
      : here(baseline, baseline + size), start(here), end(image, image + size), distance(left()) {}

  // The L1 distance to the image.
  double left() const {
    double sum = 0;
    for (std::size_t i = 0; i < here.size(); ++i) sum += std::abs(here[i] - end[i]);
    return sum;
  }

  // Moves on to the `wanted` L1 distance from the image. The `fraction` of the elements with the smallest gradients
  // move, and as many more as it needs; none leaves the shares `low` to `high` of its own way.
  void move(const float* slope, double wanted, double low, double high, double fraction) {
    const std::size_t size = here.size(), place = static_cast<std::size_t>(fraction * static_cast<double>(size - 1));
    Line goal(size);
    for (std::size_t i = 0; i < size; ++i) {
      const double whole = end[i] - start[i];
      goal[i] = start[i] + whole * high;
      const double share = whole != 0 ? (here[i] - start[i]) / whole : high;
      if (share < low) here[i] = start[i] + whole * low;
    }
    Line costs(size), sorted(size);
    while (true) {
      const double rest = left();
      if (std::abs(rest - wanted) <= CLOSE + CLOSE * std::abs(wanted)) return;
      for (std::size_t i = 0; i < size; ++i)  // what has arrived is not moved
        costs[i] =
            here[i] == goal[i] ? std::numeric_limits<double>::infinity() : std::abs(static_cast<double>(slope[i]));
      sorted = costs;
      std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(place), sorted.end());
      const double threshold = sorted[place];
      const auto chosen = [&](std::size_t i) { return costs[i] <= threshold && std::isfinite(costs[i]); };
      double reach = 0;
      for (std::size_t i = 0; i < size; ++i) reach += chosen(i) ? std::abs(here[i] - goal[i]) : 0.0;
      const double gamma = reach > 0 ? (rest - wanted) / reach : std::numeric_limits<double>::infinity();
      const double share = std::min(gamma, 1.0);
      for (std::size_t i = 0; i < size; ++i)
        if (chosen(i)) here[i] = share < 1 ? here[i] + (goal[i] - here[i]) * share : goal[i];
      if (!(gamma > 1.0 && reach > 0)) return;
    }
  }
};

// Attributions [N, …] of some images, given the gradient [N, …] at rows [N, …].
//
// Every step brings the path the same share of the L1 distance nearer to the image.
inline Array<double> guided_path(const std::function<Array<float>(Array<float>)>& gradient, const Array<float>& images,
                                 const Array<float>& starts, std::int64_t steps, double fraction, double max_dist) {
  const std::int64_t size = images.stride();
  std::vector<GuidedPath> paths;
  for (std::int64_t i = 0; i < images.length(); ++i) paths.emplace_back(images.at(i), starts.at(i), size);
  Array<double> attribution(images.shape);
  for (std::int64_t step = 0; step < steps; ++step) {
    Array<float> rows(images.shape);
    float* row = rows.values.data();
    for (const GuidedPath& path : paths)
      for (const double value : path.here) *row++ = static_cast<float>(value);
    const Array<float> slope = gradient(std::move(rows));
    const double share = static_cast<double>(step + 1) / static_cast<double>(steps);
    const double low = std::max(share - max_dist, 0.0), high = std::min(share + max_dist, 1.0);
    for (std::int64_t i = 0; i < images.length(); ++i) {
      GuidedPath& path = paths[static_cast<std::size_t>(i)];
      const Line before = path.here;
      path.move(slope.at(i), path.distance * (1 - share), low, high, fraction);
      double* const own = attribution.at(i);
      const float* const slopes = slope.at(i);
      for (std::size_t k = 0; k < before.size(); ++k)
        own[k] += (path.here[k] - before[k]) * static_cast<double>(slopes[k]);
    }
  }
  return attribution;
}

// The gradient along the guided path from baseline to image; each target has a path of its own.
inline Array<float> guided_integrated_gradients(const Work& work) {
  const Parameters& own = work.parameters;
  const Baselines baselines(own["baseline"], work.values(), *work.bundle, own.whole("baselines"), own.whole("seed"));
  if (baselines.count() > 1)
    throw ParameterError(work.method.name + " takes one baseline for each image; average several calls instead");
  Array<float> starts = baselines.at(0);
  Array<float> wide(work.values().shape);
  over_broadcast(wide.shape, starts.shape, [&](std::int64_t place, std::int64_t other) {
    wide.values[static_cast<std::size_t>(place)] = starts.values[static_cast<std::size_t>(other)];
  });
  Array<float> maps(work.shape_of_maps());
  const Chosen chosen = work.chosen();
  const std::int64_t size = work.values().stride();
  for (std::int64_t target = 0; target < chosen.count(); ++target) {
    Work one = work.with("baseline", 0.0);
    one.asked = {Array<std::int64_t>({work.count(), 1}), chosen.several};
    for (std::int64_t image = 0; image < work.count(); ++image)
      one.asked.targets.at(image)[0] = chosen.targets.at(image)[target];
    const std::int64_t together = one.row_limit("gradient");
    for (std::int64_t first = 0; first < work.count(); first += together) {
      const Range part{first, std::min(first + together, work.count())};
      const auto gradient = [&](Array<float> rows) {
        std::vector<std::int64_t> numbers;
        for (std::int64_t i = part.start; i < part.stop; ++i) numbers.push_back(i);
        Array<float> slope = one.gradients_at(std::move(rows), numbers);
        slope.shape.erase(slope.shape.begin() + 1);
        return slope;
      };
      const Array<double> found = guided_path(gradient, part_of(work.values(), part), part_of(wide, part),
                                              own.whole("steps"), own.number("fraction"), own.number("max_dist"));
      for (std::int64_t image = part.start; image < part.stop; ++image)
        for (std::int64_t i = 0; i < size; ++i)
          maps.at(image)[target * size + i] = static_cast<float>(found.at(image - part.start)[i]);
    }
  }
  return maps;
}

}  // namespace onnxplain::loops
