// Dense arrays: a shape and its values, the last axis fastest. What the engine computes with and hands out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

namespace onnxplain {

using Shape = std::vector<std::int64_t>;

// The product of the axes from `first` on.
inline std::int64_t count_of(const Shape& shape, std::size_t first = 0) {
  std::int64_t count = 1;
  for (std::size_t axis = first; axis < shape.size(); ++axis) count *= shape[axis];
  return count;
}

// The axes `lead` followed by those of `rest` from `first` on.
inline Shape joined(Shape lead, const Shape& rest, std::size_t first = 0) {
  if (first < rest.size()) lead.insert(lead.end(), rest.begin() + static_cast<std::ptrdiff_t>(first), rest.end());
  return lead;
}

template <class T>
struct Array {
  Shape shape{0};
  std::vector<T> values;

  Array() = default;
  explicit Array(Shape axes, T fill = T{})
      : shape(std::move(axes)), values(static_cast<std::size_t>(count_of(shape)), fill) {}
  Array(Shape axes, std::vector<T> content) : shape(std::move(axes)), values(std::move(content)) {}
  Array(Shape axes, std::initializer_list<T> content) : shape(std::move(axes)), values(content) {}

  std::size_t rank() const { return shape.size(); }
  // The length of the first axis; an array without axes is one number.
  std::int64_t length() const { return shape.empty() ? 1 : shape[0]; }
  std::int64_t size() const { return static_cast<std::int64_t>(values.size()); }
  // The number of values behind each index of the first axis.
  std::int64_t stride() const { return shape.empty() ? 1 : count_of(shape, 1); }
  T* at(std::int64_t index) { return values.data() + index * stride(); }
  const T* at(std::int64_t index) const { return values.data() + index * stride(); }
};

// Some neighbouring indices of an axis: from `start` to before `stop`.
struct Range {
  std::int64_t start = 0, stop = 0;
  std::int64_t size() const { return stop - start; }
  bool operator==(const Range& other) const { return start == other.start && stop == other.stop; }
};

// Some entries of the first axis.
template <class T>
Array<T> part_of(const Array<T>& array, Range range) {
  Array<T> part;
  part.shape = joined({range.size()}, array.shape, 1);
  part.values.assign(array.at(range.start), array.at(range.stop));
  return part;
}

// Entries of the first axis by their numbers.
template <class T>
Array<T> picked(const Array<T>& array, const std::vector<std::int64_t>& numbers) {
  Array<T> part;
  part.shape = joined({static_cast<std::int64_t>(numbers.size())}, array.shape, 1);
  part.values.reserve(numbers.size() * static_cast<std::size_t>(array.stride()));
  for (const std::int64_t number : numbers)
    part.values.insert(part.values.end(), array.at(number), array.at(number + 1));
  return part;
}

// The same values with their type changed.
template <class To, class From>
Array<To> converted(const Array<From>& array) {
  Array<To> result(array.shape);
  const From* from = array.values.data();
  for (To& value : result.values) value = static_cast<To>(*from++);
  return result;
}

// Whether none of some numbers is NaN or infinite.
inline bool all_finite(const float* first, const float* last) {
  // NaN from the first such number on, since infinity times 0 is NaN; four sums, which don't wait for each other.
  float sums[4] = {0, 0, 0, 0};
  for (; last - first >= 4; first += 4)
    for (int i = 0; i < 4; ++i) sums[i] += first[i] * 0.0f;
  for (; first != last; ++first) sums[0] += *first * 0.0f;
  return sums[0] + sums[1] + sums[2] + sums[3] == 0;
}

// 0, 1, … count − 1.
inline std::vector<std::int64_t> numbers_to(std::int64_t count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(count));
  for (std::int64_t number = 0; number < count; ++number) numbers[static_cast<std::size_t>(number)] = number;
  return numbers;
}

}  // namespace onnxplain
