// Integrated gradients on the path from a blurred image to the image, through scale space.
//
// Xu, Venugopalan, Sundararajan: Attribution in Scale and Space (2020, arXiv:2004.03383).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "onnxplain/linear_algebra.hpp"
#include "onnxplain/work.hpp"

namespace onnxplain::loops {

// A Gaussian's kernel ends after this many deviations, as scipy's does; beyond the picture's edge is 0.
constexpr double TRUNCATE = 4.0;
// The step in σ, in pixels, by which the reference implementation takes the path's derivative.
constexpr double DIFFERENCE = 0.01;

// The blur of a line of `size` pixels as a matrix [size, size]; a picture's is a product of two.
inline Matrix gaussian_matrix(std::int64_t size, double sigma) {
  Matrix matrix({size, size});
  const auto radius = static_cast<std::int64_t>(TRUNCATE * sigma + 0.5);
  std::vector<double> kernel;
  double sum = 0;
  for (std::int64_t offset = -radius; offset <= radius; ++offset) {
    const double share = radius ? static_cast<double>(offset) / sigma : 0.0;
    kernel.push_back(std::exp(-0.5 * share * share));
    sum += kernel.back();
  }
  for (std::int64_t i = 0; i < size; ++i)
    for (std::int64_t j = std::max<std::int64_t>(0, i - radius); j < std::min(size, i + radius + 1); ++j)
      matrix.at(i)[j] = kernel[static_cast<std::size_t>(i - j + radius)] / sum;
  return matrix;
}

// One image [C, H, W] or [H, W, C] in float64, blurred along its height and width by a Gaussian of `sigma` pixels.
inline std::vector<double> blurred(const std::vector<double>& image, const Shape& shape, bool channels_first,
                                   double sigma) {
  const std::int64_t height = shape[channels_first ? 1 : 0], width = shape[channels_first ? 2 : 1];
  const std::int64_t channels = shape[channels_first ? 0 : 2];
  const Matrix rows = gaussian_matrix(height, sigma), columns = gaussian_matrix(width, sigma);  // both symmetric
  std::vector<double> half(image.size()), result(image.size());
  if (channels_first) {
    for (std::int64_t channel = 0; channel < channels; ++channel) {
      const std::int64_t from = channel * height * width;
      multiply_into(rows.values.data(), image.data() + from, half.data() + from, height, height, width);
      multiply_into(half.data() + from, columns.values.data(), result.data() + from, height, width, width);
    }
  } else {
    multiply_into(rows.values.data(), image.data(), half.data(), height, height, width * channels);
    for (std::int64_t row = 0; row < height; ++row)
      multiply_into(columns.values.data(), half.data() + row * width * channels, result.data() + row * width * channels,
                    width, width, channels);
  }
  return result;
}

// Where the gradient is taken and what it is multiplied by, for every interval of the scales, of one image.
struct ScalePath {
  std::vector<std::vector<double>> points, changes;
};

inline ScalePath scale_path(const std::vector<double>& image, const Shape& shape, bool channels_first,
                            const std::vector<double>& scales, bool midpoint) {
  const auto at = [&](double sigma) { return blurred(image, shape, channels_first, sigma); };
  ScalePath path;
  std::vector<double> fine = midpoint ? at(scales[0]) : std::vector<double>();
  for (std::size_t k = 0; k + 1 < scales.size(); ++k) {
    const double width = scales[k + 1] - scales[k];
    std::vector<double> change(image.size());
    if (midpoint) {
      path.points.push_back(at(scales[k] + width / 2));
      std::vector<double> coarse = at(scales[k + 1]);
      for (std::size_t i = 0; i < change.size(); ++i) change[i] = fine[i] - coarse[i];
      fine = std::move(coarse);
    } else {
      path.points.push_back(at(scales[k]));
      const std::vector<double> beside = at(scales[k] + DIFFERENCE);
      for (std::size_t i = 0; i < change.size(); ++i)
        change[i] = width * ((path.points.back()[i] - beside[i]) / DIFFERENCE);
    }
    path.changes.push_back(std::move(change));
  }
  return path;
}

// Σ g(L)·(change of L) over the scales from `sigma` pixels down to 0, L being the image blurred.
//
// `rule` "midpoint" takes the gradient between two scales, times the difference of the images at them; "riemann_left"
// is the reference implementation: the gradient at the finer scale, times the derivative there by a difference.
inline Array<float> blur_integrated_gradients(const Work& work) {
  const double sigma = work.parameters.number("sigma");
  const std::int64_t steps = work.parameters.whole("steps"), targets = work.chosen().count();
  const bool midpoint = work.parameters.text("rule") == "midpoint";
  work.map_shape();  // an error where there are no pictures
  const Array<float>& values = work.values();
  const Shape shape = joined({}, values.shape, 1);
  Array<double> maps(work.shape_of_maps());
  for (const Chunk& chunk : chunks(work.count(), steps, work.row_limit("gradient"))) {
    std::vector<double> scales;
    for (std::int64_t k = chunk.steps.start; k <= chunk.steps.stop; ++k)
      scales.push_back(static_cast<double>(k) * (sigma / static_cast<double>(steps)));
    Array<float> rows(joined({chunk.rows()}, shape));
    std::vector<ScalePath> paths;
    std::vector<std::int64_t> numbers;
    for (std::int64_t image = chunk.images.start; image < chunk.images.stop; ++image) {
      const std::vector<double> own(values.at(image), values.at(image + 1));
      paths.push_back(scale_path(own, shape, work.channels_first(), scales, midpoint));
      for (const auto& point : paths.back().points) {
        float* to = rows.at(static_cast<std::int64_t>(numbers.size()));
        for (std::size_t i = 0; i < point.size(); ++i) to[i] = static_cast<float>(point[i]);
        numbers.push_back(image);
      }
    }
    const Array<float> gradients = work.gradients_at(std::move(rows), numbers);
    for (std::int64_t row = 0; row < gradients.length(); ++row) {
      const std::int64_t image = numbers[static_cast<std::size_t>(row)];
      const auto& path = paths[static_cast<std::size_t>(image - chunk.images.start)];
      const auto& change = path.changes[static_cast<std::size_t>(row % chunk.steps.size())];
      double* map = maps.at(image);
      const float* gradient = gradients.at(row);
      for (std::int64_t target = 0; target < targets; ++target)
        for (const double each : change) *map++ += static_cast<double>(*gradient++) * each;
    }
  }
  return converted<float>(maps);
}

}  // namespace onnxplain::loops
