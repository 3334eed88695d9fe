// The engine's front door: an Explainer opens a bundle and explains images with the methods in it.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/images.hpp"
#include "onnxplain/in_groups.hpp"
#include "onnxplain/parameters.hpp"
#include "onnxplain/read_bundle.hpp"
#include "onnxplain/result.hpp"
#include "onnxplain/work.hpp"

namespace onnxplain {

// How a bundle is opened: `threads` bounds the threads of one run, `rows` fixes how many images times steps it takes
// where memory allows, `verify` compares the files' hashes, `configure` changes the settings of the sessions.
struct Settings {
  std::optional<int> threads;
  std::optional<std::int64_t> rows;
  bool verify = true;
  Configure configure;
};

// What explain is to do; everything has a default.
struct Options {
  std::string method;               // "gradient" unless named, or that of a single file
  Targets targets;                  // nothing: each image's top class
  std::optional<std::int64_t> top;  // so many of each image's best classes
  Memory memory;                    // "2GB", or bytes: bounds what the call adds to the process
  std::string score;                // "logits" or "probabilities", for perturbation methods
  std::map<std::string, Value> parameters;
  std::map<std::string, Data> inputs;  // the network's other inputs, by name

  Options() = default;
  Options(const char* name) : method(name) {}
  Options(std::string name) : method(std::move(name)) {}
  Options& with(const std::string& name, Value value) {
    parameters.insert_or_assign(name, std::move(value));
    return *this;
  }
  Options& of(Targets classes) {
    targets = std::move(classes);
    return *this;
  }
  Options& within(Memory bound) {
    memory = std::move(bound);
    return *this;
  }
};

// Explains images with the methods of one bundle (a folder, or a single file); may be shared between threads.
class Explainer {
 public:
  // BundleError for a bundle that is missing, altered or newer than this version.
  explicit Explainer(const std::filesystem::path& path, Settings settings = {})
      : bundle_(std::make_shared<const Bundle>(read_bundle(path, settings.verify))), settings_(std::move(settings)) {
    if (settings_.threads && *settings_.threads < 1)
      throw ParameterError("threads=" + std::to_string(*settings_.threads) + " must be a whole number of at least 1");
    if (settings_.rows && *settings_.rows < 1)
      throw ParameterError("rows=" + std::to_string(*settings_.rows) + " must be a whole number of at least 1");
    sessions_ = std::make_shared<Sessions>(bundle_, settings_.threads, settings_.configure);
  }

  const Bundle& bundle() const { return *bundle_; }
  std::vector<std::string> methods() const {
    std::vector<std::string> names;
    for (const Method& method : bundle_->methods) names.push_back(method.name);
    return names;
  }
  const std::vector<Parameter>& parameters(const std::string& method) const {
    return found(method.empty() ? usual() : method).parameters;
  }
  // The names of the classes; none where the bundle has none.
  std::vector<std::string> labels() const { return bundle_->scores().labels.value_or(std::vector<std::string>()); }

  // The maps of images: pictures in memory, or a float batch in the network's own shape.
  //
  // ParameterError and PictureError for unusable input, ModelError where the network answers with NaN.
  Result explain(const Images& images, const Options& options = {}) const {
    const Method& method = found(options.method.empty() ? usual() : options.method);
    const std::string explains = explained_by(method, options.score);
    if (!options.memory.none()) fitting(bundle_->graphs.at(method.graph), options.memory, 1, {}, 1);
    Parameters checked = check_all(method, options.parameters);
    Batch batch = read_images(images, *bundle_);
    const Work work = prepared(batch, method, std::move(checked), explains, options);
    Array<float> maps(joined({0, work.asked.count()}, sizes_of(bundle_->value_shape())));
    if (work.count()) {
      sessions_->begin(bundle_->graphs.at(method.graph), work.count(), options.memory);
      maps = in_groups(work, options.memory,
                       [&](const Graph& graph, std::int64_t targets, const Held& held, std::int64_t n) {
                         return fitting(graph, options.memory, targets, held, n);
                       });
      work.scores();  // where they overflow, it is them that an error should name
    }
    check_finite(maps, work.names, "map");
    return result_of(work, std::move(batch), std::move(maps));
  }

  // The network's scores (logits, where it has them) [N, classes].
  Array<float> scores(const Images& images, const Options& options = {}) const {
    const Batch batch = read_images(images, *bundle_);
    return prepared(batch, bundle_->single ? found(usual()) : Method(), {}, "logits", options).scores();
  }

 private:
  std::string usual() const { return bundle_->single ? bundle_->single->method : "gradient"; }

  const Method& found(const std::string& name) const {
    if (const Method* method = bundle_->find(name)) return *method;
    const auto reason = bundle_->left_out.find(name);
    if (reason != bundle_->left_out.end()) throw ParameterError("the bundle has no " + name + ": " + reason->second);
    if (name == "rise_plus")
      throw ParameterError("rise_plus needs a detector; train one: onnxplain detector " + bundle_->path.string() +
                           " --data PICTURES");
    const std::size_t dot = name.rfind('.');
    if (dot != std::string::npos && bundle_->find(name.substr(0, dot)))
      throw ParameterError("presets, such as " + in_quotes(name.substr(dot + 1)) +
                           ", are in the Python engine alone; use " + in_quotes(name.substr(0, dot)) +
                           " with parameters");
    const std::string text = unknown("method", name, methods());
    throw ParameterError(text + (text.back() == '?' ? "" : ".") +
                         " Which methods a bundle has is chosen at export (--methods)");
  }

  std::string explained_by(const Method& method, const std::string& score) const {
    if (score.empty()) return method.explains;
    if (score != "logits" && score != "probabilities")
      throw ParameterError(unknown("score", score, {"logits", "probabilities"}));
    const bool scoring = method.loop == "scorecam" || method.loop == "ablation_cam" || method.loop == "recipro_cam";
    if (!scoring && !bundle_->graphs.at(method.graph).takes("activated"))
      throw ParameterError("score= is for perturbation methods; " + method.name + " explains the " + method.explains);
    return score;
  }

  Parameters check_all(const Method& method, const std::map<std::string, Value>& given) const {
    for (const char* name : {"preset", "tolerance", "cotangent"})
      if (given.count(name) && !method.find(name))
        throw ParameterError(std::string(name) + "= is in the Python engine alone");
    Parameters checked = check_parameters(method, given);
    if (checked.has("layer") && checked.text("layer").empty())
      for (const Layer& layer : bundle_->layers)
        if (layer.is_default) checked.set("layer", layer.name);
    return checked;
  }

  std::int64_t fitting(const Graph& graph, const Memory& memory, std::int64_t targets, const Held& held,
                       std::int64_t images) const {
    const std::int64_t beside = graph.bytes_per_run + held.call + images * held.image;
    const std::int64_t a_row = graph.bytes_per_row + held.row / targets;
    const std::int64_t threads = settings_.threads ? *settings_.threads : cores_;
    const std::int64_t wanted =
        settings_.rows ? *settings_.rows * targets : useful_rows(graph.bytes_per_row, threads, MOST_ROWS);
    return rows_per_run(a_row, memory, targets, wanted, beside);
  }

  // The images and what comes with them, for the inputs of the model itself.
  Feeds model_feeds(const Batch& batch, const Options& options) const {
    Feeds feeds;
    if (batch.pictures) {
      feeds["picture"] = {batch.pictures, true, false};
    } else {
      feeds["image"] = {batch.rows, true, false};
    }
    std::vector<std::string> known;
    for (const Input& entry : bundle_->inputs) known.push_back(entry.name);
    for (const auto& given : options.inputs)
      if (std::find(known.begin(), known.end(), given.first) == known.end())
        throw ParameterError(unknown("input", given.first, known));
    for (const Input& entry : bundle_->inputs) {
      if (entry.explained) continue;
      const auto found = options.inputs.find(entry.name);
      if (found == options.inputs.end())
        throw ParameterError("input " + in_quotes(entry.name) + " is missing; the network takes " +
                             joined(known, ", "));
      const Shape shape = std::visit([](const auto& array) { return array->shape; }, found->second);
      const std::int64_t rows = shape.empty() ? 1 : shape[0];
      if (entry.batched() && rows != batch.count())
        throw ParameterError("input " + in_quotes(entry.name) + " has " + std::to_string(rows) + " rows for " +
                             std::to_string(batch.count()) + " images");
      feeds["input " + entry.name] = {found->second, entry.batched(), false};
    }
    return feeds;
  }

  Work prepared(const Batch& batch, const Method& method, Parameters checked, const std::string& explains,
                const Options& options) const {
    Work work;
    work.bundle = bundle_;
    work.method = method;
    work.parameters = std::move(checked);
    work.explains = explains;
    // Where the file prepares the pictures, only the shape that they will have is known.
    work.images = batch.rows
                      ? batch.rows
                      : std::make_shared<const Array<float>>(joined({batch.count()}, sizes_of(bundle_->image().shape)));
    work.feeds = model_feeds(batch, options);
    work.names = batch.names;
    work.sessions = sessions_;
    work.answers = std::make_shared<Answers>([this, feeds = scoring_feeds(work), count = batch.count(),
                                              memory = options.memory] { return forward(feeds, count, memory); },
                                             batch.names);
    if (bundle_->free())
      throw ParameterError(
          "this bundle explains an output without classes by a cotangent, which is in the Python engine alone");
    const Output& output = bundle_->scores();
    const std::int64_t classes = output.classes ? output.classes : sizes_of(output.shape)[0];
    if (options.top) {
      work.asked = top_classes(*options.top, options.targets, work.scores());
    } else {
      work.asked = asked(options.targets, batch.count(), classes, output.labels);
    }
    return work;
  }

  // What the graph that tells the scores is fed: a single file's also the top class, and its parameters' defaults.
  Feeds scoring_feeds(Work work) const {
    if (!bundle_->single) return work.feeds;
    for (const Parameter& parameter : work.method.parameters) work.parameters.set(parameter.name, parameter.initial);
    work.asked = {Array<std::int64_t>({work.count(), 1}, TOP), false};
    work.answers = std::make_shared<Answers>(Answers::Forward(), work.names);  // nobody knows the scores
    return work.feeds_of(bundle_->graphs.at("single"));
  }

  // The scores [N, …] of `count` images, and what is explained inside the network if that is so.
  Answers::Pair forward(const Feeds& feeds, std::int64_t count, const Memory& memory) const {
    const Graph& graph = bundle_->graphs.at(bundle_->scoring());
    std::vector<std::string> outputs = {"scores"};
    if (bundle_->inside && !bundle_->single) outputs.emplace_back("explained");
    Parts whole(2);
    for (const Chunk& chunk : chunks(count, 1, fitting(graph, memory, 1, {}, 1))) {
      const Parts parts = run_chunk(*sessions_, graph, outputs, feeds, chunk);
      for (std::size_t i = 0; i < parts.size(); ++i) {
        if (chunk.images.start == 0) whole[i].shape = joined({count}, parts[i].shape, 1);
        whole[i].values.insert(whole[i].values.end(), parts[i].values.begin(), parts[i].values.end());
      }
    }
    if (!count) whole[0] = Array<float>(joined({0}, sizes_of(bundle_->scores().shape)));
    return {std::move(whole[0]), std::move(whole[1])};
  }

  Result result_of(const Work& work, Batch batch, Array<float> maps) const {
    const Chosen chosen = work.chosen();
    Result result;
    result.scores = work.scores();
    result.probabilities = activate(result.scores, bundle_->scores().activation);
    result.attribution = std::move(maps);
    result.targets = chosen.targets;
    if (!chosen.several) {
      result.attribution.shape.erase(result.attribution.shape.begin() + 1);
      result.targets.shape.pop_back();
    }
    for (const std::int64_t target : chosen.targets.values)
      result.labels.push_back(name_of(target, bundle_->scores().labels));
    result.method = work.method.name;
    result.parameters = work.parameters;
    result.measures = work.method.measures;
    const Shape value = bundle_->inside ? sizes_of(bundle_->inside->shape) : joined({}, work.rows().shape, 1);
    const bool of_value = joined({}, result.attribution.shape, result.targets.rank()) == value;
    result.layout = bundle_->inside && of_value ? bundle_->inside->layout : bundle_->image().layout;
    result.seen = std::move(batch.seen);
    if (batch.rows && batch.rows->rank() == 4) {
      result.rows = batch.rows;
      result.steps = bundle_->steps;
    }
    result.drawn = std::move(*work.drawn);
    if (!result.drawn.values.empty() && !chosen.several) result.drawn.shape.erase(result.drawn.shape.begin() + 1);
    return result;
  }

  std::shared_ptr<const Bundle> bundle_;
  Settings settings_;
  int cores_ = cores();
  std::shared_ptr<Sessions> sessions_;
};

}  // namespace onnxplain
