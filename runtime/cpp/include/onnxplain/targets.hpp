// Which classes are explained: numbers and names become a table [N, T].
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"
#include "onnxplain/value.hpp"

namespace onnxplain {

// The target that stands for an image's top class, as graphs that tell the scores take it.
constexpr std::int64_t TOP = -1;

// A class: its number, its name, or nothing for the image's top class.
class Target {
 public:
  Target() = default;
  template <class T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>, int> = 0>
  Target(T number) : held_(static_cast<std::int64_t>(number)) {}
  Target(std::string name) : held_(std::move(name)) {}
  Target(const char* name) : held_(std::string(name)) {}
  const std::int64_t* number() const { return std::get_if<std::int64_t>(&held_); }
  const std::string* name() const { return std::get_if<std::string>(&held_); }

 private:
  std::variant<None, std::int64_t, std::string> held_;
};

// What is explained: nothing for each image's top class, one class for all images, one for each, or several for each.
class Targets {
 public:
  Targets() = default;
  template <class T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>, int> = 0>
  Targets(T number) : held_(Target(number)) {}
  Targets(const char* name) : held_(Target(name)) {}
  Targets(std::string name) : held_(Target(std::move(name))) {}
  Targets(Target target) : held_(std::move(target)) {}
  Targets(std::vector<Target> each) : held_(std::move(each)) {}
  Targets(std::vector<std::vector<Target>> several) : held_(std::move(several)) {}

  bool given() const { return !std::holds_alternative<None>(held_); }
  bool several() const {
    const auto* rows = std::get_if<std::vector<std::vector<Target>>>(&held_);
    return rows && !rows->empty();
  }
  // The targets of each of `count` images; ParameterError where there are not as many.
  std::vector<std::vector<Target>> rows(std::int64_t count) const {
    if (const auto* rows = std::get_if<std::vector<std::vector<Target>>>(&held_)) {
      check_count(rows->size(), count);
      return *rows;
    }
    std::vector<std::vector<Target>> result(static_cast<std::size_t>(count), std::vector<Target>(1));
    if (const auto* one = std::get_if<Target>(&held_)) {
      for (auto& row : result) row[0] = *one;
    } else if (const auto* each = std::get_if<std::vector<Target>>(&held_)) {
      check_count(each->size(), count);
      for (std::size_t i = 0; i < each->size(); ++i) result[i][0] = (*each)[i];
    }
    return result;
  }

 private:
  static void check_count(std::size_t given, std::int64_t count) {
    if (static_cast<std::int64_t>(given) == count) return;
    throw ParameterError(std::to_string(given) + " targets for " + std::to_string(count) + " pictures" +
                         (count == 1 ? "; several targets per picture are a list of lists, as [[3, 5]]" : ""));
  }
  std::variant<None, Target, std::vector<Target>, std::vector<std::vector<Target>>> held_;
};

// The first of the largest scores.
inline std::int64_t best_of(const float* scores, std::int64_t classes) {
  return std::max_element(scores, scores + classes) - scores;
}

// What is explained: `targets` [N, T]; `several` is true where maps keep a target axis. A target TOP is the image's top
// class, until scores settle which one that is.
struct Chosen {
  Array<std::int64_t> targets;
  bool several = false;

  std::int64_t count() const { return targets.shape[1]; }
  bool settled() const { return std::find(targets.values.begin(), targets.values.end(), TOP) == targets.values.end(); }
  // The same with each image's top class in the place of TOP.
  Chosen by(const Array<float>& scores) const {
    Chosen known = *this;
    for (std::int64_t image = 0; image < targets.length(); ++image)
      for (std::int64_t t = 0; t < count(); ++t)
        if (known.targets.at(image)[t] == TOP) known.targets.at(image)[t] = best_of(scores.at(image), scores.stride());
    return known;
  }
  // What is explained of scores [M, classes], each of which belongs to the image of that number: [M, T].
  Array<float> of(const Array<float>& scores, const std::vector<std::int64_t>& images) const {
    Array<float> found({scores.length(), count()});
    for (std::int64_t row = 0; row < scores.length(); ++row)
      for (std::int64_t t = 0; t < count(); ++t)
        found.at(row)[t] = scores.at(row)[targets.at(images[static_cast<std::size_t>(row)])[t]];
    return found;
  }
};

// A class's label, or its number where the bundle has no labels.
inline std::string name_of(std::int64_t target, const std::optional<std::vector<std::string>>& labels) {
  const bool known = labels && target >= 0 && target < static_cast<std::int64_t>(labels->size());
  return known ? (*labels)[static_cast<std::size_t>(target)] : std::to_string(target);
}

// The number of the class with this name.
inline std::int64_t class_named(const std::string& name, const std::optional<std::vector<std::string>>& labels) {
  if (!labels)
    throw ParameterError("target " + in_quotes(name) +
                         " is a name, but the bundle has no labels; give the class number");
  const std::string wanted = lowered(stripped(name));
  std::vector<std::string> whole, words;  // found by the whole label, or by one of its synonyms: "tench, Tinca tinca"
  std::set<std::string> known;
  for (std::size_t i = 0; i < labels->size(); ++i) {
    const std::string& label = (*labels)[i];
    if (lowered(stripped(label)) == wanted) whole.push_back(std::to_string(i));
    bool among = false;
    for (const std::string& word : split(label, ',')) {
      among = among || stripped(lowered(word)) == wanted;
      known.insert(stripped(word));
    }
    if (among) words.push_back(std::to_string(i));
  }
  const std::vector<std::string>& found = whole.empty() ? words : whole;
  if (found.empty()) throw ParameterError(unknown("target", name, {known.begin(), known.end()}));
  if (found.size() > 1)
    throw ParameterError("target " + in_quotes(name) + " is the name of several classes: " + joined(found, ", ") +
                         "; give the number");
  return std::stoll(found[0]);
}

// The targets of `count` images whose scores aren't known yet: TOP stands for the top class.
inline Chosen asked(const Targets& targets, std::int64_t count, std::int64_t classes,
                    const std::optional<std::vector<std::string>>& labels) {
  const auto rows = targets.rows(count);
  for (const auto& row : rows)
    if (row.size() != rows[0].size() || row.empty())
      throw ParameterError("every picture needs the same number of targets, and at least one");
  const auto width = rows.empty() ? std::int64_t{1} : static_cast<std::int64_t>(rows[0].size());
  Chosen chosen{Array<std::int64_t>({count, width}), targets.several()};
  auto* target = chosen.targets.values.data();
  for (const auto& row : rows) {
    for (const Target& each : row) {
      *target = each.number() ? *each.number() : each.name() ? class_named(*each.name(), labels) : TOP;
      if (each.number() && (*target < 0 || *target >= classes))
        throw ParameterError("target " + std::to_string(*target) + " is out of range: the network has classes 0 to " +
                             std::to_string(classes - 1));
      ++target;
    }
  }
  return chosen;
}

// The `best` classes of the highest scores of each image, ties in the classes' order.
inline Chosen top_classes(std::int64_t best, const Targets& targets, const Array<float>& scores) {
  const std::int64_t classes = scores.stride();
  if (targets.given()) throw ParameterError("top= and targets= both say what is explained; give one of them");
  if (best < 1 || best > classes)
    throw ParameterError("top=" + std::to_string(best) + " must be a whole number from 1 to " +
                         std::to_string(classes) + ", the number of classes");
  Chosen chosen{Array<std::int64_t>({scores.length(), best}), true};
  for (std::int64_t image = 0; image < scores.length(); ++image) {
    auto order = numbers_to(classes);
    const float* own = scores.at(image);
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return own[a] > own[b]; });
    std::copy(order.begin(), order.begin() + best, chosen.targets.at(image));
  }
  return chosen;
}

}  // namespace onnxplain
