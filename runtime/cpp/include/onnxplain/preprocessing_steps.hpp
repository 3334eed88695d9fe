// The preprocessing's steps as a bundle lists them, checked.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "onnxplain/error.hpp"
#include "onnxplain/json.hpp"

namespace onnxplain {

// One step; which entries count depends on its kind.
struct Step {
  std::string kind;                // exif, colour, resize, crop, scale, mean, std, layout
  std::string order;               // colour: RGB, BGR, GREY; layout: NCHW, NHWC
  std::string rule, kernel;        // resize: "shorter" or "exact"; bilinear, bicubic, nearest
  std::vector<std::int64_t> size;  // resize: one number for "shorter", else height and width; crop: both
  bool antialias = false, round = false;
  double factor = 1.0;
  std::vector<double> values;
};

inline const std::vector<std::string>& step_order() {
  static const std::vector<std::string> order = {"exif", "colour", "resize", "crop", "scale", "mean", "std", "layout"};
  return order;
}

inline std::int64_t channels_of(const std::vector<Step>& steps) {
  for (const Step& step : steps)
    if (step.kind == "colour") return step.order == "GREY" ? 1 : 3;
  return 3;
}

inline const Step* find_step(const std::vector<Step>& steps, const char* kind) {
  for (const Step& step : steps)
    if (step.kind == kind) return &step;
  return nullptr;
}

namespace reading {

// A value of a step as messages show it.
inline std::string written(const Json& value) {
  if (value.is_string()) return in_quotes(value.get<std::string>());
  if (value.is_number_float()) return shown(value.get<double>());
  if (!value.is_array()) return value.dump();
  std::vector<std::string> parts;
  for (const Json& each : value) parts.push_back(written(each));
  return "[" + joined(parts, ", ") + "]";
}

inline bool is_count(const Json& value) {
  return value.is_number_integer() && value.get<std::int64_t>() >= 1 && value.get<std::int64_t>() <= 100'000;
}
inline bool is_size(const Json& value) {
  return value.is_array() && value.size() == 2 && is_count(value[0]) && is_count(value[1]);
}
inline bool is_number(const Json& value) { return value.is_number() && std::isfinite(value.get<double>()); }
inline bool are_numbers(const Json& values, bool zero) {
  bool fit = values.is_array() && !values.empty();
  for (const Json& each : values) fit = fit && is_number(each) && (zero || each.get<double>() != 0);
  return fit;
}

// One entry of a kind of step: its name, and the texts or the test that say what it can be.
struct Entry {
  std::string name;
  std::vector<std::string> texts;
  std::function<bool(const Json&)> fits;
};

inline const std::vector<Entry>& entries_of(const std::string& kind) {
  const auto flag = [](const Json& value) { return value.is_boolean(); };
  static const std::map<std::string, std::vector<Entry>> known = {
      {"exif", {}},
      {"colour", {{"order", {"RGB", "BGR", "GREY"}, {}}}},
      {"resize",
       {{"rule", {"shorter", "exact"}, {}},
        {"size", {}, [](const Json& size) { return is_count(size) || is_size(size); }},
        {"kernel", {"bilinear", "bicubic", "nearest"}, {}},
        {"antialias", {}, flag},
        {"round", {}, flag}}},
      {"crop", {{"size", {}, is_size}}},
      {"scale", {{"factor", {}, [](const Json& value) { return is_number(value) && value.get<double>() != 0; }}}},
      {"mean", {{"values", {}, [](const Json& values) { return are_numbers(values, true); }}}},
      {"std", {{"values", {}, [](const Json& values) { return are_numbers(values, false); }}}},
      {"layout", {{"order", {"NCHW", "NHWC"}, {}}}}};
  return known.at(kind);
}

// What is wrong with a step's entries; "" where nothing is.
inline std::string wrong_entry(const Json& data, const std::vector<Entry>& entries) {
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.push_back(entry.name);
  for (const auto& given : data.items())
    if (given.key() != "step" && std::find(names.begin(), names.end(), given.key()) == names.end())
      return unknown("entry", given.key(), names);
  for (const Entry& entry : entries) {
    if (!data.contains(entry.name)) return in_quotes(entry.name) + " is missing";
    const Json& value = data.at(entry.name);
    if (entry.fits && !entry.fits(value))
      return in_quotes(entry.name) + " can't be " +
             (entry.name == "factor" && value.is_number() ? shown(value.get<double>()) : written(value));
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (!entry.fits && std::find(entry.texts.begin(), entry.texts.end(), text) == entry.texts.end())
      return unknown(entry.name, text, entry.texts);
  }
  if (data.at("step") == "resize" && (data.at("rule") == "shorter") != data.at("size").is_number())
    return "'size' must be one number for rule 'shorter' and [height, width] for rule 'exact'";
  return "";
}

inline Step step(const Json& data, std::size_t position) {
  const std::string kind = text_of(data, "step", "None"), where = "preprocessing step " + std::to_string(position);
  if (std::find(step_order().begin(), step_order().end(), kind) == step_order().end())
    throw ParameterError(where + ": " + unknown("step", kind, step_order()));
  const std::string wrong = wrong_entry(data, entries_of(kind));
  if (!wrong.empty()) throw ParameterError(where + " (" + kind + "): " + wrong);
  Step read;
  read.kind = kind;
  read.order = text_of(data, "order", "");
  read.rule = text_of(data, "rule", "");
  read.kernel = text_of(data, "kernel", "");
  if (data.contains("size")) {
    const Json& size = data.at("size");
    read.size = size.is_array() ? size.get<std::vector<std::int64_t>>() : std::vector{size.get<std::int64_t>()};
  }
  read.antialias = value_of(data, "antialias", false);
  read.round = value_of(data, "round", false);
  read.factor = value_of(data, "factor", 1.0);
  read.values = value_of<std::vector<double>>(data, "values", {});
  return read;
}

}  // namespace reading

// The steps of a list; ParameterError names an unknown, misplaced or wrong one.
inline std::vector<Step> read_steps(const Json& list) {
  std::vector<Step> steps;
  for (const Json& data : list) steps.push_back(reading::step(data, steps.size() + 1));
  std::vector<std::string> kinds;
  for (const Step& step : steps) kinds.push_back(step.kind);
  for (const std::string& kind : step_order())
    if (std::count(kinds.begin(), kinds.end(), kind) > 1)
      throw ParameterError("preprocessing has step " + in_quotes(kind) + " twice");
  if (!find_step(steps, "layout")) throw ParameterError("preprocessing has no 'layout' step: say NCHW or NHWC");
  const auto place = [](const std::string& kind) {
    return std::find(step_order().begin(), step_order().end(), kind) - step_order().begin();
  };
  if (!std::is_sorted(kinds.begin(), kinds.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); }))
    throw ParameterError("preprocessing steps are " + joined(kinds, ", ") + "; the order must be " +
                         joined(step_order(), ", "));
  const std::int64_t channels = channels_of(steps);
  for (const Step& step : steps) {
    const auto count = static_cast<std::int64_t>(step.values.size());
    if (count > 1 && count != channels)
      throw ParameterError("preprocessing " + step.kind + " has " + std::to_string(count) +
                           " values for a picture of " + std::to_string(channels) + " channels");
  }
  return steps;
}

}  // namespace onnxplain
