// Turns what a caller hands in (pictures in memory, float arrays) into rows for the network.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "onnxplain/bundle.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/preprocessing.hpp"

namespace onnxplain {

// A picture in memory, `channels` numbers for each pixel: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
struct Picture {
  std::int64_t height = 0, width = 0, channels = 3;
  std::variant<std::vector<std::uint8_t>, std::vector<std::uint16_t>> pixels;

  Picture() = default;
  Picture(std::int64_t rows, std::int64_t columns, std::int64_t depth, std::vector<std::uint8_t> content)
      : height(rows), width(columns), channels(depth), pixels(std::move(content)) {}
  Picture(std::int64_t rows, std::int64_t columns, std::int64_t depth, std::vector<std::uint16_t> content)
      : height(rows), width(columns), channels(depth), pixels(std::move(content)) {}
  // A copy of pixels in somebody else's memory.
  Picture(const std::uint8_t* content, std::int64_t rows, std::int64_t columns, std::int64_t depth = 3)
      : Picture(rows, columns, depth, std::vector<std::uint8_t>(content, content + rows * columns * depth)) {}
};

// The images of one call: pictures, or a float batch [N, …] in the network's own shape, or one image without the N.
class Images {
 public:
  Images(Picture picture) : held_(std::vector<Picture>{std::move(picture)}) {}
  Images(std::vector<Picture> pictures) : held_(std::move(pictures)) {}
  Images(Array<float> batch) : held_(std::make_shared<const Array<float>>(std::move(batch))) {}
  Images(Floats batch) : held_(std::move(batch)) {}
  const std::vector<Picture>* pictures() const { return std::get_if<std::vector<Picture>>(&held_); }
  const Floats* batch() const { return std::get_if<Floats>(&held_); }

 private:
  std::variant<std::vector<Picture>, Floats> held_;
};

// Images as the network takes them, [N, …], and what is known of the pictures behind them.
struct Batch {
  Floats rows;
  Masks pictures;  // uint8 [N, H, W, 3], where the network takes pictures themselves
  std::vector<std::string> names;
  std::vector<Array<std::uint8_t>> seen;  // each as the network sees it, [H, W, 3]; none where that isn't known
  std::int64_t count() const { return static_cast<std::int64_t>(names.size()); }
};

// The axes of height and width in a batch of that layout.
inline std::optional<std::pair<std::size_t, std::size_t>> spatial_axes(const std::string& layout, std::size_t rank) {
  if (rank != 4 || (layout != "NCHW" && layout != "NHWC")) return std::nullopt;
  return layout == "NCHW" ? std::pair<std::size_t, std::size_t>(2, 3) : std::pair<std::size_t, std::size_t>(1, 2);
}

namespace reading {

inline std::string image_name(std::size_t number) { return "image " + std::to_string(number); }

// A picture as RGB in bytes [H, W, 3]: grey is repeated, alpha dropped, 16 bits become 8 by rounding value / 257.
inline Array<std::uint8_t> rgb_of(const Picture& picture, const std::string& name) {
  const std::int64_t places = picture.height * picture.width, channels = picture.channels;
  const auto size = std::visit([](const auto& pixels) { return pixels.size(); }, picture.pixels);
  if (picture.height < 1 || picture.width < 1 || channels < 1 || channels > 4 ||
      static_cast<std::int64_t>(size) != places * channels)
    throw PictureError(name + ": a uint8 picture is [H, W, 3] or [H, W], not " +
                       shown(Shape{picture.height, picture.width, channels}) +
                       (channels >= 1 && channels <= 4 ? " with " + std::to_string(size) + " numbers" : ""));
  Array<std::uint8_t> result({picture.height, picture.width, 3});
  std::uint8_t* to = result.values.data();
  std::visit(
      [&](const auto& pixels) {
        for (std::int64_t place = 0; place < places; ++place)
          for (std::int64_t channel = 0; channel < 3; ++channel) {
            const unsigned value = pixels[static_cast<std::size_t>(place * channels + (channels < 3 ? 0 : channel))];
            const bool wide = sizeof(pixels[0]) == 2;
            *to++ = static_cast<std::uint8_t>(wide ? (value + 128) / 257 : value);
          }
      },
      picture.pixels);
  return result;
}

inline void check_shape(const std::string& name, const Shape& given, const Input& entry) {
  bool fits = given.size() + 1 == entry.shape.size();
  std::vector<std::string> expected;
  for (std::size_t axis = 1; axis < entry.shape.size(); ++axis) {
    const Axis& each = entry.shape[axis];
    expected.push_back(each.size ? std::to_string(each.size) : in_quotes(each.name));
    fits = fits && (!each.size || each.size == given[axis - 1]);
  }
  if (fits) return;
  const bool picture = given.size() == 3 && given[2] == 3;
  throw PictureError(name + " has shape " + shown(given) + "; the network's input " + in_quotes(entry.name) +
                     " takes [" + joined(expected, ", ") + "] an image" +
                     (picture ? "; hand in a picture as uint8 [H, W, 3]" : ""));
}

inline Batch batch_of(const Floats& given, const Bundle& bundle) {
  const Input& entry = bundle.image();
  Array<float> one;
  Floats rows = given;
  if (given->rank() + 1 == entry.shape.size()) {
    one = *given;
    one.shape.insert(one.shape.begin(), 1);
    rows = std::make_shared<const Array<float>>(std::move(one));
  }
  if (static_cast<std::int64_t>(rows->values.size()) != count_of(rows->shape))
    throw PictureError("an array of shape " + shown(rows->shape) + " has " + std::to_string(rows->values.size()) +
                       " numbers");
  Batch batch;
  const Shape shape(rows->shape.begin() + (rows->shape.empty() ? 0 : 1), rows->shape.end());
  for (std::int64_t number = 0; number < rows->length(); ++number) {
    batch.names.push_back(image_name(static_cast<std::size_t>(number)));
    check_shape(batch.names.back(), shape, entry);
    if (!all_finite(rows->at(number), rows->at(number + 1)))
      throw PictureError(batch.names.back() + " contains NaN or infinity");
  }
  if (batch.names.empty()) check_shape(image_name(0), shape, entry);
  batch.rows = rows;
  return batch;
}

inline Batch batch_of(const std::vector<Picture>& pictures, const Bundle& bundle) {
  Batch batch;
  Array<float> rows;
  rows.shape = joined({0}, sizes_of(bundle.image().shape));
  for (const Picture& picture : pictures) {
    const std::string name = image_name(batch.names.size());
    if (bundle.steps.empty())
      throw PictureError(name +
                         ": no preprocessing in the bundle; give float arrays, or export it with --preprocessing");
    Prepared prepared = prepare(rgb_of(picture, name), bundle.steps);
    check_shape(name, prepared.row.shape, bundle.image());
    if (batch.names.empty()) rows.shape = joined({0}, prepared.row.shape);
    if (joined({}, rows.shape, 1) != prepared.row.shape)
      throw PictureError(name + " has shape " + shown(prepared.row.shape) + " and image 0 " +
                         shown(joined({}, rows.shape, 1)) + "; images of one call need one size");
    rows.values.insert(rows.values.end(), prepared.row.values.begin(), prepared.row.values.end());
    ++rows.shape[0];
    batch.names.push_back(name);
    batch.seen.push_back(std::move(prepared.seen));
  }
  batch.rows = std::make_shared<const Array<float>>(std::move(rows));
  return batch;
}

// Pictures for a file that prepares them itself: [N, H, W, 3], all of one size. They are prepared beside it for what
// draws them, unless it draws them, too.
inline Batch unprepared(const std::vector<Picture>& pictures, const Bundle& bundle) {
  Batch batch;
  Array<std::uint8_t> all({0, 0, 0, 3});
  for (const Picture& picture : pictures) {
    const std::string name = image_name(batch.names.size());
    const Array<std::uint8_t> pixels = rgb_of(picture, name);
    if (batch.names.empty()) all.shape = joined({0}, pixels.shape);
    if (joined({}, all.shape, 1) != pixels.shape)
      throw PictureError(name + " has shape " + shown(pixels.shape) + " and image 0 " +
                         shown(joined({}, all.shape, 1)) + "; images of one call need one size");
    all.values.insert(all.values.end(), pixels.values.begin(), pixels.values.end());
    ++all.shape[0];
    batch.names.push_back(name);
    if (!bundle.steps.empty() && !bundle.single->picture_output)
      batch.seen.push_back(prepare(pixels, bundle.steps).seen);
  }
  batch.pictures = std::make_shared<const Array<std::uint8_t>>(std::move(all));
  return batch;
}

}  // namespace reading

// The images, preprocessed; PictureError where one doesn't fit.
inline Batch read_images(const Images& images, const Bundle& bundle) {
  if (bundle.takes_pictures()) {
    if (images.pictures()) return reading::unprepared(*images.pictures(), bundle);
    throw PictureError("image 0: this file takes pictures, uint8 [H, W, 3], not float32 " +
                       shown((*images.batch())->shape));
  }
  if (images.pictures()) return reading::batch_of(*images.pictures(), bundle);
  return reading::batch_of(*images.batch(), bundle);
}

}  // namespace onnxplain
