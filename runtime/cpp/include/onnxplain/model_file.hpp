// Reads the metadata of an ONNX file from its bytes, without loading the network in it.
//
// An ONNX file is a protocol buffer: fields of a tag (number and wire type) and a content. Of its outermost fields only
// `metadata_props`, number 14, is read; the graph is skipped by its length (onnx.proto: ModelProto,
// StringStringEntryProto).
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>

#include "onnxplain/error.hpp"

namespace onnxplain {

namespace model_file {

constexpr std::uint64_t METADATA_PROPS = 14, KEY = 1, VALUE = 2;

// What is no ONNX file.
struct Other {};

class Reader {
 public:
  explicit Reader(const std::filesystem::path& file)
      : stream_(file, std::ios::binary), size_(std::filesystem::file_size(file)) {
    if (!stream_) throw BundleError(file.string() + " can't be read");
  }

  std::uint64_t size() const { return size_; }
  std::uint64_t place() { return static_cast<std::uint64_t>(stream_.tellg()); }
  void go_to(std::uint64_t place) { stream_.seekg(static_cast<std::streamoff>(place)); }

  std::string text(std::uint64_t length) {
    std::string text(static_cast<std::size_t>(length), 0);
    if (!stream_.read(text.data(), static_cast<std::streamsize>(length))) throw Other();
    return text;
  }

  struct Tag {
    std::uint64_t number, length;
  };

  // The next field's number and how many bytes are left of its content.
  Tag tag(std::uint64_t end) {
    const std::uint64_t tag = varint(), kind = tag & 7;
    if (kind == 0) {
      varint();
      return {tag >> 3, 0};
    }
    if (kind != 1 && kind != 2 && kind != 5) throw Other();
    const std::uint64_t length = kind == 1 ? 8 : kind == 5 ? 4 : varint(), here = place();
    if (tag >> 3 == 0 || here > end || length > end - here) throw Other();
    return {tag >> 3, length};
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const int byte = stream_.get();
      if (byte < 0) throw Other();
      if (shift < 64) value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw Other();
  }

  std::ifstream stream_;
  std::uint64_t size_;
};

}  // namespace model_file

// A text in an ONNX file's metadata, by its name; none where there is none, or the file is no ONNX file.
inline std::optional<std::string> metadata_of(const std::filesystem::path& file, const std::string& name) {
  try {
    model_file::Reader reader(file);
    std::optional<std::string> found;
    while (reader.place() < reader.size()) {
      const auto [number, length] = reader.tag(reader.size());
      const std::uint64_t end = reader.place() + length;
      std::map<std::uint64_t, std::string> entry;
      while (number == model_file::METADATA_PROPS && reader.place() < end) {
        const auto field = reader.tag(end);
        entry[field.number] = reader.text(field.length);
      }
      if (!entry.empty() && entry[model_file::KEY] == name) found = entry[model_file::VALUE];
      reader.go_to(end);
    }
    return found;
  } catch (const model_file::Other&) {
    return std::nullopt;
  }
}

}  // namespace onnxplain
