// The value of a method's parameter: a number, a name, a flag, a pair of sides, or an array.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "onnxplain/array.hpp"
#include "onnxplain/text.hpp"

namespace onnxplain {

// Rows and columns.
struct Sides {
  std::int64_t rows = 0, columns = 0;
};

using None = std::monostate;
using Floats = std::shared_ptr<const Array<float>>;
using Labels = std::shared_ptr<const Array<std::int64_t>>;  // the number of every pixel's segment
using Masks = std::shared_ptr<const Array<std::uint8_t>>;   // 0 or 1: a segment's pixels

class Value {
 public:
  using Held = std::variant<None, bool, std::int64_t, double, std::string, Sides, Floats, Labels, Masks>;

  Value() = default;
  Value(bool value) : held_(value) {}
  template <class T, std::enable_if_t<std::is_integral_v<T> && !std::is_same_v<T, bool>, int> = 0>
  Value(T value) : held_(static_cast<std::int64_t>(value)) {}
  Value(double value) : held_(value) {}
  Value(const char* value) : held_(std::string(value)) {}
  Value(std::string value) : held_(std::move(value)) {}
  Value(Sides value) : held_(value) {}
  Value(Array<float> value) : held_(std::make_shared<const Array<float>>(std::move(value))) {}
  Value(Array<std::int64_t> value) : held_(std::make_shared<const Array<std::int64_t>>(std::move(value))) {}
  Value(Array<std::uint8_t> value) : held_(std::make_shared<const Array<std::uint8_t>>(std::move(value))) {}

  template <class T>
  const T* as() const {
    return std::get_if<T>(&held_);
  }
  bool none() const { return as<None>() != nullptr; }
  bool is_text() const { return as<std::string>() != nullptr; }
  bool is_text(const char* text) const { return is_text() && *as<std::string>() == text; }
  bool is_number() const { return as<std::int64_t>() || (as<double>() && std::isfinite(*as<double>())); }
  bool is_array() const { return as<Floats>() || as<Labels>() || as<Masks>(); }
  double number() const { return as<double>() ? *as<double>() : static_cast<double>(*as<std::int64_t>()); }
  // The axes of an array.
  Shape shape() const {
    if (const Floats* array = as<Floats>()) return (*array)->shape;
    if (const Labels* array = as<Labels>()) return (*array)->shape;
    return as<Masks>() ? (*as<Masks>())->shape : Shape{};
  }

 private:
  Held held_;
};

// As messages show it.
inline std::string shown(const Value& value) {
  if (const auto* flag = value.as<bool>()) return *flag ? "True" : "False";
  if (const auto* number = value.as<std::int64_t>()) return std::to_string(*number);
  if (const auto* number = value.as<double>()) return shown(*number);
  if (const auto* text = value.as<std::string>()) return in_quotes(*text);
  if (const auto* sides = value.as<Sides>())
    return "(" + std::to_string(sides->rows) + ", " + std::to_string(sides->columns) + ")";
  if (const auto* numbers = value.as<Labels>(); numbers && (*numbers)->rank() == 1) return shown((*numbers)->values);
  return value.none() ? "None" : "an array " + shown(value.shape());
}

// A method's parameters by name, checked and complete.
class Parameters {
 public:
  bool has(const std::string& name) const { return values_.count(name) > 0; }
  const Value& operator[](const std::string& name) const { return values_.at(name); }
  void set(const std::string& name, Value value) { values_.insert_or_assign(name, std::move(value)); }
  std::int64_t whole(const std::string& name) const { return *values_.at(name).as<std::int64_t>(); }
  std::int64_t whole(const std::string& name, std::int64_t otherwise) const {
    return has(name) ? whole(name) : otherwise;
  }
  double number(const std::string& name) const { return values_.at(name).number(); }
  bool flag(const std::string& name) const { return *values_.at(name).as<bool>(); }
  const std::string& text(const std::string& name) const { return *values_.at(name).as<std::string>(); }
  std::string text(const std::string& name, const std::string& otherwise) const {
    return has(name) && values_.at(name).is_text() ? text(name) : otherwise;
  }
  const std::map<std::string, Value>& all() const { return values_; }

 private:
  std::map<std::string, Value> values_;
};

}  // namespace onnxplain
