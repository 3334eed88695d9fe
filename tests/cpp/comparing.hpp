// Recorded vectors: their arrays, and whether what was found is what they record.
#pragma once

#include <algorithm>
#include <cmath>
#include <onnxplain/onnxplain.hpp>
#include <string>
#include <vector>

using onnxplain::Array;
using onnxplain::Json;

inline double number_of(const Json& data) {
  if (!data.is_string()) return data.is_boolean() ? (data.get<bool>() ? 1 : 0) : data.get<double>();
  const auto text = data.get<std::string>();
  return text == "inf" ? HUGE_VAL : text == "-inf" ? -HUGE_VAL : std::nan("");
}

template <class T>
Array<T> array_of(const Json& data) {
  Array<T> array(data.at("shape").get<onnxplain::Shape>(), std::vector<T>());
  for (const Json& each : data.at("data")) array.values.push_back(static_cast<T>(number_of(each)));
  return array;
}

template <class T>
Json json_of(const Array<T>& array) {
  return {{"shape", array.shape}, {"data", array.values}};
}

// Whether what was found is what is expected, within the tolerance.
inline bool agrees(const Json& found, const Json& expected, double tolerance) {
  if (expected.is_object() && found.is_object()) {
    for (const auto& [name, value] : expected.items())
      if (!found.contains(name) || !agrees(found.at(name), value, tolerance)) return false;
    return true;
  }
  if (expected.is_array() && found.is_array()) {
    if (expected.size() != found.size()) return false;
    for (std::size_t i = 0; i < expected.size(); ++i)
      if (!agrees(found[i], expected[i], tolerance)) return false;
    return true;
  }
  if ((expected.is_string() && found.is_string()) || expected.is_null() || found.is_null()) return found == expected;
  const double is = number_of(found), should = number_of(expected);
  if (std::isnan(should)) return std::isnan(is);
  return is == should || std::abs(is - should) <= tolerance * std::max(1.0, std::abs(should));
}
