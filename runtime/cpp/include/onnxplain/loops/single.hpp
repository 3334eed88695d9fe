// A single file: one run for the images gives finished maps, whatever the method inside.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/work.hpp"

namespace onnxplain::loops {

// The maps as the file gives them; pictures that it draws are kept beside.
inline Array<float> single(const Work& work) {
  std::vector<std::string> outputs = {"attribution"};
  const Graph& graph = work.bundle->graphs.at(work.method.graph);
  if (graph.gives("overlay")) outputs.emplace_back("overlay");
  Parts found = work.collect(outputs);
  if (found.size() > 1) {
    Array<std::uint8_t> drawn = converted<std::uint8_t>(found[1]);
    if (work.drawn->values.empty()) {
      *work.drawn = std::move(drawn);
    } else {  // the images of an earlier group come first
      work.drawn->shape[0] += drawn.shape[0];
      work.drawn->values.insert(work.drawn->values.end(), drawn.values.begin(), drawn.values.end());
    }
  }
  return std::move(found[0]);
}

}  // namespace onnxplain::loops
