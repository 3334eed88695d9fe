// The engine's one loop: run a graph over chunks of images and steps, add up, finish.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/bundle.hpp"
#include "onnxplain/feed.hpp"
#include "onnxplain/planner.hpp"
#include "onnxplain/plans.hpp"
#include "onnxplain/sessions.hpp"

namespace onnxplain {

using Parts = std::vector<Array<float>>;
using Join = std::function<Parts(Parts, Parts)>;

// Calls `act(place in the large array, place in the small one)` for every element, the small one being broadcast: its
// axes are those of the large one, or 1.
template <class Act>
void over_broadcast(const Shape& large, const Shape& small, const Act& act) {
  const std::size_t rank = large.size();
  std::vector<std::int64_t> steps(rank, 0), index(rank, 0);
  for (std::size_t axis = 0; axis < rank; ++axis)
    if (small[axis] != 1) steps[axis] = count_of(small, axis + 1);
  const std::int64_t count = count_of(large);
  for (std::int64_t place = 0, other = 0; place < count; ++place) {
    act(place, other);
    for (std::size_t axis = rank; axis-- > 0;) {
      other += steps[axis];
      if (++index[axis] < large[axis]) break;
      other -= steps[axis] * large[axis];
      index[axis] = 0;
    }
  }
}

// total / norm, and 0 where norm is 0: a pixel that no step touched.
template <class T>
Array<float> mean_of(Array<T> total, const Array<T>& norm) {
  const bool ones = std::all_of(norm.values.begin(), norm.values.end(), [](T each) { return each == 1; });
  if constexpr (std::is_same_v<T, float>) {
    if (ones) return total;
  }
  if (ones) return converted<float>(total);
  Array<float> result(total.shape);
  over_broadcast(total.shape, norm.shape, [&](std::int64_t place, std::int64_t other) {
    const double by = norm.values[static_cast<std::size_t>(other)],
                 part = total.values[static_cast<std::size_t>(place)];
    result.values[static_cast<std::size_t>(place)] = by == 0 ? 0.0f : static_cast<float>(part / by);
  });
  return result;
}

// BundleError for a finish rule that this version doesn't know.
inline void check_finish(const std::string& name) {
  if (name != "mean") throw BundleError(unknown("finish rule", name, {"mean"}) + "; pip install --upgrade onnxplain");
}

// One output's sum over chunks: as the graph gave it where one run is all there is to add, else in float64.
class Sum {
 public:
  void add(Array<float> part, bool first) {
    if (first) {
      one_ = std::move(part);
      runs_ = 1;
      return;
    }
    if (runs_++ == 1) total_ = converted<double>(one_);
    const float* from = part.values.data();
    for (double& value : total_.values) value += static_cast<double>(*from++);
  }
  bool one() const { return runs_ == 1; }
  const Array<float>& single() const { return one_; }
  // The same, moved away: a large map isn't copied.
  Array<float> taken() { return std::move(one_); }
  Array<double> total() const { return one() ? converted<double>(one_) : total_; }
  const Array<double>& double_total() const { return total_; }

 private:
  Array<float> one_;
  Array<double> total_;
  int runs_ = 0;
};

// The sums with further terms.
inline Parts added(Parts sums, Parts parts) {
  for (std::size_t i = 0; i < sums.size(); ++i)
    for (std::size_t k = 0; k < sums[i].values.size(); ++k) sums[i].values[k] += parts[i].values[k];
  return sums;
}

// Outputs [N, K, …] of some steps followed by those of others; of outputs without steps, the first.
inline Parts side_by_side(Parts before, Parts after) {
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i].rank() < 2) continue;
    Array<float> both;
    both.shape = before[i].shape;
    both.shape[1] += after[i].shape[1];
    for (std::int64_t image = 0; image < before[i].length(); ++image)
      for (const Array<float>* part : {&before[i], &after[i]})
        both.values.insert(both.values.end(), part->at(image), part->at(image + 1));
    before[i] = std::move(both);
  }
  return before;
}

// What a run of one chunk is fed, in the order of the graph's inputs.
inline std::vector<Tensor> inputs_of(const Graph& graph, const Feeds& feeds, const Chunk& chunk) {
  std::vector<Tensor> inputs;
  for (const GraphInput& entry : graph.inputs) {
    const auto found = feeds.find(entry.key());
    if (found == feeds.end())
      throw BundleError(graph.file + " has an input of role " + in_quotes(entry.role) +
                        ", unknown here; pip install --upgrade onnxplain");
    inputs.push_back(tensor_of(found->second, chunk, entry.dtype));
  }
  return inputs;
}

// The parts of two groups of images as one; what doesn't depend on the image is there once in each.
inline Parts of_both(Parts before, const Parts& after, const Chunk& first, const Chunk& second) {
  for (std::size_t i = 0; i < before.size(); ++i) {
    Array<float> both;
    both.shape = joined({first.images.size() + second.images.size()}, before[i].shape, 1);
    const std::pair<const Array<float>*, std::int64_t> halves[] = {{&before[i], first.images.size()},
                                                                   {&after[i], second.images.size()}};
    for (const auto& [part, images] : halves)
      for (std::int64_t image = 0; image < images; ++image) {
        const float* own = part->at(part->length() == images ? image : 0);
        both.values.insert(both.values.end(), own, own + part->stride());
      }
    before[i] = std::move(both);
  }
  return before;
}

// The outputs of a run of one chunk; where memory doesn't suffice for it, of two runs of half as many rows each.
//
// `join` puts together what two parts of the steps gave. ModelError where there is no memory for a single row.
inline Parts run_chunk(Sessions& sessions, const Graph& graph, const std::vector<std::string>& outputs,
                       const Feeds& feeds, const Chunk& chunk, const Join& join = added) {
  const auto most = sessions.most_rows(graph);
  if (!most || chunk.rows() <= *most || chunk.rows() == 1) {
    try {
      const std::vector<Tensor> inputs = inputs_of(graph, feeds, chunk);
      Parts found;
      for (const Ort::Value& value : sessions.run(graph, outputs, inputs)) found.push_back(floats_of(value));
      sessions.enough(graph, chunk.rows());
      return found;
    } catch (const MemoryRanOut&) {
      if (chunk.rows() == 1) {
        char need[32];
        std::snprintf(need, sizeof need, "%.3g", static_cast<double>(graph.bytes_per_row + graph.bytes_per_run) / 1e6);
        throw ModelError("memory ran out in a run of a single row of " + graph.file + ", which takes about " + need +
                         " MB");
      }
      sessions.too_many(graph, chunk.rows());
    }
  }
  const auto [first, second] = chunk.halves();
  Parts before = run_chunk(sessions, graph, outputs, feeds, first, join);
  Parts after = run_chunk(sessions, graph, outputs, feeds, second, join);
  if (first.images == chunk.images) return join(std::move(before), std::move(after));
  return of_both(std::move(before), after, first, second);
}

}  // namespace onnxplain
