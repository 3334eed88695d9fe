// How many rows enter the network in one run, and which images and steps share a run.
//
// A method is a sum over steps, so any split gives the same map; only memory and speed depend on it.
#pragma once

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/system.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

// On two cores with 32 MB of cache, a row of MobileNetV2's gradient (30 MB) takes 11.8 ms in runs of 2 and 16.6 in runs
// of 16; of a small network's (2 MB) 1.7 ms in runs of 1 and 1.0 from 8 rows on.
constexpr std::int64_t MOST_ROWS = 16, LEAST_ROWS = 2, BEST_BYTES = 64'000'000;
// Of the memory that is free now; the rest is for the pictures, the sums, and whoever else is on the machine.
constexpr double SAFE_SHARE = 0.5;

// What one run of a graph takes: some of the images, some of the steps; the `first` or `last` of these images.
struct Chunk {
  Range images, steps;
  bool first = true, last = true;
  std::int64_t rows() const { return images.size() * steps.size(); }
  // The same in two parts: of the steps where there are several, else of the images.
  std::pair<Chunk, Chunk> halves() const {
    Chunk before = *this, after = *this;
    if (steps.size() > 1) {
      before.steps.stop = after.steps.start = (steps.start + steps.stop) / 2;
      before.last = after.first = false;
    } else {
      before.images.stop = after.images.start = (images.start + images.stop) / 2;
    }
    return {before, after};
  }
};

// Ranges of nearly equal length, none longer than `most`, the longer ones first: later runs reuse their memory.
inline std::vector<Range> split(std::int64_t total, std::int64_t most) {
  std::vector<Range> parts;
  const std::int64_t count = (total + most - 1) / most;
  for (std::int64_t number = 0, start = 0; number < count; ++number) {
    const std::int64_t stop = start + total / count + (number < total % count ? 1 : 0);
    parts.push_back({start, stop});
    start = stop;
  }
  return parts;
}

// The most images for each run with which the runs are as few as they can be.
inline std::int64_t most_together(std::int64_t images, std::int64_t steps, std::int64_t rows) {
  const auto ceil = [](std::int64_t total, std::int64_t part) { return (total + part - 1) / part; };
  const auto runs = [&](std::int64_t together) {
    const std::int64_t groups = ceil(images, together), most = ceil(images, groups);
    const std::int64_t fewer = images / groups, larger = images % groups;
    const std::int64_t first = ceil(steps, rows / most);  // of the first group, none smaller than a later one
    return larger * first + (groups - larger) * ceil(steps, most * ceil(steps, first) / fewer);
  };
  std::int64_t best = std::max<std::int64_t>(1, std::min(images, rows));
  for (std::int64_t together = best - 1; together > 0; --together)
    if (runs(together) < runs(best)) best = together;
  return best;
}

// Runs of at most `rows` rows (images times steps) that cover everything; the steps of the same images together.
//
// They take all steps of few images, or with `shared` few steps of as many images as make the fewest runs: what is drawn
// for a step is then drawn once for these.
inline std::vector<Chunk> chunks(std::int64_t images, std::int64_t steps, std::int64_t rows, bool shared = false) {
  std::vector<Chunk> runs;
  const std::int64_t of_all_steps = std::max<std::int64_t>(1, rows / std::max<std::int64_t>(1, steps));
  for (const Range image_part : split(images, shared ? most_together(images, steps, rows) : of_all_steps)) {
    // No later run finds the memory of the first too small.
    const std::int64_t most = runs.empty() ? rows : runs.front().rows();
    for (const Range step_part : split(steps, std::max<std::int64_t>(1, most / image_part.size())))
      runs.push_back({image_part, step_part, step_part.start == 0, step_part.stop == steps});
  }
  return runs;
}

// An upper bound of memory: none, bytes, or text such as "2GB" or "500 MB"; 1 GB is 10^9 bytes.
using Memory = Value;

inline std::int64_t parse_memory(const Memory& memory) {
  std::int64_t size = 0;
  if (const auto* bytes = memory.as<std::int64_t>()) {
    size = *bytes;
  } else {
    const std::string text = stripped(memory.is_text() ? *memory.as<std::string>() : shown(memory));
    std::size_t end = text.find_first_not_of("0123456789");
    if (end != std::string::npos && end > 0 && text[end] == '.') {
      const std::size_t fraction = end + 1;
      end = text.find_first_not_of("0123456789", fraction);
      if (end == fraction || fraction == text.size()) end = 0;
    }
    std::string unit = end == std::string::npos || end == 0 ? "" : stripped(text.substr(end));
    for (char& each : unit) each = static_cast<char>(std::toupper(static_cast<unsigned char>(each)));
    static const std::vector<std::pair<std::string, double>> units = {{"", 1},     {"B", 1},    {"KB", 1e3},
                                                                      {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}};
    const auto found = std::find_if(units.begin(), units.end(), [&](const auto& each) { return each.first == unit; });
    if (text.empty() || end == 0 || found == units.end())
      throw ParameterError("memory=" + shown(memory) +
                           " is no amount of memory; write 2GB, 500MB, or bytes as a number");
    double number = 0;
    std::istringstream stream(text.substr(0, end));
    stream.imbue(std::locale::classic());
    stream >> number;
    size = static_cast<std::int64_t>(number * found->second);
  }
  if (size < 1) throw ParameterError("memory=" + shown(memory) + " must be more than 0");
  return size;
}

// What was free a tenth of a second ago at most: asking the system takes as long as a small network's run.
inline std::int64_t free_memory_of_late() {
  thread_local std::chrono::steady_clock::time_point asked;
  thread_local std::int64_t found = -1;
  const auto now = std::chrono::steady_clock::now();
  if (found < 0 || now - asked > std::chrono::milliseconds(100)) {
    found = free_memory();
    asked = now;
  }
  return found;
}

// Bytes that a call may add to the process: `memory`, or half of what is free now.
inline std::int64_t room(const Memory& memory) {
  if (!memory.none()) return parse_memory(memory);
  return static_cast<std::int64_t>(static_cast<double>(free_memory_of_late()) * SAFE_SHARE);
}

// How many images times steps fit in one run; ParameterError where `memory` is less than a single row needs.
//
// Each takes a row for each target; a run has no more than `most` rows. `beside` is what the call needs in any case.
inline std::int64_t rows_per_run(std::int64_t bytes_per_row, const Memory& memory, std::int64_t targets = 1,
                                 std::int64_t most = MOST_ROWS, std::int64_t beside = 0) {
  const std::int64_t need = std::max<std::int64_t>(1, bytes_per_row * targets);
  const std::int64_t useful = std::max<std::int64_t>(1, most / targets);
  const std::int64_t space = room(memory) - beside;
  const std::int64_t fits = space < 0 ? -1 : space / need;
  if (fits < 1 && !memory.none()) {
    const double megabytes = std::ceil(static_cast<double>(need + beside) / 1e5) / 10;
    throw ParameterError("memory=" + shown(memory) + " is too little: one run of one image needs " + shown(megabytes) +
                         " MB");
  }
  return std::max<std::int64_t>(1, std::min(fits, useful));
}

// How many rows a run on a CPU should have: beyond what its caches hold, each costs more.
inline std::int64_t useful_rows(std::int64_t bytes_per_row, std::int64_t threads, std::int64_t most = MOST_ROWS) {
  return std::min(most, std::max({LEAST_ROWS, threads, BEST_BYTES / std::max<std::int64_t>(1, bytes_per_row)}));
}

// The images of a call in groups, so that what is held for each takes at most half of the room.
inline std::vector<Range> images_at_once(std::int64_t images, std::int64_t space, std::int64_t held,
                                         std::int64_t beside) {
  const std::int64_t half = std::max<std::int64_t>(0, (space - beside) / 2);
  return split(images, std::max<std::int64_t>(1, half / std::max<std::int64_t>(1, held)));
}

}  // namespace onnxplain
