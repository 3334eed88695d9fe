// Integration rules: at which points of a path the gradient is taken, and what each is weighted by.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"

namespace onnxplain {

constexpr std::int64_t MOST_POINTS = 2000;

// Points and weights [count, 2] of the Gauss-Legendre rule on [0, 1]; exact to degree 2 count − 1.
inline Array<double> gauss_legendre(std::int64_t count) {
  if (count > MOST_POINTS)
    throw ParameterError("steps=" + std::to_string(count) + " is out of range: a path has at most " +
                         std::to_string(MOST_POINTS) + " points");
  Array<double> table({count, 2});
  const double pi = std::acos(-1.0);
  const auto n = static_cast<double>(count);
  for (std::int64_t i = 0; i < (count + 1) / 2; ++i) {
    // Newton's method on the Legendre polynomial, from Tricomi's estimate of its i-th largest root.
    double x = std::cos(pi * (static_cast<double>(i) + 0.75) / (n + 0.5)), slope = 1;
    if (2 * i + 1 == count) x = 0;
    for (int turn = 0; turn < 100; ++turn) {
      double before = 1, value = x;
      for (std::int64_t k = 2; k <= count; ++k) {
        const auto order = static_cast<double>(k);
        const double next = ((2 * order - 1) * x * value - (order - 1) * before) / order;
        before = value;
        value = next;
      }
      slope = n * (x * value - before) / (x * x - 1);
      if (2 * i + 1 == count) break;
      const double change = value / slope;
      x -= change;
      if (std::abs(change) < 1e-15) break;
    }
    const double weight = 1 / ((1 - x * x) * slope * slope);
    table.at(i)[0] = (1 - x) / 2;
    table.at(count - 1 - i)[0] = (1 + x) / 2;
    table.at(i)[1] = table.at(count - 1 - i)[1] = weight;
  }
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += table.at(i)[1];
  for (std::int64_t i = 0; i < count; ++i) table.at(i)[1] /= sum;
  return table;
}

// Points and weights [count, 2] of a rule on [0, 1], 0 being the path's start; ParameterError for an unknown one.
//
// `riemann_trapezoid` and `inclusive` are what other systems do; the other weights add up to 1.
inline Array<double> points_of(const std::string& rule, std::int64_t count) {
  static const std::vector<std::string> known = {"gausslegendre", "midpoint",       "trapezoid",         "riemann_left",
                                                 "riemann_right", "riemann_middle", "riemann_trapezoid", "inclusive"};
  if (std::find(known.begin(), known.end(), rule) == known.end())
    throw ParameterError("unknown rule " + in_quotes(rule) + "; known: " + joined(known, ", "));
  if (count < 1 || count > MOST_POINTS)
    throw ParameterError("steps=" + std::to_string(count) + " is out of range: a path has 1 to " +
                         std::to_string(MOST_POINTS) + " points");
  if (rule == "gausslegendre") return gauss_legendre(count);
  const bool both_ends = rule == "trapezoid" || rule == "riemann_trapezoid" || rule == "inclusive";
  if (both_ends && count < 2)
    throw ParameterError("steps=" + std::to_string(count) + " is too few: the rule " +
                         in_quotes(rule == "trapezoid" ? rule : "inclusive") +
                         " includes both ends of the path; give 2");
  const auto n = static_cast<double>(count);
  const double shift = rule == "riemann_right" ? 1.0 : rule == "riemann_left" ? 0.0 : 0.5;
  Array<double> table({count, 2});
  for (std::int64_t i = 0; i < count; ++i) {
    const auto place = static_cast<double>(i);
    table.at(i)[0] = both_ends ? place / (n - 1) : (place + shift) / n;
    table.at(i)[1] = rule == "trapezoid" ? 1 / (n - 1) : 1 / n;
  }
  if (both_ends && rule != "inclusive") {
    table.at(0)[1] /= 2;
    table.at(count - 1)[1] /= 2;
  }
  return table;
}

}  // namespace onnxplain
