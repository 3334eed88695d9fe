// What explain returns: raw maps, scores, and how they are drawn.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/heatmap.hpp"
#include "onnxplain/preprocessing.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

// Maps of N images by one method.
//
// `attribution` is raw and signed, in the network's own layout ([N, C, H, W]; perturbation methods have one channel);
// `scores` and `probabilities` are [N, classes]; `targets` [N] are the explained classes and `labels` their names.
// Where several targets per image were asked for, attribution, targets and labels have a second axis for them (the
// labels one after the other).
struct Result {
  Array<float> attribution, scores, probabilities;
  Array<std::int64_t> targets;
  std::vector<std::string> labels;
  std::string method, layout, measures;
  Parameters parameters;
  std::vector<Array<std::uint8_t>>
      seen;                   // the pictures as the network saw them, [H, W, 3]; none where that isn't known
  Array<std::uint8_t> drawn;  // overlays that the network's own file drew, if it did

  std::int64_t size() const { return attribution.length(); }

  // Whether the maps have rows and columns, so that they can be drawn.
  bool has_pictures() const {
    return (layout == "NCHW" || layout == "NHWC") && attribution.rank() == targets.rank() + 3;
  }

  // Maps to look at, [N, H, W] in 0..1 ([N, T, H, W]): magnitudes added up over channels, from the minimum to the 99th
  // percentile.
  Array<float> heatmap(double percentile = 99.0) const {
    return onnxplain::heatmap(attribution, drawable(), percentile);
  }

  // Maps with their sign, [N, H, W] in −1..1: what speaks for the target and what against it.
  Array<float> signed_map(double percentile = 99.0) const {
    return onnxplain::signed_map(attribution, drawable(), percentile);
  }

  // The maps on their pictures, RGB [N, H, W, 3] ([N, T, H, W, 3]), as the network saw them.
  Array<std::uint8_t> overlay(double strength = 0.85) const {
    if (!drawn.values.empty()) return drawn;
    const Array<float> heat = heatmap();
    const std::vector<Array<std::uint8_t>> pictures = seen.empty() ? undone_pictures() : seen;
    if (static_cast<std::int64_t>(pictures.size()) != size())
      throw ParameterError("image 0 came as an array of a network without preprocessing: draw .heatmap() yourself");
    const std::size_t rank = heat.rank();
    const std::int64_t places = heat.shape[rank - 2] * heat.shape[rank - 1],
                       maps = heat.size() / std::max<std::int64_t>(1, places);
    Array<std::uint8_t> all;
    for (std::int64_t map = 0; map < maps; ++map) {
      const Array<std::uint8_t>& picture = pictures[static_cast<std::size_t>(map / (maps / size()))];
      const float* own = heat.values.data() + map * places;
      const Array<float> one({heat.shape[rank - 2], heat.shape[rank - 1]}, std::vector<float>(own, own + places));
      const auto each = onnxplain::overlay(picture, at_size(one, picture.shape[0], picture.shape[1]), strength);
      all.values.insert(all.values.end(), each.values.begin(), each.values.end());
      all.shape = joined(targets.shape, each.shape);
    }
    return all;
  }

  // The images as the network took them, [N, …], and the preprocessing that made them.
  Floats rows;
  std::vector<Step> steps;

 private:
  // The pictures that the rows stand for; none without preprocessing.
  std::vector<Array<std::uint8_t>> undone_pictures() const {
    std::vector<Array<std::uint8_t>> pictures;
    for (std::int64_t image = 0; rows && !steps.empty() && image < size(); ++image) {
      Array<float> row = part_of(*rows, {image, image + 1});
      row.shape.erase(row.shape.begin());
      pictures.push_back(undone(row, steps));
    }
    return pictures;
  }

  const std::string& drawable() const {
    if (!has_pictures())
      throw ParameterError("this network's input is no picture, so there is nothing to draw; use .attribution");
    return layout;
  }
};

}  // namespace onnxplain
