// Plan rules: a method's parameters and the image size become its table of steps, one row per term of the sum.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/integration.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

using Steps = Array<float>;
using Rule = std::function<Steps(const Parameters&, std::int64_t height, std::int64_t width)>;

// A plan rule and the columns of its table; no columns means one step that needs no numbers.
struct Plan {
  std::vector<std::string> columns;
  Rule rule;
};

// The side of the grid that a graph of random masks has uniforms for.
constexpr std::int64_t MOST_CELLS = 32;

namespace plan {

inline Steps table_of(const std::vector<std::vector<double>>& rows, std::int64_t columns) {
  Steps table({static_cast<std::int64_t>(rows.size()), columns});
  float* cell = table.values.data();
  for (const auto& row : rows)
    for (const double number : row) *cell++ = static_cast<float>(number);
  return table;
}

inline Steps single(const Parameters&, std::int64_t, std::int64_t) { return Steps({1, 0}); }

// One step for each noise draw, at the noisy image itself: draw, alpha, weight, multiply.
inline Steps draws(const Parameters& parameters, std::int64_t, std::int64_t) {
  std::vector<std::vector<double>> rows;
  for (std::int64_t draw = 0; draw < parameters.whole("samples"); ++draw)
    rows.push_back({static_cast<double>(draw), 1, 1, 0});
  return table_of(rows, 4);
}

// Gauss-Legendre points on the straight path from baseline to image: alpha, weight.
inline Steps points(const Parameters& parameters, std::int64_t, std::int64_t) {
  return converted<float>(gauss_legendre(parameters.whole("steps")));
}

// Every point of the path for every noise draw, draw by draw.
inline Steps draws_points(const Parameters& parameters, std::int64_t, std::int64_t) {
  const Array<double> path = gauss_legendre(parameters.whole("steps"));
  std::vector<std::vector<double>> rows;
  for (std::int64_t draw = 0; draw < parameters.whole("samples"); ++draw)
    for (std::int64_t i = 0; i < path.length(); ++i)
      rows.push_back({static_cast<double>(draw), path.at(i)[0], path.at(i)[1], 1});
  return table_of(rows, 4);
}

// One number or a pair (rows, columns) as a pair.
inline Sides sides_of(const Value& value) {
  if (const Sides* pair = value.as<Sides>()) return *pair;
  return {*value.as<std::int64_t>(), *value.as<std::int64_t>()};
}

// The window's rows and columns. One number is cut to a side that is shorter; a pair has to fit.
inline Sides window(const Parameters& parameters, std::int64_t height, std::int64_t width, std::int64_t initial) {
  if (height < 1 || width < 1)
    throw ParameterError("windows need an image with rows and columns; this network's input has none");
  const Value& given = parameters["window"];
  const Sides pair = sides_of(given);
  const std::int64_t rows = pair.rows ? pair.rows : initial, columns = pair.columns ? pair.columns : initial;
  const std::int64_t longer = std::max(height, width);
  const bool one = given.as<std::int64_t>() != nullptr;
  const bool too_large = one ? std::min(rows, columns) >= longer : rows > height || columns > width;
  if (longer > 1 && (too_large || (rows == height && columns == width)))
    throw ParameterError("window=" + shown(given) + " hides the whole image of " + std::to_string(height) + "x" +
                         std::to_string(width) + " pixels or is larger; give a number below " + std::to_string(longer) +
                         ", or a pair (rows, columns) of at most (" + std::to_string(height) + ", " +
                         std::to_string(width) + ") that is smaller on a side");
  return {std::min(rows, height), std::min(columns, width)};
}

inline std::vector<std::int64_t> offsets(std::int64_t side, std::int64_t window, std::int64_t stride) {
  const std::int64_t last = std::max<std::int64_t>(side - window, 0);
  std::vector<std::int64_t> regular;
  for (std::int64_t offset = 0; offset <= last; offset += stride) regular.push_back(offset);
  if (regular.back() != last) regular.push_back(last);
  return regular;
}

// A grid of windows, in pixels; the last of a row or column is shifted in, so that every border is covered.
inline Steps windows(const Parameters& parameters, std::int64_t height, std::int64_t width) {
  // (side + 4) / 8 is side / 8 rounded, without the round-half-even in which languages differ.
  const Sides size = window(parameters, height, width, std::max<std::int64_t>(1, (std::min(height, width) + 4) / 8));
  Sides stride = sides_of(parameters["stride"]);
  if (stride.rows > size.rows || stride.columns > size.columns)
    throw ParameterError("stride=" + shown(parameters["stride"]) + " is larger than the window, " +
                         std::to_string(size.rows) + "x" + std::to_string(size.columns) +
                         ": the pixels between two windows would never be hidden");
  stride.rows = stride.rows ? stride.rows : std::max<std::int64_t>(1, size.rows / 2);
  stride.columns = stride.columns ? stride.columns : std::max<std::int64_t>(1, size.columns / 2);
  std::vector<std::vector<double>> rows;
  for (const std::int64_t top : offsets(height, size.rows, stride.rows))
    for (const std::int64_t left : offsets(width, size.columns, stride.columns))
      rows.push_back({static_cast<double>(top), static_cast<double>(left),
                      static_cast<double>(std::min(top + size.rows, height)),
                      static_cast<double>(std::min(left + size.columns, width))});
  return table_of(rows, 4);
}

// The rows of the Hadamard matrix in which every cell of a grid of cells × cells has a column of its own.
inline std::int64_t block_rows(std::int64_t cells) {
  std::int64_t rows = 1;
  for (std::int64_t rest = cells - 1; rest > 0; rest /= 2) rows *= 4;
  return rows;
}

// Random masks of cells × cells, in balanced blocks where the design is orthogonal and the probability 1/2.
inline Steps random_masks(const Parameters& parameters, std::int64_t height, std::int64_t width) {
  if (height < 1 || width < 1)
    throw ParameterError("random masks need an image with rows and columns; this network's input has none");
  const std::int64_t cells = parameters.whole("cells"), most = std::min({MOST_CELLS, height, width});
  if (cells < 2 || cells > most)
    throw ParameterError("cells=" + std::to_string(cells) + " is out of range for an image of " +
                         std::to_string(height) + "x" + std::to_string(width) + ": 2 to " + std::to_string(most));
  const double probability = parameters.number("probability"), count = static_cast<double>(cells);
  const bool blocks = parameters.text("design", "independent") == "orthogonal" && probability == 0.5;
  const auto down = static_cast<double>((height + cells - 1) / cells);
  const auto across = static_cast<double>((width + cells - 1) / cells);
  const std::int64_t rows_of_block = block_rows(cells);
  Steps table({parameters.whole("masks"), 9});
  for (std::int64_t mask = 0; mask < table.length(); ++mask) {
    const std::int64_t draw = blocks ? mask / (2 * rows_of_block) : mask;
    const std::int64_t row = blocks ? mask / 2 % rows_of_block : 0, flip = blocks ? mask % 2 : 0;
    const double numbers[] = {static_cast<double>(draw),    probability, count,  (count + 1) * down / count,
                              (count + 1) * across / count, down,        across, static_cast<double>(row),
                              static_cast<double>(flip)};
    for (int column = 0; column < 9; ++column) table.at(mask)[column] = static_cast<float>(numbers[column]);
  }
  return table;
}

}  // namespace plan

inline const std::map<std::string, Plan>& plans() {
  static const std::map<std::string, Plan> known = {
      {"single", {{}, plan::single}},
      {"draws", {{"draw", "alpha", "weight", "multiply"}, plan::draws}},
      {"points", {{"alpha", "weight"}, plan::points}},
      {"draws_points", {{"draw", "alpha", "weight", "multiply"}, plan::draws_points}},
      {"windows", {{"top", "left", "bottom", "right"}, plan::windows}},
      {"random_masks",
       {{"draw", "probability", "cells", "scale_row", "scale_column", "shifts_row", "shifts_column", "row", "flip"},
        plan::random_masks}},
  };
  return known;
}

template <class Table>
std::vector<std::string> names_in(const Table& table) {
  std::vector<std::string> names;
  for (const auto& entry : table) names.push_back(entry.first);
  return names;
}

// The plan rule; BundleError for one that this version doesn't know.
inline const Plan& find_plan(const std::string& name) {
  const auto found = plans().find(name);
  if (found == plans().end())
    throw BundleError(unknown("plan rule", name, names_in(plans())) + "; pip install --upgrade onnxplain");
  return found->second;
}

}  // namespace onnxplain
