// The noise of the exported graphs, in integers: the very same uniforms, bit for bit.
//
// A value depends on (seed, draw, index of the element) alone. Three primes p ≡ 2 (mod 3), where cubing permutes the
// residues; an element is three residues h, a draw three residues s, and x = (h + s)³ for each prime gives two digits,
// base 719 and base 701, of an integer below 504019.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "onnxplain/array.hpp"
#include "onnxplain/error.hpp"

namespace onnxplain {

// Seeds and draw numbers are below this.
constexpr std::int64_t LIMIT = 1 << 20;

namespace noise {

using Residues = std::array<std::int64_t, 3>;
constexpr Residues PRIMES = {719, 701, 683};
constexpr std::int64_t LEVELS = 719 * 701;
constexpr std::int64_t SEED_OFFSET = 101;
constexpr std::int64_t ELEMENT_OFFSETS[3][2] = {{85, 170}, {145, 290}, {205, 410}};
// z / x as a ratio of cubics in w = −log(1 − x²), where x = 2u − 1 and z is the normal quantile of u; constants first.
constexpr double QUANTILE_NUMERATOR[4] = {2810.36260183, 939.04847312, 168.65781746, 18.74817698};
constexpr double QUANTILE_DENOMINATOR[4] = {2242.44957, 161.500063, 64.2863527, 1.0};

// y³ modulo a prime up to a multiple of it: the digits below are defined by these very numbers.
inline std::int64_t unreduced(std::int64_t y, std::int64_t prime) { return y * (y * y % prime); }
inline std::int64_t cubed(std::int64_t y, std::int64_t prime) { return unreduced(y, prime) % prime; }

// Each residue plus its neighbour's, one after the other; what differs before differs after.
inline Residues mixed(const Residues& r) {
  const std::int64_t first = (r[0] + r[1]) % PRIMES[0], second = (r[1] + r[2]) % PRIMES[1];
  return {first, second, (r[2] + first) % PRIMES[2]};
}

inline Residues permuted(const Residues& residues, int turn) {
  Residues result{};
  for (std::size_t i = 0; i < 3; ++i) result[i] = cubed(residues[i] + ELEMENT_OFFSETS[i][turn], PRIMES[i]);
  return result;
}

inline Residues element(std::int64_t index) {
  const Residues residues = {index % PRIMES[0], index % PRIMES[1], index % PRIMES[2]};
  return permuted(mixed(permuted(residues, 0)), 1);
}

inline void check(const char* kind, std::int64_t value) {
  if (value >= 0 && value < LIMIT) return;
  char number[32];
  std::snprintf(number, sizeof number, "%g", static_cast<double>(value));
  throw ParameterError(std::string(kind) + " " + number + " is not a whole number from 0 to " +
                       std::to_string(LIMIT - 1) + "; choose one that is");
}

// The residues of a draw, keyed by the seed.
inline Residues state(std::int64_t seed, std::int64_t draw) {
  check("draw", draw);
  check("seed", seed);
  Residues outer{}, whole{};
  for (std::size_t i = 0; i < 3; ++i) outer[i] = cubed(seed % PRIMES[i] + SEED_OFFSET, PRIMES[i]);
  for (std::size_t i = 0; i < 3; ++i) {
    const std::int64_t prime = PRIMES[i], inner = cubed(outer[i] + outer[(i + 1) % 3], prime);
    whole[i] = cubed(cubed(draw % prime + inner, prime) + outer[i], prime);
  }
  return mixed(whole);
}

// The uniforms of one draw as whole numbers 0 … LEVELS − 1.
inline std::int64_t level(const Residues& element, const Residues& state) {
  Residues x{};
  for (std::size_t i = 0; i < 3; ++i) x[i] = unreduced(element[i] + state[i], PRIMES[i]);
  const std::int64_t fine = (x[1] + x[2]) % PRIMES[1];
  return (x[0] + fine) % PRIMES[0] * PRIMES[1] + fine;
}

inline float polynomial(const double (&coefficients)[4], float w) {
  float total = static_cast<float>(coefficients[3]);
  for (int i = 2; i >= 0; --i) total = total * w + static_cast<float>(coefficients[i]);
  return total;
}

}  // namespace noise

// Uniform noise in (0, 1), [draws, count], bit for bit as the graphs make it; ParameterError unless the seed and the
// draws are 0 … 2^20 − 1.
inline Array<float> uniform(std::int64_t seed, const std::vector<std::int64_t>& draws, std::int64_t count) {
  std::vector<noise::Residues> elements(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) elements[static_cast<std::size_t>(i)] = noise::element(i);
  Array<float> result({static_cast<std::int64_t>(draws.size()), count});
  auto* value = result.values.data();
  for (const std::int64_t draw : draws) {
    const noise::Residues state = noise::state(seed, draw);
    for (const noise::Residues& each : elements)
      *value++ = (static_cast<float>(noise::level(each, state)) + 0.5f) * static_cast<float>(1.0 / noise::LEVELS);
  }
  return result;
}

// Standard normal noise, [draws, count], equal to that of the graphs within 2e-6; |z| < 4.76.
inline Array<float> normal(std::int64_t seed, const std::vector<std::int64_t>& draws, std::int64_t count) {
  const auto levels = static_cast<float>(noise::LEVELS);
  Array<float> result({static_cast<std::int64_t>(draws.size()), count});
  auto* value = result.values.data();
  for (const std::int64_t draw : draws) {
    const noise::Residues state = noise::state(seed, draw);
    for (std::int64_t i = 0; i < count; ++i) {
      const float centre = static_cast<float>(noise::level(noise::element(i), state)) + 0.5f;
      const double all = static_cast<double>(noise::LEVELS);
      const float w = -std::log(centre * (levels - centre) * static_cast<float>(4.0 / (all * all)));
      const float x = (centre - static_cast<float>(all / 2)) * static_cast<float>(2.0 / all);
      *value++ =
          x * (noise::polynomial(noise::QUANTILE_NUMERATOR, w) / noise::polynomial(noise::QUANTILE_DENOMINATOR, w));
    }
  }
  return result;
}

}  // namespace onnxplain
