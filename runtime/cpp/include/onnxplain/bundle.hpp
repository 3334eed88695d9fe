// A bundle's description, as explainer.json gives it: what export writes and every engine reads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/preprocessing_steps.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

// The axes of an input or output; a free one has a name and no size.
struct Axis {
  std::int64_t size = 0;  // 0: free
  std::string name;
};
using Axes = std::vector<Axis>;

// The sizes of the axes from `first` on, 1 where one is free.
inline Shape sizes_of(const Axes& axes, std::size_t first = 1) {
  Shape sizes;
  for (std::size_t i = first; i < axes.size(); ++i) sizes.push_back(axes[i].size ? axes[i].size : 1);
  return sizes;
}

// An input of the source model.
struct Input {
  std::string name, dtype;
  Axes shape;
  std::string layout;  // "" where it is no picture
  bool explained = false;
  bool batched() const { return !shape.empty() && shape[0].size == 0; }
};

// A value inside the network that gradients are taken at, in place of the input.
struct Inside {
  std::string name;
  Axes shape;
  std::string layout;
};

// An output of the source model; `activation` turns its scores into probabilities, along `class_axis` if any.
struct Output {
  std::string name;
  Axes shape;
  bool explained = false;
  std::int64_t classes = 0;
  std::optional<std::int64_t> class_axis;
  std::string activation;
  std::optional<std::vector<std::string>> labels;
};

// A required input of a graph; `role` says what the engine feeds: "input" another of the model's own inputs.
struct GraphInput {
  std::string name, role, dtype;
  Axes shape;
  // Whether it has a number for every image.
  bool per_image() const { return !shape.empty() && shape[0].name == "N"; }
  // What distinguishes it from the graph's other inputs, the same in all graphs.
  std::string key() const { return role == "input" ? "input " + name : role; }
};

// One ONNX file of the bundle; a run was measured to take `bytes_per_run`, and `bytes_per_row` for each row.
struct Graph {
  std::string name, file, sha256;
  std::vector<GraphInput> inputs;
  std::vector<std::string> outputs;
  std::vector<std::string> columns;
  std::int64_t bytes_per_row = 0, bytes_per_run = 0;
  bool tells_scores = false;

  bool takes(const std::string& role) const {
    for (const GraphInput& entry : inputs)
      if (entry.role == role) return true;
    return false;
  }
  // Whether a run draws noise or masks for its steps, the same for all of its images.
  bool draws() const { return std::find(columns.begin(), columns.end(), "draw") != columns.end(); }
  bool gives(const std::string& output) const {
    for (const std::string& name_of : outputs)
      if (name_of == output) return true;
    return false;
  }
};

// A feature layer that the CAM family explains at; `layout` is "NCHW", "NHWC", or "tokens" [N, prefix + places, K].
struct Layer {
  std::string name;
  Axes shape;
  std::string layout;
  std::int64_t rows = 0, columns = 0, prefix = 0;
  std::string graph;
  std::optional<std::string> tail;
  bool is_default = false;
};

// A parameter of a method, with its default and its range (both ends included, "" is open) or its choices.
struct Parameter {
  std::string name, kind;
  Value initial;
  std::optional<double> minimum, maximum;
  std::string minimum_text, maximum_text;
  std::vector<std::string> choices;
  std::string help;
};

// An explanation method: a graph, the plan rule that makes its steps, the rule that finishes the sum, and the loop that
// runs them; `beside` names further graphs.
struct Method {
  std::string name, graph, plan, finish, explains, measures, loop = "sum", about;
  std::vector<std::string> beside;
  std::vector<Parameter> parameters;

  const Parameter* find(const std::string& wanted) const {
    for (const Parameter& parameter : parameters)
      if (parameter.name == wanted) return &parameter;
    return nullptr;
  }
};

// What is fixed in a single file, which has its weights inside and finds the top class itself.
struct Single {
  std::string method;
  bool picture_input = false, picture_output = false;
};

struct Bundle {
  std::filesystem::path path;  // the folder, or the single file
  std::string version, name, source_sha256;
  std::vector<Input> inputs;
  std::optional<Inside> inside;
  std::vector<Output> outputs;
  std::vector<Step> steps;  // the preprocessing; none where the network takes no pictures
  std::optional<std::pair<std::string, std::string>> weights;
  std::map<std::string, Graph> graphs;
  std::vector<Method> methods;
  std::map<std::string, std::string> left_out;
  std::vector<Layer> layers;
  std::string detector_network;  // the network that the detector of unusual pictures was trained on, if there is one
  std::optional<Single> single;

  std::filesystem::path file(const Graph& graph) const { return single ? path : path / graph.file; }
  // The graph that says what the network's scores are: that of a single file is its only one.
  std::string scoring() const { return single ? "single" : "forward"; }
  // Whether pictures go in as they are, and preprocessing is the graph's own.
  bool takes_pictures() const { return single && single->picture_input; }
  const Input& image() const {
    for (const Input& entry : inputs)
      if (entry.explained) return entry;
    return inputs.front();
  }
  const Output& scores() const {
    for (const Output& entry : outputs)
      if (entry.explained) return entry;
    return outputs.front();
  }
  // The axes of what gradients are taken at.
  const Axes& value_shape() const { return inside ? inside->shape : image().shape; }
  // Whether a cotangent of the output's shape says what is explained, in place of a class.
  bool free() const {
    for (const auto& entry : graphs)
      if (entry.second.takes("cotangent")) return true;
    return false;
  }
  const Method* find(const std::string& wanted) const {
    for (const Method& method : methods)
      if (method.name == wanted) return &method;
    return nullptr;
  }
  const Graph* graph(const std::string& wanted) const {
    const auto found = graphs.find(wanted);
    return found == graphs.end() ? nullptr : &found->second;
  }
};

}  // namespace onnxplain
