// What scores of masked images say about the segments: KernelSHAP, LIME, Sobol indices, HSIC.
//
// A solver makes a design, the states [K, S] in which the S segments are shown (1 kept, 0 replaced), and turns the
// scores [K, M] of the masked images, a column for each image and target, into values [S, M].
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/error.hpp"
#include "onnxplain/linear_algebra.hpp"
#include "onnxplain/plans.hpp"
#include "onnxplain/random.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

// The states [K, S] of the segments in K masked images, and what each counts for in the fit.
struct Design {
  Array<float> states;
  std::vector<double> weights;
};

// `design(parameters, S)` says what to show the network, `solve(design, scores, parameters)` what follows.
struct Solver {
  std::function<Design(const Parameters&, std::int64_t segments)> design;
  std::function<Matrix(const Design&, const Matrix& scores, const Parameters&)> solve;
};

namespace solving {

// How many scores the median distance of HSIC is taken over: all pairs of them.
constexpr std::int64_t MEDIAN_OF = 1000;

inline double binomial(std::int64_t n, std::int64_t k) {
  double result = 1;
  for (std::int64_t i = 1; i <= k; ++i) result = result * static_cast<double>(n - k + i) / static_cast<double>(i);
  return std::nearbyint(result);
}

// The ranks of values, equal ones in their order.
inline std::vector<std::int64_t> ranks_of(const float* values, std::int64_t count) {
  auto order = numbers_to(count);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return values[a] < values[b]; });
  std::vector<std::int64_t> ranks(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    ranks[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
  return ranks;
}

class Coalitions {
 public:
  explicit Coalitions(std::int64_t segments) : segments_(segments) {}
  void add(const std::vector<float>& states, double weight) {
    design.states.values.insert(design.states.values.end(), states.begin(), states.end());
    design.weights.push_back(weight);
    design.states.shape = {static_cast<std::int64_t>(design.weights.size()), segments_};
  }
  // All subsets of a size, in lexical order, then their complements.
  void add_all(std::int64_t size, double weight, bool complements) {
    for (const float kept : {1.0f, 0.0f}) {
      auto members = numbers_to(size);
      while (true) {
        std::vector<float> states(static_cast<std::size_t>(segments_), 1 - kept);
        for (const std::int64_t member : members) states[static_cast<std::size_t>(member)] = kept;
        add(states, weight);
        std::int64_t place = size - 1;
        while (place >= 0 && members[static_cast<std::size_t>(place)] == segments_ - size + place) --place;
        if (place < 0) break;
        ++members[static_cast<std::size_t>(place)];
        for (std::int64_t next = place + 1; next < size; ++next)
          members[static_cast<std::size_t>(next)] = members[static_cast<std::size_t>(next - 1)] + 1;
      }
      if (!complements) break;
    }
  }
  // Coalitions of sizes drawn by their mass, each followed by its complement.
  void add_drawn(std::int64_t seed, std::int64_t pairs, const std::map<std::int64_t, double>& mass) {
    std::vector<double> edges;
    std::vector<std::int64_t> sizes;
    double sum = 0;
    for (const auto& [size, share] : mass) {
      edges.push_back(sum += share);
      sizes.push_back(size);
    }
    const Array<float> noise = uniform(seed, numbers_to(pairs), segments_ + 1);
    for (std::int64_t pair = 0; pair < pairs; ++pair) {
      const double place = static_cast<double>(noise.at(pair)[segments_]) * edges.back();
      const auto which = std::lower_bound(edges.begin(), edges.end(), place) - edges.begin();
      const auto ranks = ranks_of(noise.at(pair), segments_);
      std::vector<float> states, complement;
      for (const std::int64_t rank : ranks) {
        states.push_back(rank < sizes[static_cast<std::size_t>(which)] ? 1.0f : 0.0f);
        complement.push_back(1 - states.back());
      }
      add(states, sum / static_cast<double>(2 * pairs));
      add(complement, sum / static_cast<double>(2 * pairs));
    }
  }
  Design design;

 private:
  std::int64_t segments_;
};

// The empty coalition, the full one, then at most `samples` others: sizes 1 and S − 1, 2 and S − 2, … completely as
// long as their share of the Shapley kernel pays for it, pairs drawn from the kernel of the others.
//
// Lundberg, Lee (2017, arXiv:1705.07874); pairs: Covert, Lee (2021, arXiv:2012.01536).
inline Design coalitions(const Parameters& parameters, std::int64_t segments) {
  std::int64_t samples = parameters.whole("samples");
  const std::int64_t least = std::min(2 * segments, (std::int64_t{1} << std::min<std::int64_t>(segments, 40)) - 2);
  if (samples < least)
    throw ParameterError("kernel_shap: samples=" + std::to_string(samples) + " are too few for " +
                         std::to_string(segments) + " segments; give at least " + std::to_string(least));
  Coalitions shown(segments);
  shown.add(std::vector<float>(static_cast<std::size_t>(segments), 0), 0);
  shown.add(std::vector<float>(static_cast<std::size_t>(segments), 1), 0);
  const auto all_of = [](const std::map<std::int64_t, double>& masses) {
    double sum = 0;
    for (const auto& each : masses) sum += each.second;
    return sum;
  };
  std::map<std::int64_t, double> mass;
  for (std::int64_t size = 1; size <= segments / 2; ++size)
    mass[size] = (2 * size == segments ? 1 : 2) * static_cast<double>(segments - 1) /
                 static_cast<double>(size * (segments - size));
  for (std::int64_t size = 1; size <= segments / 2; ++size) {
    const bool both = 2 * size != segments;
    const double number = (both ? 2 : 1) * binomial(segments, size);
    if (static_cast<double>(samples) * mass[size] < (number - 1e-9) * all_of(mass)) break;
    shown.add_all(size, mass[size] / number, both);
    mass.erase(size);
    samples -= static_cast<std::int64_t>(number);
  }
  if (!mass.empty() && samples >= 2) shown.add_drawn(parameters.whole("seed"), samples / 2, mass);
  return shown.design;
}

// The weighted least squares fit whose values add up to the difference of the full and the empty coalition.
inline Matrix shapley_values(const Design& design, const Matrix& scores, const Parameters&) {
  const std::int64_t count = design.states.length(), free = design.states.shape[1] - 1, columns = scores.shape[1];
  Matrix left({free, free}), right({free, columns});
  std::vector<double> row(static_cast<std::size_t>(free));
  // The last value is the gain less the others: one unknown less, and no constraint.
  for (std::int64_t k = 0; k < count; ++k) {
    const float* states = design.states.at(k);
    const double weight = design.weights[static_cast<std::size_t>(k)];
    if (weight == 0) continue;
    const auto last = static_cast<double>(states[free]);
    for (std::int64_t s = 0; s < free; ++s) row[static_cast<std::size_t>(s)] = static_cast<double>(states[s]) - last;
    for (std::int64_t s = 0; s < free; ++s) {
      const double by = weight * row[static_cast<std::size_t>(s)];
      if (by == 0) continue;
      for (std::int64_t other = 0; other < free; ++other)
        left.at(s)[other] += by * row[static_cast<std::size_t>(other)];
      for (std::int64_t m = 0; m < columns; ++m) {
        const double empty = scores.at(0)[m], gain = scores.at(1)[m] - empty;
        right.at(s)[m] += by * (scores.at(k)[m] - empty - last * gain);
      }
    }
  }
  Matrix values({free + 1, columns});
  const Matrix others = solved(left, right);
  std::copy(others.values.begin(), others.values.end(), values.values.begin());
  for (std::int64_t m = 0; m < columns; ++m) {
    double rest = scores.at(1)[m] - scores.at(0)[m];
    for (std::int64_t s = 0; s < free; ++s) rest -= others.at(s)[m];
    values.at(free)[m] = rest;
  }
  return values;
}

// The picture itself, then segments kept with probability 1/2; weights exp(−D² / width²) of the distance D to the
// picture. Ribeiro, Singh, Guestrin (2016, arXiv:1602.04938).
inline Design coin_flips(const Parameters& parameters, std::int64_t segments) {
  Design design;
  design.states = uniform(parameters.whole("seed"), numbers_to(parameters.whole("samples")), segments);
  for (float& state : design.states.values) state = state < 0.5f ? 1.0f : 0.0f;
  std::fill(design.states.at(0), design.states.at(1), 1.0f);
  for (std::int64_t k = 0; k < design.states.length(); ++k) {
    const double kept =
        std::accumulate(design.states.at(k), design.states.at(k + 1), 0.0) / static_cast<double>(segments);
    const double distance = parameters.text("distance") == "cosine" ? 1 - std::sqrt(kept) : std::sqrt(1 - kept);
    const double share = distance / parameters.number("width");
    design.weights.push_back(std::exp(-(share * share)));
  }
  return design;
}

// The slopes of a weighted ridge regression with a free intercept.
inline Matrix ridge_values(const Design& design, const Matrix& scores, const Parameters& parameters) {
  const std::int64_t count = design.states.length(), segments = design.states.shape[1], columns = scores.shape[1];
  const double sum = std::accumulate(design.weights.begin(), design.weights.end(), 0.0);
  std::vector<double> mean_state(static_cast<std::size_t>(segments)), mean_score(static_cast<std::size_t>(columns));
  const auto weight_of = [&](std::int64_t k) { return design.weights[static_cast<std::size_t>(k)] / sum; };
  for (std::int64_t k = 0; k < count; ++k) {
    for (std::int64_t s = 0; s < segments; ++s)
      mean_state[static_cast<std::size_t>(s)] += weight_of(k) * static_cast<double>(design.states.at(k)[s]);
    for (std::int64_t m = 0; m < columns; ++m)
      mean_score[static_cast<std::size_t>(m)] += weight_of(k) * scores.at(k)[m];
  }
  Matrix left({segments, segments}), right({segments, columns});
  std::vector<double> row(static_cast<std::size_t>(segments));
  for (std::int64_t k = 0; k < count; ++k) {
    for (std::int64_t s = 0; s < segments; ++s)
      row[static_cast<std::size_t>(s)] =
          static_cast<double>(design.states.at(k)[s]) - mean_state[static_cast<std::size_t>(s)];
    for (std::int64_t s = 0; s < segments; ++s) {
      const double by = weight_of(k) * row[static_cast<std::size_t>(s)];
      for (std::int64_t other = 0; other < segments; ++other)
        left.at(s)[other] += by * row[static_cast<std::size_t>(other)];
      for (std::int64_t m = 0; m < columns; ++m)
        right.at(s)[m] += by * (scores.at(k)[m] - mean_score[static_cast<std::size_t>(m)]);
    }
  }
  for (std::int64_t s = 0; s < segments; ++s) left.at(s)[s] += parameters.number("ridge") / sum;
  return solved(left, right);
}

// `count` points in (0, 1) for each column [count, columns]: one in every interval of length 1 / count. Column c takes
// draw 2c for the order of the intervals and draw 2c + 1 for the places within. McKay, Beckman, Conover (1979).
inline Matrix latin_hypercube(std::int64_t seed, const std::vector<std::int64_t>& columns, std::int64_t count) {
  Matrix points({count, static_cast<std::int64_t>(columns.size())});
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Array<float> noise = uniform(seed, {2 * columns[c], 2 * columns[c] + 1}, count);
    const auto ranks = ranks_of(noise.at(0), count);
    for (std::int64_t k = 0; k < count; ++k)
      points.at(k)[c] =
          (static_cast<double>(ranks[static_cast<std::size_t>(k)]) + static_cast<double>(noise.at(1)[k])) /
          static_cast<double>(count);
  }
  return points;
}

// Points A, then for every segment A with that segment's column taken from B. Fel et al. (2021, arXiv:2111.04138), with
// a Latin hypercube for Sobol's sequence.
inline Design replicated(const Parameters& parameters, std::int64_t segments) {
  const std::int64_t count = parameters.whole("designs");
  std::vector<std::int64_t> even, odd;
  for (std::int64_t s = 0; s < segments; ++s) {
    even.push_back(2 * s);
    odd.push_back(2 * s + 1);
  }
  const Matrix first = latin_hypercube(parameters.whole("seed"), even, count);
  const Matrix second = latin_hypercube(parameters.whole("seed"), odd, count);
  Design design{Array<float>({(segments + 1) * count, segments}), {}};
  design.weights.assign(static_cast<std::size_t>((segments + 1) * count), 1.0);
  for (std::int64_t part = 0; part <= segments; ++part)
    for (std::int64_t k = 0; k < count; ++k)
      for (std::int64_t s = 0; s < segments; ++s)
        design.states.at(part * count + k)[s] = static_cast<float>((s + 1 == part ? second : first).at(k)[s]);
  return design;
}

// Total-order Sobol indices by Jansen's estimator (1999); 0 where the score never changes.
inline Matrix total_indices(const Design& design, const Matrix& scores, const Parameters&) {
  const std::int64_t segments = design.states.shape[1], columns = scores.shape[1];
  const std::int64_t all = scores.length(), count = all / (segments + 1);
  Matrix values({segments, columns});
  for (std::int64_t m = 0; m < columns; ++m) {
    double mean = 0, variance = 0;
    for (std::int64_t k = 0; k < all; ++k) mean += scores.at(k)[m] / static_cast<double>(all);
    for (std::int64_t k = 0; k < all; ++k) variance += (scores.at(k)[m] - mean) * (scores.at(k)[m] - mean);
    variance /= static_cast<double>(all - 1);
    for (std::int64_t s = 0; s < segments; ++s) {
      double squares = 0;
      for (std::int64_t k = 0; k < count; ++k) {
        const double change = scores.at((s + 1) * count + k)[m] - scores.at(k)[m];
        squares += change * change;
      }
      values.at(s)[m] = variance > 0 ? squares / static_cast<double>(count) / 2 / variance : 0.0;
    }
  }
  return values;
}

// A binary Latin hypercube, each segment shown in half of the images. Novello, Fel, Vigouroux (2022, arXiv:2206.06219).
inline Design halves(const Parameters& parameters, std::int64_t segments) {
  const std::int64_t samples = parameters.whole("samples");
  const Matrix points = latin_hypercube(parameters.whole("seed"), numbers_to(segments), samples);
  Design design{Array<float>({samples, segments}), std::vector<double>(static_cast<std::size_t>(samples), 1.0)};
  for (std::size_t i = 0; i < points.values.size(); ++i) design.states.values[i] = points.values[i] < 0.5 ? 1.0f : 0.0f;
  return design;
}

// The median of the distances of the first scores, their mean where that is 0.
inline double width_of(const std::vector<double>& scores) {
  std::vector<double> distances;
  const auto some = std::min(static_cast<std::size_t>(MEDIAN_OF), scores.size());
  for (std::size_t i = 0; i < some; ++i)
    for (std::size_t j = i + 1; j < some; ++j) distances.push_back(std::abs(scores[j] - scores[i]));
  const auto middle = distances.begin() + static_cast<std::ptrdiff_t>(distances.size() / 2);
  std::nth_element(distances.begin(), middle, distances.end());
  double median = *middle;
  if (distances.size() % 2 == 0) median = (median + *std::max_element(distances.begin(), middle)) / 2;
  if (median != 0) return median;
  return std::accumulate(distances.begin(), distances.end(), 0.0) / static_cast<double>(distances.size());
}

// HSIC = tr(K H L H) / K² of each segment's state and the score: the kernel of the states is 1 where they are equal,
// else 0; that of the scores Gaussian, with their median distance as its width. 0 where the score never changes.
inline Matrix dependence(const Design& design, const Matrix& scores, const Parameters&) {
  const std::int64_t count = design.states.length(), segments = design.states.shape[1];
  // Centred, the kernel of binary states is 2 x̃ x̃ᵀ, so no matrix is needed for each segment.
  Matrix states = converted<double>(design.states);
  for (std::int64_t s = 0; s < segments; ++s) {
    double mean = 0;
    for (std::int64_t k = 0; k < count; ++k) mean += states.at(k)[s] / static_cast<double>(count);
    for (std::int64_t k = 0; k < count; ++k) states.at(k)[s] -= mean;
  }
  Matrix values({segments, scores.shape[1]});
  for (std::int64_t m = 0; m < scores.shape[1]; ++m) {
    std::vector<double> own;
    for (std::int64_t k = 0; k < count; ++k) own.push_back(scores.at(k)[m]);
    const double width = width_of(own);
    if (width == 0) continue;
    std::vector<double> kernel(own.size()), seen(static_cast<std::size_t>(segments));
    for (std::int64_t k = 0; k < count; ++k) {
      for (std::size_t other = 0; other < own.size(); ++other) {
        const double apart = own[static_cast<std::size_t>(k)] - own[other];
        kernel[other] = std::exp(-(apart * apart) / (2 * width * width));
      }
      std::fill(seen.begin(), seen.end(), 0.0);
      multiply_into(kernel.data(), states.values.data(), seen.data(), 1, count, segments);
      for (std::int64_t s = 0; s < segments; ++s)
        values.at(s)[m] += states.at(k)[s] * seen[static_cast<std::size_t>(s)];
    }
    const double all = static_cast<double>(count) * static_cast<double>(count);
    for (std::int64_t s = 0; s < segments; ++s) values.at(s)[m] *= 2 / all;
  }
  return values;
}

inline const std::map<std::string, Solver>& solvers() {
  static const std::map<std::string, Solver> known = {{"shapley", {coalitions, shapley_values}},
                                                      {"ridge", {coin_flips, ridge_values}},
                                                      {"total_indices", {replicated, total_indices}},
                                                      {"dependence", {halves, dependence}}};
  return known;
}

}  // namespace solving

// The solver that a method's finish rule names; BundleError for one that this version doesn't know.
inline const Solver& find_solver(const std::string& name) {
  const auto found = solving::solvers().find(name);
  if (found == solving::solvers().end())
    throw BundleError(unknown("solver", name, names_in(solving::solvers())) + "; pip install --upgrade onnxplain");
  return found->second;
}

}  // namespace onnxplain
