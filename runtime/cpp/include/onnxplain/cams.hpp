// The formulas of the CAM family: maps of a feature layer from its features and the gradient of the score at them.
//
// Features are [N, K, h, w] and gradients [N, T, K, h, w]: K channels on a grid of h rows and w columns, T targets.
// Maps are float64 [N, T, h, w], signed and at the layer's size; `positive` and `upsampled` come after.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/linear_algebra.hpp"
#include "onnxplain/plans.hpp"
#include "onnxplain/resize.hpp"

namespace onnxplain {

using Maps = Array<double>;
using Cam = std::function<Maps(const Array<float>& features, const Array<float>& gradients)>;

namespace cams {

// The places of a grid: h · w.
inline std::int64_t places_of(const Array<float>& features) { return features.shape[2] * features.shape[3]; }

inline Maps empty_maps(const Array<float>& features, std::int64_t targets) {
  return Maps({features.shape[0], targets, features.shape[2], features.shape[3]});
}

// Σ_k w_k A_k for weights [N, T, K].
inline Maps weighted(const Array<float>& features, const Array<double>& weights) {
  const std::int64_t places = places_of(features), channels = features.shape[1], targets = weights.shape[1];
  Maps maps = empty_maps(features, targets);
  for (std::int64_t image = 0; image < features.length(); ++image)
    for (std::int64_t t = 0; t < targets; ++t)
      for (std::int64_t k = 0; k < channels; ++k) {
        const double weight = weights.at(image)[t * channels + k];
        const float* from = features.at(image) + k * places;
        double* to = maps.at(image) + t * places;
        for (std::int64_t i = 0; i < places; ++i) to[i] += weight * static_cast<double>(from[i]);
      }
  return maps;
}

// Weights [N, T, K]: `weigh` of a channel's features and the gradients there, both [h · w].
template <class Weigh>
Array<double> weights_of(const Array<float>& features, const Array<float>& gradients, const Weigh& weigh) {
  const std::int64_t places = places_of(features), channels = features.shape[1], targets = gradients.shape[1];
  Array<double> weights({features.length(), targets, channels});
  for (std::int64_t image = 0; image < features.length(); ++image)
    for (std::int64_t t = 0; t < targets; ++t)
      for (std::int64_t k = 0; k < channels; ++k)
        weights.at(image)[t * channels + k] =
            weigh(features.at(image) + k * places, gradients.at(image) + (t * channels + k) * places, places);
  return weights;
}

inline double sum_of(const float* values, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i]);
  return sum;
}

// Σ_k w_k A_k with w_k the gradient's mean over places. Selvaraju et al. (2017, arXiv:1610.02391).
inline Maps gradcam(const Array<float>& features, const Array<float>& gradients) {
  return weighted(features, weights_of(features, gradients, [](const float*, const float* g, std::int64_t count) {
                    return sum_of(g, count) / static_cast<double>(count);
                  }));
}

// w_k = Σ_ij α_ij max(g_ij, 0) with α g = g / (2 + g ΣA). Chattopadhyay et al. (2018, arXiv:1710.11063).
inline Maps gradcam_plus_plus(const Array<float>& features, const Array<float>& gradients) {
  return weighted(features, weights_of(features, gradients, [](const float* a, const float* g, std::int64_t count) {
                    const double sum = sum_of(a, count);
                    double weight = 0;
                    for (std::int64_t i = 0; i < count; ++i) {
                      const double rising = std::max(static_cast<double>(g[i]), 0.0), below = 2 + rising * sum;
                      weight += below == 0 ? 0 : rising / below;
                    }
                    return weight;
                  }));
}

// w_k = Σ_ij g_ij A_ij / Σ_ij A_ij, 0 for a channel that adds up to 0. Fu et al. (2020, arXiv:2008.02312).
inline Maps xgradcam(const Array<float>& features, const Array<float>& gradients) {
  return weighted(features, weights_of(features, gradients, [](const float* a, const float* g, std::int64_t count) {
                    const double sum = sum_of(a, count);
                    double products = 0;
                    for (std::int64_t i = 0; i < count; ++i)
                      products += static_cast<double>(a[i]) * static_cast<double>(g[i]);
                    return sum == 0 ? 0 : products / sum;
                  }));
}

// Σ_k g_k A_k, place by place; with `rising` of the positive gradients alone.
inline Maps by_place(const Array<float>& features, const Array<float>& gradients, bool rising) {
  const std::int64_t places = places_of(features), channels = features.shape[1], targets = gradients.shape[1];
  Maps maps = empty_maps(features, targets);
  for (std::int64_t image = 0; image < features.length(); ++image)
    for (std::int64_t t = 0; t < targets; ++t)
      for (std::int64_t i = 0; i < channels * places; ++i) {
        const float slope = gradients.at(image)[t * channels * places + i];
        if (rising && slope < 0) continue;
        maps.at(image)[t * places + i % places] +=
            static_cast<double>(slope) * static_cast<double>(features.at(image)[i]);
      }
  return maps;
}

// Draelos, Carin: HiResCAM (2020, arXiv:2011.08891).
inline Maps hirescam(const Array<float>& features, const Array<float>& gradients) {
  return by_place(features, gradients, false);
}

// Jiang et al.: LayerCAM (2021, doi:10.1109/TIP.2021.3089943).
inline Maps layercam(const Array<float>& features, const Array<float>& gradients) {
  return by_place(features, gradients, true);
}

// The places [h · w] of one image's features [K, h · w] along their first right singular vector, its sign such that the
// map adds up to more than 0, or where it adds up to 0, that its largest number by magnitude is positive.
inline std::vector<double> along_main_direction(const float* features, std::int64_t channels, std::int64_t places) {
  Matrix by_place({places, channels});
  for (std::int64_t k = 0; k < channels; ++k)
    for (std::int64_t i = 0; i < places; ++i) by_place.at(i)[k] = static_cast<double>(features[k * places + i]);
  const Matrix by_channel = transposed(by_place);
  Matrix map;
  if (channels <= places) {
    const auto direction = main_direction(product(by_channel, by_place));
    map = product(by_place, Matrix({channels, 1}, direction));
  } else {
    // A left singular vector times its singular value, which is the length of the transposed features along it.
    const auto direction = main_direction(product(by_place, by_channel));
    map = Matrix({places, 1}, direction);
    double square = 0;
    for (const double each : product(by_channel, map).values) square += each * each;
    for (double& each : map.values) each *= std::sqrt(square);
  }
  double total = 0, size = 0, peak = 0;
  for (const double each : map.values) {
    total += each;
    size += std::abs(each);
    if (std::abs(each) > std::abs(peak)) peak = each;
  }
  const bool level = std::abs(total) <= 1e-12 * size;
  if ((level ? peak : total) < 0)
    for (double& each : map.values) each = -each;
  return map.values;
}

// The same for every target, and not centred, as in the paper. Muhammad, Yeasin (2020, arXiv:2008.00299).
inline Maps eigencam(const Array<float>& features, const Array<float>& gradients) {
  Maps maps = empty_maps(features, gradients.shape[1]);
  const std::int64_t places = places_of(features);
  for (std::int64_t image = 0; image < features.length(); ++image) {
    const auto map = along_main_direction(features.at(image), features.shape[1], places);
    for (std::int64_t t = 0; t < gradients.shape[1]; ++t)
      std::copy(map.begin(), map.end(), maps.at(image) + t * places);
  }
  return maps;
}

inline const std::map<std::string, Cam>& formulas() {
  static const std::map<std::string, Cam> known = {{"gradcam", gradcam},   {"gradcam_plus_plus", gradcam_plus_plus},
                                                   {"hirescam", hirescam}, {"layercam", layercam},
                                                   {"xgradcam", xgradcam}, {"eigencam", eigencam}};
  return known;
}

}  // namespace cams

// The formula of that name; BundleError for one that this version doesn't know.
inline const Cam& find_cam(const std::string& name) {
  const auto found = cams::formulas().find(name);
  if (found == cams::formulas().end())
    throw BundleError(unknown("CAM formula", name, names_in(cams::formulas())) + "; pip install --upgrade onnxplain");
  return found->second;
}

// The positive part: what speaks for the target.
inline Maps positive(Maps maps) {
  for (double& value : maps.values) value = std::max(value, 0.0);
  return maps;
}

// Maps [..., h, w] at the picture's size (H, W): bilinear, centres at half-integers, borders repeated; "none" leaves
// them, "bytes" is MindSpore's way through 8 bits.
inline Maps upsampled(const Maps& maps, std::pair<std::int64_t, std::int64_t> size, const std::string& how) {
  if (how != "bilinear" && how != "none" && how != "bytes")
    throw ParameterError(unknown("upsample", how, {"bilinear", "bytes", "none"}));
  if (how == "none") return maps;
  const std::size_t rank = maps.rank();
  const Shape lead(maps.shape.begin(), maps.shape.end() - 2);
  const std::int64_t height = maps.shape[rank - 2], width = maps.shape[rank - 1];
  Maps large(joined(lead, {size.first, size.second}));
  const Resampling way{"bilinear", how == "bytes", how == "bytes"};
  const auto down = taps_of(height, size.first, "bilinear", false),
             across = taps_of(width, size.second, "bilinear", false);
  for (std::int64_t plane = 0; plane < count_of(lead); ++plane) {
    const double* from = maps.values.data() + plane * height * width;
    Array<double> pixels({height, width, 1}, std::vector<double>(from, from + height * width));
    if (how == "bytes") {
      // What lies outside 0..1 wraps around, and what is below 1/255 is lost.
      for (double& value : pixels.values)
        value = static_cast<std::uint8_t>(static_cast<std::int64_t>(std::trunc(static_cast<float>(value) * 255.0f)));
      pixels = resize(pixels, size.first, size.second, way);
      for (double& value : pixels.values) value /= 255;
    } else {
      pixels = resampling::across(resampling::down(pixels, down), across);
    }
    std::copy(pixels.values.begin(), pixels.values.end(), large.values.begin() + plane * size.first * size.second);
  }
  return large;
}

}  // namespace onnxplain
