// What the inputs of graphs are fed: arrays that every run gets whole, or the part of its images or steps.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "onnxplain/error.hpp"
#include "onnxplain/planner.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

using Data = std::variant<Floats, Labels, Masks>;

template <class T>
Data data_of(Array<T> array) {
  return std::make_shared<const Array<T>>(std::move(array));
}

// A graph input's values; `per_image` ones are cut to a run's images, `per_step` ones to its steps (axis 1).
struct Feed {
  Data data;
  bool per_image = false, per_step = false;
};
using Feeds = std::map<std::string, Feed>;

inline Feed feed_of(Array<float> array, bool per_image = false, bool per_step = false) {
  return {data_of(std::move(array)), per_image, per_step};
}

// An array that has a row for each of `count` images where its first axis says so.
inline Feed feed_for(Array<float> array, std::int64_t count) {
  const bool per_image = array.rank() > 0 && array.length() == count;
  return feed_of(std::move(array), per_image);
}

// The values of images of these numbers.
inline Feed picked(const Feed& feed, const std::vector<std::int64_t>& numbers) {
  if (!feed.per_image) return feed;
  Feed part = feed;
  std::visit([&](const auto& array) { part.data = data_of(picked(*array, numbers)); }, feed.data);
  return part;
}

// One input of one run, and the values behind it where they had to be copied.
struct Tensor {
  Ort::Value value{nullptr};
  std::vector<std::byte> owned;
};

namespace feeding {

struct Kind {
  ONNXTensorElementDataType type;
  std::size_t bytes;
};

inline Kind kind_of(const std::string& dtype) {
  static const std::map<std::string, Kind> known = {
      {"float32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4}},   {"float64", {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8}},
      {"float16", {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 2}}, {"int64", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8}},
      {"int32", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4}},     {"uint8", {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1}},
      {"int8", {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, 1}},       {"bool", {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 1}}};
  const auto found = known.find(dtype);
  if (found == known.end()) throw BundleError("inputs of type " + dtype + " are unknown here");
  return found->second;
}

template <class To, class From>
void convert(std::vector<std::byte>& bytes, const From* from, std::size_t count) {
  bytes.resize(count * sizeof(To));
  for (std::size_t i = 0; i < count; ++i) {
    const To value = static_cast<To>(from[i]);
    std::memcpy(bytes.data() + i * sizeof(To), &value, sizeof(To));
  }
}

template <class From>
void convert_to(ONNXTensorElementDataType type, std::vector<std::byte>& bytes, const From* from, std::size_t count) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return convert<float>(bytes, from, count);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return convert<double>(bytes, from, count);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return convert<std::int64_t>(bytes, from, count);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return convert<std::int32_t>(bytes, from, count);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
      return convert<std::uint8_t>(bytes, from, count);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return convert<std::int8_t>(bytes, from, count);
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return convert<bool>(bytes, from, count);
    default:
      bytes.resize(count * sizeof(Ort::Float16_t));
      for (std::size_t i = 0; i < count; ++i) {
        const Ort::Float16_t value(static_cast<float>(from[i]));
        std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
      }
  }
}

template <class T>
constexpr ONNXTensorElementDataType native() {
  if constexpr (std::is_same_v<T, float>) return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  if constexpr (std::is_same_v<T, std::int64_t>) return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
}

template <class T>
Tensor tensor_of(const Array<T>& array, const Feed& feed, const Chunk& chunk, const std::string& dtype) {
  static const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const Range images = feed.per_image ? chunk.images : Range{0, array.length()};
  Shape shape = array.shape;
  if (feed.per_image) shape[0] = images.size();
  const T* values = array.at(images.start);
  std::vector<T> gathered;
  if (feed.per_step) {
    shape[1] = chunk.steps.size();
    const std::int64_t step = count_of(shape, 2);
    for (std::int64_t image = images.start; image < images.stop; ++image)
      gathered.insert(gathered.end(), array.at(image) + chunk.steps.start * step,
                      array.at(image) + chunk.steps.stop * step);
    values = gathered.data();
  }
  const auto count = static_cast<std::size_t>(count_of(shape));
  const Kind kind = kind_of(dtype);
  Tensor tensor;
  void* pointer = const_cast<T*>(values);
  if (kind.type != native<T>()) {
    convert_to(kind.type, tensor.owned, values, count);
    pointer = tensor.owned.data();
  } else if (feed.per_step) {
    convert<T>(tensor.owned, values, count);
    pointer = tensor.owned.data();
  }
  static std::byte nowhere[8] = {};
  if (!count) pointer = nowhere;  // ONNX Runtime takes no null pointer, not even for no values
  tensor.value = Ort::Value::CreateTensor(memory, pointer, count * kind.bytes, shape.data(), shape.size(), kind.type);
  return tensor;
}

}  // namespace feeding

// The part of a feed that a run of one chunk takes, in a graph input's type.
inline Tensor tensor_of(const Feed& feed, const Chunk& chunk, const std::string& dtype) {
  return std::visit([&](const auto& array) { return feeding::tensor_of(*array, feed, chunk, dtype); }, feed.data);
}

// An output's values as floats.
inline Array<float> floats_of(const Ort::Value& value) {
  const auto info = value.GetTensorTypeAndShapeInfo();
  Array<float> result;
  result.shape = info.GetShape();
  const std::size_t count = info.GetElementCount();
  const auto copy = [&](const auto* from) {
    result.values.reserve(count);
    for (std::size_t i = 0; i < count; ++i) result.values.push_back(static_cast<float>(from[i]));
  };
  switch (info.GetElementType()) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      result.values.assign(value.GetTensorData<float>(), value.GetTensorData<float>() + count);
      break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      copy(value.GetTensorData<double>());
      break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      copy(value.GetTensorData<std::int64_t>());
      break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      copy(value.GetTensorData<std::int32_t>());
      break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
      copy(value.GetTensorData<std::uint8_t>());
      break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      copy(value.GetTensorData<bool>());
      break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      for (std::size_t i = 0; i < count; ++i)
        result.values.push_back(value.GetTensorData<Ort::Float16_t>()[i].ToFloat());
      break;
    default:
      throw ModelError("an output's numbers are of a type that is unknown here");
  }
  return result;
}

}  // namespace onnxplain
