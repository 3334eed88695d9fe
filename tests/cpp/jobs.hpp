// What the test program reads and writes: JSON with raw files for arrays.
#pragma once

#include <cstdint>
#include <fstream>
#include <iterator>
#include <onnxplain/onnxplain.hpp>
#include <string>
#include <vector>

using onnxplain::Array;
using onnxplain::Json;
using onnxplain::Value;

template <class T>
Array<T> array_in(const Json& data) {
  const auto shape = data.at("shape").get<onnxplain::Shape>();
  std::ifstream stream(data.at("file").get<std::string>(), std::ios::binary);
  Array<T> array(shape);
  stream.read(reinterpret_cast<char*>(array.values.data()),
              static_cast<std::streamsize>(array.values.size() * sizeof(T)));
  if (!stream) throw std::runtime_error("too short: " + data.at("file").get<std::string>());
  return array;
}

// A parameter's value as JSON has it; an array is {"shape", "file", "dtype"}.
inline Value value_in(const Json& data) {
  if (data.is_object()) {
    const auto dtype = data.at("dtype").get<std::string>();
    if (dtype == "int64") return array_in<std::int64_t>(data);
    if (dtype == "uint8") return array_in<std::uint8_t>(data);
    return array_in<float>(data);
  }
  return onnxplain::reading::value(data);
}

inline onnxplain::Target target_in(const Json& data) {
  if (data.is_null()) return {};
  if (data.is_string()) return data.get<std::string>();
  return data.get<std::int64_t>();
}

inline onnxplain::Targets targets_in(const Json& data) {
  if (data.is_null()) return {};
  if (!data.is_array()) return target_in(data);
  std::vector<onnxplain::Target> each;
  std::vector<std::vector<onnxplain::Target>> several;
  for (const Json& entry : data) {
    if (!entry.is_array()) {
      each.push_back(target_in(entry));
      continue;
    }
    several.emplace_back();
    for (const Json& one : entry) several.back().push_back(target_in(one));
  }
  return several.empty() ? onnxplain::Targets(each) : onnxplain::Targets(several);
}
