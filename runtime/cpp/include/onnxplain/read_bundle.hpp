// Reads and checks a bundle: the folder that export writes, or a single file that holds its own description.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/bundle.hpp"
#include "onnxplain/json.hpp"
#include "onnxplain/model_file.hpp"
#include "onnxplain/sha256.hpp"

namespace onnxplain {

constexpr int FORMAT = 1;

namespace reading {

inline std::string one_of(const std::string& value, const std::vector<std::string>& known) {
  for (const std::string& each : known)
    if (each == value) return value;
  throw Incomplete(in_quotes(value) + " is none of " + joined(known, ", "));
}

inline Axes axes(const Json& data) {
  Axes result;
  for (const Json& axis : data)
    result.push_back(axis.is_number() ? Axis{axis.get<std::int64_t>(), ""} : Axis{0, axis.get<std::string>()});
  return result;
}

inline Input input(const Json& data) {
  return {text_of(data, "name"), text_of(data, "dtype"), axes(entry_of(data, "shape")), text_of(data, "layout", ""),
          entry_of(data, "explained").get<bool>()};
}

inline Output output(const Json& data) {
  Output read;
  read.name = text_of(data, "name");
  read.shape = axes(entry_of(data, "shape"));
  read.explained = entry_of(data, "explained").get<bool>();
  read.classes = value_of<std::int64_t>(data, "classes", 0);
  if (!data.contains("class_axis")) {
    read.class_axis = 1;
  } else if (!data.at("class_axis").is_null()) {
    read.class_axis = data.at("class_axis").get<std::int64_t>();
  }
  read.activation = one_of(text_of(data, "activation", "none"), {"softmax", "sigmoid", "none"});
  const auto labels = value_of<std::vector<std::string>>(data, "labels", {});
  if (!labels.empty()) read.labels = labels;
  return read;
}

inline Graph graph(const std::string& name, const Json& data) {
  Graph read;
  read.name = name;
  read.file = text_of(data, "file");
  read.sha256 = text_of(data, "sha256");
  for (const Json& each : entry_of(data, "inputs"))
    read.inputs.push_back(
        {text_of(each, "name"), text_of(each, "role"), text_of(each, "dtype"), axes(entry_of(each, "shape"))});
  for (const Json& each : entry_of(data, "outputs")) read.outputs.push_back(text_of(each, "name"));
  read.columns = value_of<std::vector<std::string>>(data, "columns", {});
  read.bytes_per_row = entry_of(data, "bytes_per_row").get<std::int64_t>();
  read.bytes_per_run = value_of<std::int64_t>(data, "bytes_per_run", 0);
  // A single file has no graph for the scores alone.
  read.tells_scores = value_of(data, "tells_scores", name == "single");
  return read;
}

inline Value value(const Json& data) {
  if (data.is_boolean()) return data.get<bool>();
  if (data.is_number_integer()) return data.get<std::int64_t>();
  if (data.is_number()) return data.get<double>();
  if (data.is_string()) return data.get<std::string>();
  if (data.is_array() && data.size() == 2) return Sides{data[0].get<std::int64_t>(), data[1].get<std::int64_t>()};
  if (data.is_array()) {
    const auto numbers = data.get<std::vector<std::int64_t>>();
    return Array<std::int64_t>({static_cast<std::int64_t>(numbers.size())}, numbers);
  }
  return {};
}

inline Parameter parameter(const std::string& name, const Json& data) {
  Parameter read;
  read.name = name;
  read.kind = one_of(text_of(data, "kind"), {"int", "float", "bool", "size", "choice", "image", "array", "layer"});
  read.initial = value(entry_of(data, "default"));
  for (const bool least : {true, false}) {
    const char* const bound = least ? "minimum" : "maximum";
    if (!data.contains(bound) || data.at(bound).is_null()) continue;
    (least ? read.minimum : read.maximum) = data.at(bound).get<double>();
    const Value shown_as = read.kind == "float" ? Value(data.at(bound).get<double>()) : value(data.at(bound));
    (least ? read.minimum_text : read.maximum_text) = shown(shown_as);
  }
  read.choices = value_of<std::vector<std::string>>(data, "choices", {});
  read.help = text_of(data, "help", "");
  return read;
}

inline Method method(const std::string& name, const Json& data) {
  Method read;
  read.name = name;
  read.graph = text_of(data, "graph");
  read.plan = text_of(data, "plan");
  read.finish = text_of(data, "finish");
  read.explains = one_of(text_of(data, "explains"), {"logits", "probabilities"});
  read.measures = one_of(text_of(data, "measures", "sensitivity"), {"sensitivity", "contribution", "importance"});
  for (const auto& [key, each] : entry_of(data, "parameters").items()) read.parameters.push_back(parameter(key, each));
  read.loop = text_of(data, "loop", "sum");
  read.beside = value_of<std::vector<std::string>>(data, "beside", {});
  read.about = text_of(data, "about", "");
  return read;
}

inline Layer layer(const Json& data) {
  Layer read;
  read.name = text_of(data, "name");
  read.shape = axes(entry_of(data, "shape"));
  read.layout = text_of(data, "layout");
  const auto grid = entry_of(data, "grid").get<std::vector<std::int64_t>>();
  if (grid.size() != 2) throw Incomplete("a layer's grid must have rows and columns");
  read.rows = grid[0];
  read.columns = grid[1];
  read.prefix = value_of<std::int64_t>(data, "prefix", 0);
  read.graph = text_of(data, "graph");
  if (data.contains("tail") && !data.at("tail").is_null()) read.tail = text_of(data, "tail");
  read.is_default = value_of(data, "default", false);
  return read;
}

inline void check_links(const Bundle& bundle) {
  const auto once = [](const auto& entries, const char* kind) {
    int explained = 0;
    for (const auto& entry : entries) explained += entry.explained ? 1 : 0;
    if (explained != 1) throw Incomplete("not exactly one " + std::string(kind) + " is explained");
  };
  once(bundle.inputs, "input");
  once(bundle.outputs, "output");
  for (const Method& method : bundle.methods) {
    std::vector<std::string> graphs = method.beside;
    graphs.insert(graphs.begin(), method.graph);
    for (const std::string& graph : graphs)
      if (!bundle.graph(graph)) throw Incomplete("method " + method.name + " needs the graph " + in_quotes(graph));
  }
  if (!bundle.graph(bundle.scoring())) throw Incomplete("there is no graph " + in_quotes(bundle.scoring()));
}

inline Bundle bundle(const std::filesystem::path& path, const Json& data) {
  Bundle read;
  read.path = path;
  read.version = text_of(data, "onnxplain");
  read.name = text_of(data, "name");
  read.source_sha256 = text_of(entry_of(data, "source"), "sha256", "");
  if (data.contains("single") && !data.at("single").is_null()) {
    const Json& single = data.at("single");
    read.single = Single{text_of(single, "method"), entry_of(single, "picture_input").get<bool>(),
                         entry_of(single, "picture_output").get<bool>()};
  }
  for (const Json& each : entry_of(data, "inputs")) read.inputs.push_back(input(each));
  if (data.contains("value") && !data.at("value").is_null()) {
    const Json& value = data.at("value");
    read.inside = Inside{text_of(value, "name"), axes(entry_of(value, "shape")), text_of(value, "layout", "")};
    if (read.inside->name == read.image().name) read.inside.reset();  // the input itself
  }
  for (const Json& each : entry_of(data, "outputs")) read.outputs.push_back(output(each));
  const Json preprocessing = value_of<Json>(data, "preprocessing", Json::object());
  if (preprocessing.contains("steps") && !preprocessing.at("steps").empty())
    read.steps = read_steps(preprocessing.at("steps"));
  const Json weights = value_of<Json>(data, "weights", Json::object());
  if (!weights.empty()) read.weights = {text_of(weights, "file"), text_of(weights, "sha256")};
  for (const auto& [name, each] : entry_of(data, "graphs").items()) read.graphs.emplace(name, graph(name, each));
  for (const auto& [name, each] : entry_of(data, "methods").items()) read.methods.push_back(method(name, each));
  read.left_out = value_of<std::map<std::string, std::string>>(data, "left_out", {});
  for (const Json& each : value_of<Json>(data, "layers", Json::array())) read.layers.push_back(layer(each));
  const Json detector = value_of<Json>(data, "detector", Json::object());
  read.detector_network = text_of(detector, "network", "");
  check_links(read);
  return read;
}

// The description in the text of a file called `source`; `path` is the bundle that it belongs to.
inline Bundle described(const std::filesystem::path& path, const std::string& source, const std::string& text) {
  Json data;
  try {
    data = Json::parse(text);
  } catch (const Json::exception& error) {
    throw BundleError(source + " is not JSON (" + first_line(error.what()) + "); export the bundle again");
  }
  if (!data.is_object() || !data.contains("format") || !data.at("format").is_number_integer())
    throw BundleError(source + " names no format, so it is no description of a bundle");
  const auto number = data.at("format").get<std::int64_t>();
  if (number > FORMAT)
    throw BundleError(path.string() + " has format " + std::to_string(number) + ", made by onnxplain " +
                      text_of(data, "onnxplain", "?") + "; this version reads up to " + std::to_string(FORMAT) +
                      ": pip install --upgrade onnxplain");
  try {
    return bundle(path, data);
  } catch (const Error& error) {
    throw BundleError(source + " is incomplete: " + error.what() + "; export the bundle again");
  } catch (const Json::exception& error) {
    throw BundleError(source + " is incomplete: " + first_line(error.what()) + "; export the bundle again");
  }
}

inline void check_files(const Bundle& bundle, bool verify) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const auto& entry : bundle.graphs) files.emplace_back(entry.second.file, entry.second.sha256);
  if (bundle.weights) files.push_back(*bundle.weights);
  for (const auto& [name, expected] : files) {
    if (std::filesystem::path(name).filename() != name || name.empty())
      throw BundleError((bundle.path / "explainer.json").string() + " names a file outside the bundle: " + name);
    const std::filesystem::path file = bundle.path / name;
    if (!std::filesystem::is_regular_file(file))
      throw BundleError(file.string() + " is missing; export the bundle again");
    if (verify && !expected.empty() && sha256_of(file) != expected)
      throw BundleError(file.string() + " was altered after export (its SHA-256 differs); export the bundle again");
  }
}

}  // namespace reading

// The bundle in a folder, or in a single file; BundleError names the file that is missing, altered or newer than this
// reader. Without `verify` the files' hashes aren't compared.
inline Bundle read_bundle(std::filesystem::path path, bool verify = true) {
  if (!path.has_filename() && path.has_parent_path()) path = path.parent_path();  // "folder/"
  if (!std::filesystem::exists(path))
    throw BundleError(path.string() +
                      " does not exist; make a bundle with: onnxplain export MODEL.onnx -o NAME.explain");
  if (!std::filesystem::is_directory(path)) {
    const std::optional<std::string> inside = metadata_of(path, "onnxplain");
    if (!inside)
      throw BundleError(
          path.string() +
          " is a file, not a bundle; a bundle is the folder that onnxplain export writes, or the file that it "
          "writes with --single METHOD");
    return reading::described(path, path.string(), *inside);
  }
  const std::filesystem::path description = path / "explainer.json";
  if (!std::filesystem::exists(description))
    throw BundleError(path.string() + " has no explainer.json, so it is no bundle");
  std::ifstream stream(description, std::ios::binary);
  if (!stream) throw BundleError(description.string() + " can't be read");
  const std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  Bundle bundle = reading::described(path, description.string(), text);
  reading::check_files(bundle, verify);
  return bundle;
}

}  // namespace onnxplain
