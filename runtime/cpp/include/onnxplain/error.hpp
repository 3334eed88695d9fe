// Every error that a caller can cause, as one small tree; the words are those of the Python engine.
//
// Error
// ├── ModelError       the network fails on these inputs, or answers with NaN
// ├── BundleError      the exported bundle is missing, altered, newer than this reader, or incomplete
// ├── PictureError     a picture doesn't fit the network
// └── ParameterError   an unknown method, parameter or target, or a value out of range
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/text.hpp"

namespace onnxplain {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ModelError : Error {
  using Error::Error;
};
struct BundleError : Error {
  using Error::Error;
};
struct PictureError : Error {
  using Error::Error;
};
struct ParameterError : Error {
  using Error::Error;
};

// How many characters the matching blocks of two texts have: the longest common block, then those on both sides of it
// (Ratcliff and Obershelp 1988, as Python's difflib, which the suggestions are to agree with).
inline std::size_t matching(const std::u32string& a, std::size_t a_low, std::size_t a_high, const std::u32string& b,
                            std::size_t b_low, std::size_t b_high) {
  std::size_t best_a = a_low, best_b = b_low, best = 0;
  std::map<std::size_t, std::size_t> lengths;
  for (std::size_t i = a_low; i < a_high; ++i) {
    std::map<std::size_t, std::size_t> next;
    for (std::size_t j = b_low; j < b_high; ++j) {
      if (a[i] != b[j]) continue;
      const auto before = j == 0 ? lengths.end() : lengths.find(j - 1);
      const std::size_t length = before == lengths.end() ? 1 : before->second + 1;
      next[j] = length;
      if (length > best) {
        best = length;
        best_a = i + 1 - length;
        best_b = j + 1 - length;
      }
    }
    lengths = std::move(next);
  }
  if (!best) return 0;
  return best + matching(a, a_low, best_a, b, b_low, best_b) +
         matching(a, best_a + best, a_high, b, best_b + best, b_high);
}

// How alike two texts are, 0 to 1.
inline double likeness(const std::string& name, const std::string& other) {
  const std::u32string a = code_points(other), b = code_points(name);
  if (a.empty() && b.empty()) return 1.0;
  return 2.0 * static_cast<double>(matching(a, 0, a.size(), b, 0, b.size())) / static_cast<double>(a.size() + b.size());
}

// The sentence for an unknown name, with the nearest known one suggested.
inline std::string unknown(const std::string& kind, const std::string& name, std::vector<std::string> known) {
  std::sort(known.begin(), known.end());
  std::pair<double, std::string> nearest{0.0, ""};
  for (const std::string& each : known) nearest = std::max(nearest, std::make_pair(likeness(name, each), each));
  const std::string start = "unknown " + kind + " " + in_quotes(name);
  if (nearest.first >= 0.5) return start + "; did you mean " + in_quotes(nearest.second) + "?";
  const bool more = known.size() > 20;
  if (more) known.resize(20);
  return start + "; known: " + joined(known, ", ") + (more ? ", …" : "");
}

}  // namespace onnxplain
