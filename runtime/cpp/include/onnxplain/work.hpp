// What a loop works with: one checked call of explain, and the passes that its method may run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/answers.hpp"
#include "onnxplain/bundle.hpp"
#include "onnxplain/feed.hpp"
#include "onnxplain/fills.hpp"
#include "onnxplain/images.hpp"
#include "onnxplain/plans.hpp"
#include "onnxplain/summing.hpp"
#include "onnxplain/targets.hpp"

namespace onnxplain {

// How many images times steps a run of a graph takes, for so many targets.
using RowsPerRun = std::function<std::int64_t(const Graph&, std::int64_t targets)>;

// What a pass over images and steps is of; what isn't given is the method's own.
struct Pass {
  std::string graph;
  std::optional<Steps> steps;
  Feeds feeds;  // in the place of what the parameters would give, by role
};

// The noise's standard deviation for each image [N] of explained values [N, …], in their units: `noise` is a share of
// each image's own range, with `noise_of` "batch" of the range of all images in the call, with "absolute" σ itself.
inline Array<float> deviations_of(const Array<float>& values, const Parameters& parameters) {
  const auto noise = static_cast<float>(parameters.number("noise"));
  const std::string share_of = parameters.text("noise_of", "image");
  Array<float> sigma({values.length()}, noise);
  if (share_of == "absolute" || values.values.empty()) return sigma;
  const auto all = std::minmax_element(values.values.begin(), values.values.end());
  for (std::int64_t image = 0; image < values.length(); ++image) {
    const auto [low, high] = share_of == "batch" ? std::pair(*all.first, *all.second) : range_of(values, image);
    sigma.values[static_cast<std::size_t>(image)] = noise * (high - low);
  }
  return sigma;
}

// One call of explain: N images, T targets each, a method with all its parameters, and the passes it may run.
//
// `feeds` are the model's own inputs, `asked` the targets, which may be each image's top class whatever that is;
// `answers` is what the network says of the images. Its scores are computed when a loop first asks for them: a method
// that doesn't is one run of its graph, where that tells the scores.
struct Work {
  std::shared_ptr<const Bundle> bundle;
  Method method;
  Parameters parameters;
  std::string explains;
  Chosen asked;
  Floats images;
  Feeds feeds;
  std::shared_ptr<Answers> answers;
  std::vector<std::string> names;
  std::shared_ptr<Sessions> sessions;
  RowsPerRun rows_per_run;
  // Overlays [N, T, H, W, 3] that a single file drew.
  std::shared_ptr<Array<std::uint8_t>> drawn = std::make_shared<Array<std::uint8_t>>();

  const Array<float>& rows() const { return *images; }
  std::int64_t count() const { return static_cast<std::int64_t>(names.size()); }
  const Array<float>& scores() const { return answers->scores(); }
  // What gradients are taken at, [N, …]: the images, or a value inside the network.
  const Array<float>& values() const { return bundle->inside && !bundle->single ? answers->values() : *images; }
  // What is explained, the classes known.
  Chosen chosen() const { return asked.settled() ? asked : asked.by(scores()); }
  // What is explained of scores [M, …] that belong to the images of these numbers: [M, T] logits or probabilities.
  Array<float> explained_of(const Array<float>& of_rows, const std::vector<std::int64_t>& numbers) const {
    const bool probable = explains == "probabilities";
    return chosen().of(probable ? activate(of_rows, bundle->scores().activation) : of_rows, numbers);
  }
  // What is explained of the images as they are: [N, T].
  Array<float> explained() const { return explained_of(scores(), numbers_to(count())); }
  // Height and width of the images, (0, 0) where they are no pictures.
  std::pair<std::int64_t, std::int64_t> size() const {
    const auto axes = spatial_axes(bundle->image().layout, rows().rank());
    return axes ? std::pair(rows().shape[axes->first], rows().shape[axes->second])
                : std::pair<std::int64_t, std::int64_t>(0, 0);
  }
  // The axes of a picture's map with one channel: [1, H, W] or [H, W, 1]; ParameterError without pictures.
  Shape map_shape() const {
    const auto [height, width] = size();
    if (!height) throw ParameterError(method.name + " needs pictures; this network's input has no height and width");
    return channels_first() ? Shape{1, height, width} : Shape{height, width, 1};
  }
  bool channels_first() const { return bundle->image().layout == "NCHW"; }
  // The axes [N, T, …] of maps of what gradients are taken at.
  Shape shape_of_maps() const { return joined({count(), asked.count()}, values().shape, 1); }

  // The step table of the method's plan.
  Steps steps() const { return find_plan(method.plan).rule(parameters, size().first, size().second); }

  // The same call with one parameter replaced.
  Work with(const std::string& name, Value value) const {
    Work changed = *this;
    changed.parameters.set(name, std::move(value));
    return changed;
  }

  // The same work for some of its images, which mustn't depend on the others.
  Work part(Range range) const {
    Work some = *this;
    std::vector<std::int64_t> numbers;
    for (std::int64_t number = range.start; number < range.stop; ++number) numbers.push_back(number);
    some.images = std::make_shared<const Array<float>>(part_of(*images, range));
    for (auto& entry : some.feeds) entry.second = picked(entry.second, numbers);
    if (some.feeds.count("image")) some.feeds["image"].data = some.images;
    some.asked.targets = part_of(asked.targets, range);
    some.answers = answers->of(range);
    some.names.assign(names.begin() + range.start, names.begin() + range.stop);
    for (const auto& [name, value] : parameters.all()) some.parameters.set(name, cut(name, value, range));
    return some;
  }

  // The maps [N, T, …] that the finish rule makes of the sums over the steps.
  Array<float> sum(const Pass& pass = {}) const {
    check_finish(method.finish);
    Array<float> maps;
    over_groups({"total", "norm"}, pass, [&](Range group, std::vector<Sum>& sums) {
      put(maps, group,
          sums[0].one() ? mean_of(sums[0].taken(), sums[1].single())
                        : mean_of(sums[0].double_total(), sums[1].double_total()));
    });
    return maps;
  }

  // The sums over steps of a graph's outputs, each [N, …] in float64.
  std::vector<Array<double>> sums(const std::vector<std::string>& outputs, const Pass& pass = {}) const {
    std::vector<Array<double>> found(outputs.size());
    over_groups(outputs, pass, [&](Range group, const std::vector<Sum>& parts) {
      for (std::size_t i = 0; i < outputs.size(); ++i) put(found[i], group, parts[i].total());
    });
    return found;
  }

  // A graph's outputs for all images and steps: [N, …], or [N, K, …] of a graph that takes steps.
  Parts collect(const std::vector<std::string>& outputs, const Pass& pass = {}) const {
    const Graph& graph = graph_of(pass);
    const Steps table = pass.steps ? *pass.steps : steps();
    const Feeds all = prepared(graph, table, pass);
    const std::vector<std::string> wanted = with_scores(outputs, graph);
    Parts found(wanted.size()), group;
    for (const Chunk& chunk : plan(graph, table.length(), count())) {
      Parts parts = run_chunk(*sessions, graph, wanted, all, chunk, side_by_side);
      group = chunk.first ? std::move(parts) : side_by_side(std::move(group), std::move(parts));
      if (chunk.last)
        for (std::size_t i = 0; i < wanted.size(); ++i) put(found[i], chunk.images, std::move(group[i]));
    }
    if (wanted.size() > outputs.size()) {
      answers->tell(std::move(found.back()));
      found.pop_back();
    }
    return found;
  }

  // The gradients [M, T, …] of what is explained of the images of these numbers, at any rows [M, …].
  Array<float> gradients_at(Array<float> at, const std::vector<std::int64_t>& numbers) const {
    if (bundle->inside)
      throw ParameterError(method.name + " takes gradients at pictures of its own, but this bundle takes them at " +
                           in_quotes(bundle->inside->name) + " inside the network; use integrated_gradients");
    const Graph& graph = variant("gradient");
    const std::int64_t images_there = at.length();
    const Feeds all = feeds_at(std::move(at), numbers);
    Array<float> gradients;
    for (const Chunk& chunk : plan(graph, 1, images_there)) {
      const Parts parts = run_chunk(*sessions, graph, {"total", "norm"}, all, chunk);
      put(gradients, chunk.images, mean_of(std::move(parts[0]), parts[1]), images_there);
    }
    return gradients;
  }

  // The network's scores [M, …] at rows [M, …], what else it takes being that of the images of these numbers.
  Array<float> scores_at(Array<float> at, const std::vector<std::int64_t>& numbers) const {
    const Graph& graph = bundle->graphs.at("forward");
    const std::int64_t images_there = at.length();
    const Feeds all = feeds_at(std::move(at), numbers);
    Array<float> found;
    for (const Chunk& chunk : plan(graph, 1, images_there))
      put(found, chunk.images, run_chunk(*sessions, graph, {"scores"}, all, chunk)[0], images_there);
    return found;
  }

  // What is explained of the images of these numbers, at any rows: [M, T] logits or probabilities.
  Array<float> explained_at(Array<float> at, const std::vector<std::int64_t>& numbers) const {
    return explained_of(scores_at(std::move(at), numbers), numbers);
  }

  // How many rows, images times steps, a run of the graph takes.
  std::int64_t row_limit(const std::string& graph) const { return rows_per_run(variant(graph), asked.count()); }

  // All that a graph is fed, in one step without numbers.
  Feeds feeds_of(const Graph& graph) const { return prepared(graph, Steps({1, 0}), {}); }

 private:
  // An array given for each of the call's images, for some of them; what is for all of them stays as it is.
  Value cut(const std::string& name, const Value& value, Range range) const {
    if (!value.is_array()) return value;
    const Shape shape = value.shape();
    const bool per_image = !shape.empty() && shape[0] == count() && count() > 1;
    const Parameter* entry = method.find(name);
    if (entry && entry->kind == "image") {
      const std::size_t rank = bundle->value_shape().size();
      if (shape.size() < rank) return value;
      if (per_image) return part_of(**value.as<Floats>(), range);
      if (shape.size() != rank || shape[0] <= 1) return value;
      // Several for all: named so, or as many as there are images in the part would be taken for one for each.
      Array<float> several = **value.as<Floats>();
      several.shape.insert(several.shape.begin(), 1);
      return several;
    }
    if (const Labels* labels = value.as<Labels>())
      return per_image && shape.size() == 3 ? Value(part_of(**labels, range)) : value;
    const Masks* masks = value.as<Masks>();
    return masks && per_image && shape.size() == 4 ? Value(part_of(**masks, range)) : value;
  }

  // Takes the values of some images into an array of all of them, `length` or as many as the call has.
  template <class T>
  void put(Array<T>& whole, Range group, Array<T> part, std::int64_t length = -1) const {
    const std::int64_t all = length < 0 ? count() : length;
    if (group.size() == all && part.length() == all) {
      whole = std::move(part);
      return;
    }
    if (group.start == 0) whole = Array<T>(joined({all}, part.shape, 1));
    for (std::int64_t image = group.start; image < group.stop; ++image) {
      const T* own = part.at(part.length() == group.size() ? image - group.start : 0);
      std::copy(own, own + part.stride(), whole.at(image));
    }
  }

  // Calls `take(images, sums)` with the sums over steps of a graph's outputs, for the images of some runs at a time.
  template <class Take>
  void over_groups(const std::vector<std::string>& outputs, const Pass& pass, const Take& take) const {
    const Graph& graph = graph_of(pass);
    const Steps table = pass.steps ? *pass.steps : steps();
    const Feeds all = prepared(graph, table, pass);
    const std::vector<std::string> wanted = with_scores(outputs, graph);
    Array<float> told;
    std::vector<Sum> totals(wanted.size());
    for (const Chunk& chunk : plan(graph, table.length(), count())) {
      Parts parts = run_chunk(*sessions, graph, wanted, all, chunk);
      for (std::size_t i = 0; i < wanted.size(); ++i) totals[i].add(std::move(parts[i]), chunk.first);
      if (!chunk.last) continue;
      if (wanted.size() > outputs.size()) put(told, chunk.images, totals.back().single());
      take(chunk.images, totals);
    }
    if (wanted.size() > outputs.size()) answers->tell(std::move(told));
  }

  std::vector<Chunk> plan(const Graph& graph, std::int64_t step_count, std::int64_t image_count) const {
    return chunks(image_count, step_count, rows_per_run(graph, asked.count()), graph.draws());
  }

  // Whether a run of the graph is to tell the scores, and to find the top classes, as nobody knows them yet.
  bool learns_from(const Graph& graph) const { return graph.tells_scores && !answers->known(); }
  std::vector<std::string> with_scores(std::vector<std::string> outputs, const Graph& graph) const {
    if (learns_from(graph)) outputs.emplace_back("scores");
    return outputs;
  }

  const Graph& graph_of(const Pass& pass) const {
    const Graph& graph = variant(pass.graph.empty() ? method.graph : pass.graph);
    const std::vector<std::string>& columns = find_plan(method.plan).columns;
    if (!pass.steps && columns != graph.columns)
      throw BundleError(graph.file + " takes steps of (" + joined(graph.columns, ", ") + "), but the plan rule " +
                        in_quotes(method.plan) + " makes (" + joined(columns, ", ") + ")");
    return graph;
  }

  // The graph, or its variant in which several targets share a forward pass.
  const Graph& variant(const std::string& name) const {
    const Graph* shared = asked.count() > 1 ? bundle->graph(name + ".targets") : nullptr;
    return shared ? *shared : bundle->graphs.at(name);
  }

  // All that a graph is fed.
  Feeds prepared(const Graph& graph, Steps table, const Pass& pass) const {
    Feeds all = feeds;
    all["target"] = {data_of(learns_from(graph) ? asked.targets : chosen().targets), true, false};
    table.shape.insert(table.shape.begin(), 1);
    all["steps"] = feed_of(std::move(table), false, true);
    if (parameters.has("noise") && graph.takes("sigma"))
      all["sigma"] = feed_of(deviations_of(values(), parameters), true);
    if (parameters.has("seed")) all["seed"] = {data_of(Array<std::int64_t>({1}, {parameters.whole("seed")}))};
    for (const char* name : {"baseline", "low", "high", "fill"}) {
      if (!graph.takes(name) || pass.feeds.count(name)) continue;
      const Array<float>& around = std::string(name) == "fill" ? rows() : values();
      // A graph that serves several methods has the input even where this one has no such parameter.
      const Value value = parameters.has(name) ? parameters[name] : Value(0.0);
      if (bundle->takes_pictures() && (value.is_text("mean") || value.is_text("blur") || value.is_text("random")))
        throw ParameterError(std::string(name) + "=" + shown(value) +
                             " is made of the image that this file prepares inside; give a number, black, white or an "
                             "array");
      all[name] = feed_for(fill_values(name, value, around, *bundle, parameters.whole("seed", 0)), around.length());
    }
    for (const GraphInput& entry : graph.inputs) {
      if (all.count(entry.role) || !parameters.has(entry.role) || !parameters[entry.role].is_number()) continue;
      const auto number = static_cast<float>(parameters.number(entry.role));
      all[entry.role] = feed_of(Array<float>({entry.per_image() ? count() : 1}, number), entry.per_image());
    }
    if (graph.takes("reference")) all["reference"] = feed_of(explained(), true);
    all["activated"] = feed_of(Array<float>({1}, {explains == "probabilities" ? 1.0f : 0.0f}));
    for (const auto& [role, feed] : pass.feeds) all[role] = feed;
    return all;
  }

  // The model's inputs and targets for rows of one's own, those of the images of these numbers.
  Feeds feeds_at(Array<float> at, const std::vector<std::int64_t>& numbers) const {
    Feeds all;
    for (const auto& [role, feed] : feeds)
      if (role != "image") all[role] = picked(feed, numbers);
    all["image"] = feed_of(std::move(at), true);
    all["target"] = {data_of(picked(chosen().targets, numbers)), true, false};
    return all;
  }
};

}  // namespace onnxplain
