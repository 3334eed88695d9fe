// The segments of a picture that are kept or replaced as a whole: a grid, or whatever the caller gives.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "onnxplain/error.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

// cells × cells rectangles [H, W], numbered row by row, of sides as equal as whole pixels allow.
inline Array<std::int64_t> grid_segments(std::int64_t cells, std::int64_t height, std::int64_t width) {
  Array<std::int64_t> numbers({height, width});
  for (std::int64_t row = 0; row < height; ++row)
    for (std::int64_t column = 0; column < width; ++column)
      numbers.at(row)[column] = row * cells / height * cells + column * cells / width;
  return numbers;
}

// The same segments with numbers 0 … S − 1.
inline void close_gaps(std::int64_t* numbers, std::int64_t count) {
  std::map<std::int64_t, std::int64_t> known;
  for (std::int64_t i = 0; i < count; ++i) known[numbers[i]] = 0;
  std::int64_t next = 0;
  for (auto& entry : known) entry.second = next++;
  for (std::int64_t i = 0; i < count; ++i) numbers[i] = known[numbers[i]];
}

// The number of every pixel's segment, [1, H, W] for all images or [N, H, W], counted from 0 without gaps.
//
// `segments` is "grid" (cells × cells rectangles), or whole numbers [H, W] or [N, H, W].
inline Array<std::int64_t> segments_of(const Parameters& parameters, std::int64_t images, std::int64_t height,
                                       std::int64_t width) {
  const Value& given = parameters["segments"];
  if (given.is_text("slic"))
    throw ParameterError(
        "segments='slic' needs scikit-image, which this engine lacks: give segments= of your own, or "
        "use segments='grid'");
  Array<std::int64_t> numbers;
  if (given.is_text() || given.none()) {
    const std::int64_t cells = parameters.whole("cells");
    if (cells > std::min(height, width))
      throw ParameterError("cells=" + std::to_string(cells) + " is out of range for an image of " +
                           std::to_string(height) + "x" + std::to_string(width) + ": at most " +
                           std::to_string(std::min(height, width)));
    numbers = grid_segments(cells, height, width);
  } else if (const Labels* labels = given.as<Labels>()) {
    numbers = **labels;
  } else {
    throw ParameterError("segments must hold whole numbers, one for each pixel: the number of its segment");
  }
  if (numbers.rank() == 2) numbers.shape.insert(numbers.shape.begin(), 1);
  const Shape one = {1, height, width}, each = {images, height, width};
  if (numbers.shape != one && numbers.shape != each)
    throw ParameterError("segments of shape " + shown(given.shape()) + " don't fit: " + shown(Shape{height, width}) +
                         " is right for all images, " + shown(each) + " for one each");
  if (given.is_array())
    for (std::int64_t image = 0; image < numbers.length(); ++image) close_gaps(numbers.at(image), height * width);
  return numbers;
}

}  // namespace onnxplain
