// What stands for "nothing there": the values of `baseline` and `fill` in the network's own input.
//
// A number is taken as it is. "black" and "white" are such pictures after preprocessing; "mean" is each image's own
// mean colour; "blur" is the image blurred until its details are gone; "random" is drawn evenly between each image's
// own minimum and maximum.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/bundle.hpp"
#include "onnxplain/images.hpp"
#include "onnxplain/random.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

// A blur's deviation as a share of the shorter side: 11 pixels at 224.
constexpr double BLUR = 0.05;
// The draw number of the first random baseline: far from those of the noise, so that one seed serves both.
constexpr std::int64_t RANDOM_DRAWS = LIMIT / 2;

namespace filling {

// Batch, height and width of images, and how far their axes' neighbours lie apart.
struct Planes {
  std::int64_t height, width, channels, row, column, channel;
};

inline Planes planes_of(const Array<float>& rows, const Bundle& bundle) {
  const auto axes = spatial_axes(bundle.image().layout, rows.rank());
  if (!axes)
    throw ParameterError("this network's input is no picture (no height and width); give an array or a number");
  const std::int64_t height = rows.shape[axes->first], width = rows.shape[axes->second];
  if (axes->first == 2) return {height, width, rows.shape[1], width, 1, height * width};
  return {height, width, rows.shape[3], width * rows.shape[3], rows.shape[3], 1};
}

inline Array<float> uniform_picture(std::uint8_t level, const Array<float>& rows, const Bundle& bundle) {
  if (bundle.steps.empty())
    throw ParameterError("\"black\" and \"white\" need a bundle with preprocessing; give the number instead");
  const Planes planes = planes_of(rows, bundle);
  Array<float> row = prepare(Array<std::uint8_t>({planes.height, planes.width, 3}, level), bundle.steps).row;
  row.shape.insert(row.shape.begin(), 1);
  return row;
}

inline Array<float> mean(const Array<float>& rows, const Bundle& bundle) {
  const Planes planes = planes_of(rows, bundle);
  Shape shape = rows.shape;
  const auto axes = *spatial_axes(bundle.image().layout, rows.rank());
  shape[axes.first] = shape[axes.second] = 1;
  Array<float> result(shape);
  for (std::int64_t image = 0; image < rows.length(); ++image)
    for (std::int64_t channel = 0; channel < planes.channels; ++channel) {
      double sum = 0;
      for (std::int64_t place = 0; place < planes.height * planes.width; ++place)
        sum += static_cast<double>(rows.at(image)[channel * planes.channel + place * planes.column]);
      result.at(image)[channel] = static_cast<float>(sum / static_cast<double>(planes.height * planes.width));
    }
  return result;
}

// A Gaussian's weights as OpenCV has them: so many of them, in float32.
inline std::vector<double> gaussian(double sigma) {
  const std::int64_t size = static_cast<std::int64_t>(std::nearbyint(sigma * 8 + 1)) | 1;
  std::vector<double> kernel;
  double sum = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const double x = static_cast<double>(i) - static_cast<double>(size - 1) / 2;
    kernel.push_back(std::exp(-x * x / (2 * sigma * sigma)));
    sum += kernel.back();
  }
  for (double& weight : kernel) weight = static_cast<double>(static_cast<float>(weight / sum));
  return kernel;
}

// A place beyond the ends of a line, by reflection that repeats the border: cba|abc|cba.
inline std::int64_t reflected(std::int64_t place, std::int64_t length) {
  while (place < 0 || place >= length) place = place < 0 ? -place - 1 : 2 * length - 1 - place;
  return place;
}

// Lines of `length` numbers, `step` apart, blurred into float32.
inline void blur_line(float* line, std::int64_t length, std::int64_t step, const std::vector<double>& kernel,
                      std::vector<double>& copy) {
  const auto radius = static_cast<std::int64_t>(kernel.size() / 2);
  copy.resize(static_cast<std::size_t>(length + 2 * radius));
  for (std::int64_t i = 0; i < length + 2 * radius; ++i)
    copy[static_cast<std::size_t>(i)] = static_cast<double>(line[reflected(i - radius, length) * step]);
  for (std::int64_t i = 0; i < length; ++i) {
    double sum = 0;
    for (std::size_t k = 0; k < kernel.size(); ++k) sum += kernel[k] * copy[static_cast<std::size_t>(i) + k];
    line[i * step] = static_cast<float>(sum);
  }
}

inline Array<float> blur(const Array<float>& rows, const Bundle& bundle) {
  const Planes planes = planes_of(rows, bundle);
  const auto kernel = gaussian(BLUR * static_cast<double>(std::min(planes.height, planes.width)));
  Array<float> result = rows;
  std::vector<double> copy;
  for (std::int64_t image = 0; image < rows.length(); ++image)
    for (std::int64_t channel = 0; channel < planes.channels; ++channel) {
      float* const plane = result.at(image) + channel * planes.channel;
      for (std::int64_t y = 0; y < planes.height; ++y)
        blur_line(plane + y * planes.row, planes.width, planes.column, kernel, copy);
      for (std::int64_t x = 0; x < planes.width; ++x)
        blur_line(plane + x * planes.column, planes.height, planes.row, kernel, copy);
    }
  return result;
}

inline bool broadcasts(const Shape& from, const Shape& to) {
  if (from.size() > to.size()) return false;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const std::int64_t axis = from[from.size() - 1 - i];
    if (axis != 1 && axis != to[to.size() - 1 - i]) return false;
  }
  return true;
}

}  // namespace filling

// The least and the largest value of an image.
inline std::pair<float, float> range_of(const Array<float>& rows, std::int64_t image) {
  const auto found = std::minmax_element(rows.at(image), rows.at(image + 1));
  return {*found.first, *found.second};
}

// Values [N, …] drawn evenly between the minimum and the maximum of each image, the same pattern for all of them.
inline Array<float> random_fill(const Array<float>& rows, std::int64_t seed, std::int64_t draw) {
  const Array<float> pattern = uniform(seed, {RANDOM_DRAWS + draw}, rows.stride());
  Array<float> result(rows.shape);
  for (std::int64_t image = 0; image < rows.length(); ++image) {
    const auto [low, high] = range_of(rows, image);
    const float width = high - low;
    float* value = result.at(image);
    for (const float share : pattern.values) *value++ = low + share * width;
  }
  return result;
}

// Values of the images' rank that broadcast to `rows` [N, …]: first axis 1, or N where each image has its own.
inline Array<float> fill_values(const std::string& name, const Value& value, const Array<float>& rows,
                                const Bundle& bundle, std::int64_t seed = 0) {
  if (value.is_text()) {
    if (value.is_text("random")) return random_fill(rows, seed, 0);
    if (bundle.inside && name == "baseline")
      throw ParameterError(name + "=" + shown(value) + " is a picture, but " + in_quotes(bundle.inside->name) +
                           " lies inside the network; give a number or an array, such as explainer.values(...) of a "
                           "neutral input");
    if (value.is_text("mean")) return filling::mean(rows, bundle);
    if (value.is_text("blur")) return filling::blur(rows, bundle);
    return filling::uniform_picture(value.is_text("white") ? 255 : 0, rows, bundle);
  }
  Array<float> content =
      value.as<Floats>() ? **value.as<Floats>() : Array<float>({}, {static_cast<float>(value.number())});
  if (!filling::broadcasts(content.shape, rows.shape))
    throw ParameterError(name + " of shape " + shown(content.shape) + " does not broadcast to the images' " +
                         shown(rows.shape));
  content.shape.insert(content.shape.begin(), rows.rank() - content.rank(), 1);
  return content;
}

// The baselines of images `rows` [N, …], each [1 or N, …] as from fill_values.
//
// "random" is drawn `draws` times. An array is one baseline for all images [*image], one for each [N, *image], several
// for all [B, *image] (B other than N) or [1, B, *image], or several for each [N, B, *image].
class Baselines {
 public:
  Baselines(const Value& value, const Array<float>& rows, const Bundle& bundle, std::int64_t draws = 1,
            std::int64_t seed = 0)
      : value_(value), rows_(rows), bundle_(bundle), seed_(seed) {
    count_ = value.is_text("random") ? draws : 1;
    if (value.as<Floats>()) deal(**value.as<Floats>());
  }
  std::int64_t count() const { return count_; }
  Array<float> at(std::int64_t number) const {
    if (value_.is_text("random")) return random_fill(rows_, seed_, number);
    if (!several_.empty()) return fill_values("baseline", several_[static_cast<std::size_t>(number)], rows_, bundle_);
    return fill_values("baseline", value_, rows_, bundle_);
  }

 private:
  void deal(const Array<float>& array) {
    const Shape image = joined({}, rows_.shape, 1);
    const std::int64_t images = rows_.length(), length = array.length();
    if (array.rank() == rows_.rank() + 1 && (length == 1 || length == images) && array.shape[1] > 0 &&
        joined({}, array.shape, 2) == image) {
      const std::int64_t size = count_of(image);
      for (std::int64_t number = 0; number < array.shape[1]; ++number) {
        Array<float> one(joined({length}, image));
        for (std::int64_t i = 0; i < length; ++i)
          std::copy(array.at(i) + number * size, array.at(i) + (number + 1) * size, one.at(i));
        several_.emplace_back(std::move(one));
      }
    } else if (array.rank() == rows_.rank() && length > 1 && length != images && joined({}, array.shape, 1) == image) {
      for (std::int64_t number = 0; number < length; ++number) {
        Array<float> one = part_of(array, {number, number + 1});
        one.shape = image;
        several_.emplace_back(std::move(one));
      }
    } else if (!filling::broadcasts(array.shape, rows_.shape)) {
      const std::string axes = shown(image).substr(1, shown(image).size() - 2), n = std::to_string(images);
      throw ParameterError("baseline of shape " + shown(array.shape) + " fits no image here; give [" + axes +
                           "] for all, [" + n + ", " + axes + "] for each, [1, B, " + axes +
                           "] for several for all, or [" + n + ", B, " + axes + "] for several for each");
    }
    if (!several_.empty()) count_ = static_cast<std::int64_t>(several_.size());
  }

  const Value& value_;
  const Array<float>& rows_;
  const Bundle& bundle_;
  std::int64_t seed_, count_ = 1;
  std::vector<Value> several_;
};

}  // namespace onnxplain
