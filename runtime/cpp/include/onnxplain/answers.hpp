// What the network says of a call's images as they are: a by-product of some runs, a run of its own for the others.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"

namespace onnxplain {

// ModelError unless the values [N, …] of every image are finite.
inline void check_finite(const Array<float>& values, const std::vector<std::string>& names, const std::string& what) {
  for (std::int64_t image = 0; image < values.length(); ++image)
    if (!all_finite(values.at(image), values.at(image + 1)))
      throw ModelError("the network's " + what + " for " + names[static_cast<std::size_t>(image)] +
                       " contains NaN or infinity: its numbers overflow there");
}

// What turns scores [N, classes] into probabilities; "none": the scores are explained as they are.
inline Array<float> activate(const Array<float>& scores, const std::string& activation) {
  if (activation == "none") return scores;
  Array<float> result(scores.shape);
  const std::int64_t classes = scores.stride();
  for (std::int64_t image = 0; image < scores.length(); ++image) {
    const float* from = scores.at(image);
    float* to = result.at(image);
    if (activation == "sigmoid") {  // with tanh, which doesn't overflow
      for (std::int64_t i = 0; i < classes; ++i)
        to[i] = static_cast<float>((1 + std::tanh(static_cast<double>(from[i]) / 2)) / 2);
      continue;
    }
    double highest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t i = 0; i < classes; ++i) highest = std::max(highest, static_cast<double>(from[i]));
    for (std::int64_t i = 0; i < classes; ++i) sum += std::exp(static_cast<double>(from[i]) - highest);
    for (std::int64_t i = 0; i < classes; ++i)
      to[i] = static_cast<float>(std::exp(static_cast<double>(from[i]) - highest) / sum);
  }
  return result;
}

// The scores [N, …] and the explained values [N, …] of N images, each found when somebody first asks.
class Answers : public std::enable_shared_from_this<Answers> {
 public:
  using Pair = std::pair<Array<float>, Array<float>>;
  using Forward = std::function<Pair()>;

  Answers(Forward forward, std::vector<std::string> names) : forward_(std::move(forward)), names_(std::move(names)) {}

  bool known() const { return scores_.has_value(); }
  const Array<float>& scores() {
    if (!scores_) ask();
    return *scores_;
  }
  const Array<float>& values() {
    if (!values_) ask();
    return *values_;
  }
  // Takes the scores that a run gave.
  void tell(Array<float> scores) {
    check_finite(scores, names_, "scores");
    scores_ = std::move(scores);
  }
  // The answers for some of the images.
  std::shared_ptr<Answers> of(Range images) {
    auto whole = shared_from_this();
    return std::make_shared<Answers>(
        [whole, images] {
          Array<float> scores = part_of(whole->scores(), images);
          const Array<float>& values = whole->values();  // none where the images themselves are explained
          return Pair(std::move(scores), values.values.empty() ? values : part_of(values, images));
        },
        std::vector<std::string>(names_.begin() + images.start, names_.begin() + images.stop));
  }

 private:
  void ask() {
    auto [scores, values] = forward_();
    values_ = std::move(values);
    if (!scores_) tell(std::move(scores));  // else those of the run that made the maps stay
  }

  Forward forward_;
  std::vector<std::string> names_;
  std::optional<Array<float>> scores_, values_;
};

}  // namespace onnxplain
