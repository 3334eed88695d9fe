// A layer's own axes and the grid [K, h, w] that the CAM formulas take.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "onnxplain/bundle.hpp"
#include "onnxplain/error.hpp"

namespace onnxplain {

inline void check_layout(const std::string& layout) {
  if (layout != "NCHW" && layout != "NHWC" && layout != "tokens")
    throw BundleError(unknown("layer layout", layout, {"NCHW", "NHWC", "tokens"}) +
                      "; pip install --upgrade onnxplain");
}

// Values of a layer, `lead` axes and then its own, as [lead…, K, h, w]; tokens that stand for no place are left out.
inline Array<float> on_grid(const Array<float>& values, const Layer& layer, std::size_t lead) {
  check_layout(layer.layout);
  if (layer.layout == "NCHW") return values;
  const std::int64_t channels = values.shape.back();
  const bool tokens = layer.layout == "tokens";
  const std::int64_t height = tokens ? layer.rows : values.shape[lead];
  const std::int64_t width = tokens ? layer.columns : values.shape[lead + 1], places = height * width;
  const std::int64_t skipped = tokens ? layer.prefix * channels : 0;
  const Shape before(values.shape.begin(), values.shape.begin() + static_cast<std::ptrdiff_t>(lead));
  Array<float> result(joined(before, {channels, height, width}));
  const std::int64_t own = count_of(values.shape, lead);
  for (std::int64_t entry = 0; entry < count_of(before); ++entry) {
    const float* from = values.values.data() + entry * own + skipped;
    float* to = result.values.data() + entry * channels * places;
    for (std::int64_t place = 0; place < places; ++place)
      for (std::int64_t k = 0; k < channels; ++k) to[k * places + place] = from[place * channels + k];
  }
  return result;
}

// What `on_grid` undoes for [M, K, h, w], behind the tokens `before` [prefix, K] that stand for no place.
inline Array<float> in_layout(const Array<float>& values, const Layer& layer, const float* before) {
  if (layer.layout == "NCHW") return values;
  const std::int64_t channels = values.shape[1], height = values.shape[2], width = values.shape[3];
  const std::int64_t places = height * width, prefix = layer.layout == "tokens" ? layer.prefix : 0;
  Array<float> result(layer.layout == "NHWC" ? Shape{values.length(), height, width, channels}
                                             : Shape{values.length(), prefix + places, channels});
  for (std::int64_t row = 0; row < values.length(); ++row) {
    float* to = result.at(row);
    if (prefix) to = std::copy(before, before + prefix * channels, to);
    for (std::int64_t place = 0; place < places; ++place)
      for (std::int64_t k = 0; k < channels; ++k) *to++ = values.at(row)[k * places + place];
  }
  return result;
}

// One channel of rows [M, …] in the layer's own axes set to 0: channel `first + m` in row m.
inline void without_channels(Array<float>& rows, const Layer& layer, std::int64_t first) {
  const bool leading = layer.layout == "NCHW";
  const std::int64_t channels = leading ? rows.shape[1] : rows.shape.back(), places = rows.stride() / channels;
  for (std::int64_t m = 0; m < rows.length(); ++m)
    for (std::int64_t place = 0; place < places; ++place)
      rows.at(m)[leading ? (first + m) * places + place : place * channels + first + m] = 0;
}

}  // namespace onnxplain
