// Runs a method's loop on so many images at a time that the loop's own arrays fit in the memory with its runs.
#pragma once

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "onnxplain/holding.hpp"
#include "onnxplain/loops.hpp"
#include "onnxplain/work.hpp"

namespace onnxplain {

// How many rows a graph's run takes beside what is held for some images.
using FittingRows =
    std::function<std::int64_t(const Graph&, std::int64_t targets, const Held& held, std::int64_t images)>;

// The maps [N, T, …] of the work's method.
inline Array<float> in_groups(const Work& work, const Memory& memory, const FittingRows& fitting) {
  const Loop& loop = find_loop(work.method.loop);
  const std::int64_t value_bytes =
      4 * count_of(work.bundle->inside ? sizes_of(work.bundle->inside->shape) : joined({}, work.rows().shape, 1));
  const Held held = held_by(*work.bundle, work.method, work.parameters, work.asked.count(), value_bytes);
  std::vector<Range> groups = {{0, work.count()}};
  if (one_by_one(work.parameters)) {
    std::vector<std::string> names = work.method.beside;
    names.push_back(work.method.graph);
    names.push_back(work.bundle->scoring());
    std::int64_t a_row = 0;
    for (const std::string& name : names) {
      const Graph& graph = work.bundle->graphs.at(name);
      a_row = std::max(a_row, graph.bytes_per_run + graph.bytes_per_row * work.asked.count());
    }
    groups = images_at_once(work.count(), room(memory), held.image, held.call + held.row + a_row);
  }
  const auto maps_of = [&](Work part) {
    const std::int64_t images = part.count();
    part.rows_per_run = [&fitting, held, images](const Graph& graph, std::int64_t targets) {
      return fitting(graph, targets, held, images);
    };
    return loop(part);
  };
  if (groups.size() == 1) return maps_of(work);
  Array<float> maps, scores;
  for (const Range group : groups) {
    const Work part = work.part(group);
    const Array<float> own = maps_of(part);
    if (group.start == 0) maps = Array<float>(joined({work.count()}, own.shape, 1));
    std::copy(own.values.begin(), own.values.end(), maps.at(group.start));
    const Array<float>& told = part.scores();
    if (group.start == 0) scores = Array<float>(joined({work.count()}, told.shape, 1));
    std::copy(told.values.begin(), told.values.end(), scores.at(group.start));
  }
  if (!work.answers->known()) work.answers->tell(std::move(scores));
  return maps;
}

}  // namespace onnxplain
