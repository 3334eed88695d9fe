// The loops of the CAM family: maps of a feature layer, brought to the picture's size.
//
// The formulas are in cams.hpp; here is where their features, gradients and scores come from.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/cams.hpp"
#include "onnxplain/layers.hpp"
#include "onnxplain/work.hpp"

namespace onnxplain::loops {

// The layer of the parameter `layer`, "" the default one; ParameterError for one that wasn't exported.
inline const Layer& chosen_layer(const Work& work) {
  const std::string name = work.parameters.text("layer", "");
  const std::vector<Layer>& layers = work.bundle->layers;
  if (layers.empty())
    throw BundleError(work.bundle->path.string() + " has no feature layer for " + work.method.name +
                      "; export the model again");
  std::vector<std::string> known;
  for (const Layer& layer : layers) {
    if (name.empty() ? layer.is_default : layer.name == name) return layer;
    known.push_back(layer.name);
  }
  if (name.empty()) return layers.front();
  throw ParameterError(unknown("layer", name, known) + "; export the model with --layer " + name + " for another one");
}

inline Parts layer_run(const Work& work, const Layer& layer, const std::vector<std::string>& outputs) {
  Pass pass;
  pass.graph = layer.graph;
  return work.collect(outputs, pass);
}

// Maps [N, T, h, w] of the layer as maps of the picture, with one channel where its layout has them.
inline Array<float> as_pictures(const Work& work, Maps maps) {
  if (work.parameters.flag("relu")) maps = positive(std::move(maps));
  maps = upsampled(maps, work.size(), work.parameters.text("upsample"));
  Array<float> pictures = converted<float>(maps);
  pictures.shape.insert(pictures.shape.begin() + (work.channels_first() ? 2 : 4), 1);
  return pictures;
}

// The maps that the formula named by the finish rule makes of a layer's features and gradients.
inline Array<float> cam(const Work& work) {
  work.map_shape();  // an error where there are no pictures
  const Layer& layer = chosen_layer(work);
  const Cam& formula = find_cam(work.method.finish);
  const Parts found = layer_run(work, layer, {"layer_features", "total"});
  return as_pictures(work, formula(on_grid(found[0], layer, 1), on_grid(found[1], layer, 2)));
}

// Ranges of so many rows as one run of a graph takes.
inline std::vector<Range> parts_of(std::int64_t count, const Work& work, const std::string& graph) {
  return split(count, std::max<std::int64_t>(1, work.rows_per_run(work.bundle->graphs.at(graph), work.asked.count())));
}

// The channels of one image's features [K, h · w] with the largest deviation, in their own order; all for 0.
inline std::vector<std::int64_t> most_varying(const float* features, std::int64_t channels, std::int64_t places,
                                              std::int64_t most) {
  auto order = numbers_to(channels);
  if (most <= 0 || most >= channels) return order;
  std::vector<double> deviations;
  for (std::int64_t k = 0; k < channels; ++k) {
    double mean = 0, square = 0;
    for (std::int64_t i = 0; i < places; ++i)
      mean += static_cast<double>(features[k * places + i]) / static_cast<double>(places);
    for (std::int64_t i = 0; i < places; ++i) {
      const double apart = static_cast<double>(features[k * places + i]) - mean;
      square += apart * apart;
    }
    deviations.push_back(std::sqrt(square / static_cast<double>(places)));
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return deviations[static_cast<std::size_t>(a)] > deviations[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(most));
  std::sort(order.begin(), order.end());
  return order;
}

// Score-CAM's mask [H, W] of one channel [h, w]: enlarged, from 0 at its least to 1; a constant channel's is 0.
//
// Wang et al.: Score-CAM (2020, arXiv:1910.01279), equation 4.
inline Array<float> scorecam_mask(const float* channel, std::int64_t height, std::int64_t width,
                                  std::pair<std::int64_t, std::int64_t> size) {
  const Maps small({height, width}, std::vector<double>(channel, channel + height * width));
  const Maps large = upsampled(small, size, "bilinear");
  const auto [low, high] = std::minmax_element(large.values.begin(), large.values.end());
  Array<float> mask(large.shape);
  for (std::size_t i = 0; i < mask.values.size(); ++i)
    mask.values[i] = *high > *low ? static_cast<float>((large.values[i] - *low) / (*high - *low)) : 0.0f;
  return mask;
}

// One image seen through a mask [H, W], and `empty` elsewhere.
inline void see_through(const Array<float>& mask, const float* image, const float* empty, bool channels_first,
                        std::int64_t size, float* to) {
  const std::int64_t places = mask.size(), channels = size / places;
  for (std::int64_t i = 0; i < size; ++i) {
    const float kept = mask.values[static_cast<std::size_t>(channels_first ? i % places : i / channels)];
    to[i] = kept * image[i] + (1 - kept) * empty[i];
  }
}

// Score-CAM: each channel weighs as much as the score that the picture keeps when seen through it alone.
inline Array<float> score_cam(const Work& work) {
  work.map_shape();
  const Layer& layer = chosen_layer(work);
  const Array<float> features = on_grid(layer_run(work, layer, {"layer_features"})[0], layer, 1);
  const Array<float> fill = fill_values("fill", work.parameters["fill"], work.rows(), *work.bundle);
  Array<float> empty(work.rows().shape);
  over_broadcast(empty.shape, fill.shape, [&](std::int64_t place, std::int64_t other) {
    empty.values[static_cast<std::size_t>(place)] = fill.values[static_cast<std::size_t>(other)];
  });
  const Array<float> lowest = work.explained_at(empty, numbers_to(work.count()));
  const std::int64_t targets = lowest.shape[1], height = features.shape[2], width = features.shape[3];
  Maps maps({work.count(), targets, height, width});
  for (std::int64_t image = 0; image < work.count(); ++image) {
    const auto channels =
        most_varying(features.at(image), features.shape[1], height * width, work.parameters.whole("channels"));
    const auto count = static_cast<std::int64_t>(channels.size());
    Array<float> own({1, count, height, width});
    for (std::int64_t k = 0; k < count; ++k) {
      const float* from = features.at(image) + channels[static_cast<std::size_t>(k)] * height * width;
      std::copy(from, from + height * width, own.values.data() + k * height * width);
    }
    Array<double> gains({1, targets, count});
    for (const Range part : parts_of(count, work, "forward")) {
      Array<float> rows(joined({part.size()}, work.rows().shape, 1));
      for (std::int64_t k = part.start; k < part.stop; ++k)
        see_through(scorecam_mask(own.values.data() + k * height * width, height, width, work.size()),
                    work.rows().at(image), empty.at(image), work.channels_first(), rows.stride(),
                    rows.at(k - part.start));
      const Array<float> scores =
          work.explained_at(std::move(rows), std::vector<std::int64_t>(static_cast<std::size_t>(part.size()), image));
      for (std::int64_t k = part.start; k < part.stop; ++k)
        for (std::int64_t t = 0; t < targets; ++t)
          gains.values[static_cast<std::size_t>(t * count + k)] =
              static_cast<double>(scores.at(k - part.start)[t] - lowest.at(image)[t]);
    }
    const Maps map = cams::weighted(own, gains);
    std::copy(map.values.begin(), map.values.end(), maps.at(image));
  }
  return as_pictures(work, std::move(maps));
}

inline const std::string& tail_of(const Work& work, const Layer& layer) {
  if (!layer.tail)
    throw BundleError(work.bundle->path.string() + " lacks what lies behind " + in_quotes(layer.name) + "; export " +
                      work.method.name + " again");
  return *layer.tail;
}

// What is explained [M, T] of one image with other features [M, …] at the layer.
inline Array<float> explained_behind(const Work& work, const std::string& tail, Array<float> features,
                                     std::int64_t image) {
  const Graph& graph = work.bundle->graphs.at(tail);
  const std::int64_t count = features.length();
  const std::vector<std::int64_t> numbers(static_cast<std::size_t>(count), image);
  Feeds feeds;
  for (const GraphInput& entry : graph.inputs) {
    const auto found = work.feeds.find(entry.key());
    if (found != work.feeds.end()) feeds[entry.key()] = picked(found->second, numbers);
  }
  feeds["layer"] = feed_of(std::move(features), true);
  return work.explained_of(run_chunk(*work.sessions, graph, {"scores"}, feeds, chunks(count, 1, count)[0])[0], numbers);
}

// Ablation-CAM: each channel weighs as much as the score loses without it, as a share of the score's size.
//
// Desai, Ramaswamy: Ablation-CAM (2020, doi:10.1109/WACV45572.2020.9093360).
inline Array<float> ablation_cam(const Work& work) {
  work.map_shape();
  const Layer& layer = chosen_layer(work);
  const std::string& tail = tail_of(work, layer);
  const Array<float> raw = layer_run(work, layer, {"layer_features"})[0], features = on_grid(raw, layer, 1);
  const Array<float> scores = work.explained();
  const std::int64_t targets = scores.shape[1], count = features.shape[1];
  Array<double> weights({work.count(), targets, count});
  for (std::int64_t image = 0; image < work.count(); ++image)
    for (const Range part : parts_of(count, work, tail)) {
      Array<float> rows = picked(raw, std::vector<std::int64_t>(static_cast<std::size_t>(part.size()), image));
      without_channels(rows, layer, part.start);
      const Array<float> ablated = explained_behind(work, tail, std::move(rows), image);
      for (std::int64_t k = part.start; k < part.stop; ++k)
        for (std::int64_t t = 0; t < targets; ++t) {
          const auto y = static_cast<double>(scores.at(image)[t]);
          const double loss = y - static_cast<double>(ablated.at(k - part.start)[t]);
          weights.at(image)[t * count + k] = loss / (y == 0 ? 1.0 : std::abs(y));
        }
    }
  return as_pictures(work, cams::weighted(features, weights));
}

// Recipro-CAM: the score that the network finds with the features of one place alone, for each place.
//
// Byun, Lee: Recipro-CAM (2022, arXiv:2209.14074).
inline Array<float> recipro_cam(const Work& work) {
  work.map_shape();
  const Layer& layer = chosen_layer(work);
  const std::string& tail = tail_of(work, layer);
  const Array<float> raw = layer_run(work, layer, {"layer_features"})[0], features = on_grid(raw, layer, 1);
  const std::int64_t channels = features.shape[1], places = layer.rows * layer.columns;
  Maps maps({work.count(), work.asked.count(), layer.rows, layer.columns});
  for (std::int64_t image = 0; image < work.count(); ++image)
    for (const Range part : parts_of(places, work, tail)) {
      Array<float> alone({part.size(), channels, layer.rows, layer.columns});
      for (std::int64_t place = part.start; place < part.stop; ++place)
        for (std::int64_t k = 0; k < channels; ++k)
          alone.at(place - part.start)[k * places + place] = features.at(image)[k * places + place];
      const Array<float> scores = explained_behind(work, tail, in_layout(alone, layer, raw.at(image)), image);
      for (std::int64_t place = part.start; place < part.stop; ++place)
        for (std::int64_t t = 0; t < scores.shape[1]; ++t)
          maps.at(image)[t * places + place] = static_cast<double>(scores.at(place - part.start)[t]);
    }
  return as_pictures(work, std::move(maps));
}

// Guided Grad-CAM: the positive Grad-CAM at the picture's size times the guided gradient, [N, T, …].
//
// Selvaraju et al. (2017, arXiv:1610.02391), section 3.2.
inline Array<float> guided_gradcam(const Work& work) {
  work.map_shape();
  if (work.bundle->inside)
    throw ParameterError(work.method.name + " needs gradients at the picture, not at " +
                         in_quotes(work.bundle->inside->name));
  const Layer& layer = chosen_layer(work);
  const Parts found = layer_run(work, layer, {"layer_features", "total"});
  const Maps small = positive(cams::gradcam(on_grid(found[0], layer, 1), on_grid(found[1], layer, 2)));
  const Maps maps = upsampled(small, work.size(), "bilinear");
  Pass pass;
  pass.graph = "gradient.guided";
  Array<float> total = work.collect({"total"}, pass)[0];
  const std::int64_t places = work.size().first * work.size().second,
                     channels = total.stride() / total.shape[1] / places;
  for (std::int64_t plane = 0; plane < total.shape[0] * total.shape[1]; ++plane)
    for (std::int64_t i = 0; i < channels * places; ++i) {
      float& value = total.values[static_cast<std::size_t>(plane * channels * places + i)];
      const std::int64_t place = work.channels_first() ? i % places : i / channels;
      value = static_cast<float>(maps.values[static_cast<std::size_t>(plane * places + place)] *
                                 static_cast<double>(value));
    }
  return total;
}

}  // namespace onnxplain::loops
