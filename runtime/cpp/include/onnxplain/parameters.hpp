// Checks a method's parameters against the kinds and ranges that the bundle gives.
#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "onnxplain/bundle.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

namespace checking {

// The range as a person would say it, such as "1 to 100" or "at least 0".
inline std::string range_of(const Parameter& parameter) {
  if (parameter.minimum && parameter.maximum) return parameter.minimum_text + " to " + parameter.maximum_text;
  if (parameter.minimum) return "at least " + parameter.minimum_text;
  return parameter.maximum ? "at most " + parameter.maximum_text : "any number";
}

inline std::string assigned(const Parameter& parameter, const Value& value) {
  return parameter.name + "=" + shown(value);
}

inline Value number(const Parameter& parameter, const Value& value) {
  static const std::map<std::string, std::string> words = {
      {"int", "whole number"}, {"float", "number"}, {"size", "whole number or pair of them"}};
  if (!value.is_number()) throw ParameterError(assigned(parameter, value) + " is no " + words.at(parameter.kind));
  const double given = value.number();
  if (parameter.kind != "float" && given != std::trunc(given))
    throw ParameterError(assigned(parameter, value) + " must be a whole number");
  if ((parameter.minimum && given < *parameter.minimum) || (parameter.maximum && given > *parameter.maximum))
    throw ParameterError(assigned(parameter, value) + " is out of range: " + range_of(parameter));
  if (parameter.kind == "float") return given;
  return static_cast<std::int64_t>(given);
}

inline Value size(const Parameter& parameter, const Value& value) {
  const Sides* sides = value.as<Sides>();
  if (value.is_array())
    throw ParameterError(assigned(parameter, value) + " must be one whole number, or a pair (rows, columns)");
  if (!sides) return number(parameter, value);
  number(parameter, sides->rows);
  number(parameter, sides->columns);
  return value;
}

inline Value choice(const Parameter& parameter, const Value& value) {
  if (value.is_text())
    for (const std::string& each : parameter.choices)
      if (*value.as<std::string>() == each) return value;
  std::vector<std::string> known;
  if (!parameter.choices.empty()) known.push_back(joined(parameter.choices, ", "));
  if (parameter.kind == "array") known.emplace_back("an array (.npy file)");
  const std::string text = known.empty() ? "" : "; it can be " + joined(known, " or ");
  throw ParameterError("unknown " + parameter.name + " " + shown(value) + text);
}

inline void refuse_endless(const Parameter& parameter, const Value& value) {
  if (const Floats* array = value.as<Floats>())
    for (const float each : (*array)->values)
      if (!std::isfinite(each)) throw ParameterError(parameter.name + " contains NaN or infinity");
  if (value.as<double>() && !std::isfinite(*value.as<double>()))
    throw ParameterError(parameter.name + " contains NaN or infinity");
}

// A number, a name, or float32 values that broadcast to the images.
inline Value image(const Parameter& parameter, const Value& value) {
  if (value.is_text()) {
    const std::vector<std::string> names =
        parameter.choices.empty() ? std::vector<std::string>{"black", "white", "mean", "blur"} : parameter.choices;
    for (const std::string& each : names)
      if (*value.as<std::string>() == each) return value;
    throw ParameterError(unknown(parameter.name, *value.as<std::string>(), names) + " (or a number, or an array)");
  }
  refuse_endless(parameter, value);
  if (value.is_number()) return static_cast<double>(static_cast<float>(value.number()));
  if (!value.as<Floats>()) throw ParameterError(assigned(parameter, value) + " is no number, name or array of numbers");
  return value;
}

// None, one of the choices, or an array.
inline Value array(const Parameter& parameter, const Value& value) {
  if (value.none() || value.is_array()) {
    refuse_endless(parameter, value);
    return value;
  }
  if (value.is_text()) return choice(parameter, value);
  throw ParameterError(assigned(parameter, value) + " is no number, name or array of numbers");
}

}  // namespace checking

// The value as the plain thing that the parameter's kind stands for; ParameterError if it is of the wrong kind or
// range.
inline Value check_parameter(const Parameter& parameter, const Value& value) {
  if (parameter.kind == "size") return checking::size(parameter, value);
  if (parameter.kind == "choice") return checking::choice(parameter, value);
  if (parameter.kind == "image") return checking::image(parameter, value);
  if (parameter.kind == "array") return checking::array(parameter, value);
  if (parameter.kind == "bool") {
    if (!value.as<bool>()) throw ParameterError(checking::assigned(parameter, value) + " must be True or False");
    return value;
  }
  if (parameter.kind == "layer") {
    if (!value.is_text()) throw ParameterError(checking::assigned(parameter, value) + " is no name");
    return value;
  }
  return checking::number(parameter, value);
}

// All parameters of a method, the given ones checked and the others at their defaults.
inline Parameters check_parameters(const Method& method, const std::map<std::string, Value>& given) {
  std::vector<std::string> known;
  for (const Parameter& parameter : method.parameters) known.push_back(parameter.name);
  for (const auto& entry : given) {
    if (method.find(entry.first)) continue;
    throw ParameterError(known.empty() ? method.name + " has no parameters, not " + in_quotes(entry.first)
                                       : unknown("parameter of " + method.name, entry.first, known));
  }
  Parameters checked;
  for (const Parameter& parameter : method.parameters) {
    const auto found = given.find(parameter.name);
    checked.set(parameter.name, check_parameter(parameter, found == given.end() ? parameter.initial : found->second));
  }
  return checked;
}

// The value that a command line's text stands for, checked.
inline Value parameter_from_text(const Parameter& parameter, const std::string& text) {
  const auto is_number = [&](const std::string& part, double& number) {
    char* end = nullptr;
    number = std::strtod(part.c_str(), &end);
    return !part.empty() && *end == 0;
  };
  double number = 0;
  if (parameter.kind == "bool") {
    const std::string lower = lowered(text);
    if (lower == "true" || lower == "yes" || lower == "1") return true;
    if (lower == "false" || lower == "no" || lower == "0") return false;
  } else if (parameter.kind == "size" && text.find_first_of("x,") != std::string::npos) {
    const std::size_t middle = text.find_first_of("x,");
    double rows = 0, columns = 0;
    if (is_number(text.substr(0, middle), rows) && is_number(text.substr(middle + 1), columns))
      return check_parameter(parameter, Sides{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)});
  } else if (parameter.kind != "choice" && parameter.kind != "layer" && is_number(text, number)) {
    const bool whole = text.find_first_not_of("+-0123456789") == std::string::npos;
    return check_parameter(parameter, whole ? Value(static_cast<std::int64_t>(number)) : Value(number));
  }
  return check_parameter(parameter, text);
}

}  // namespace onnxplain
