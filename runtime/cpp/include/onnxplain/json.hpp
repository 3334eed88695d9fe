// The JSON library, and how a description's entries are asked for.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "onnxplain/error.hpp"

namespace onnxplain {

using Json = nlohmann::ordered_json;

// What a description lacks or has wrong; read_bundle turns it into a BundleError that names the file.
struct Incomplete : Error {
  using Error::Error;
};

inline const Json& entry_of(const Json& data, const char* name) {
  if (!data.is_object() || !data.contains(name)) throw Incomplete(in_quotes(name) + " is missing");
  return data.at(name);
}

inline std::string text_of(const Json& data, const char* name) { return entry_of(data, name).get<std::string>(); }

// An entry, or something else where it is missing or null.
template <class T>
T value_of(const Json& data, const char* name, T otherwise) {
  return data.contains(name) && !data.at(name).is_null() ? data.at(name).get<T>() : otherwise;
}

inline std::string text_of(const Json& data, const char* name, const std::string& otherwise) {
  return value_of<std::string>(data, name, otherwise);
}

}  // namespace onnxplain
