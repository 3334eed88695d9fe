// The little linear algebra that the methods need, in float64: products, symmetric systems, a main direction.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "onnxplain/array.hpp"

namespace onnxplain {

using Matrix = Array<double>;  // [rows, columns]

// result += a · b for a [n, m] and b [m, p], four rows of b at a time so that the sums stay in registers longer.
inline void multiply_into(const double* a, const double* b, double* result, std::int64_t n, std::int64_t m,
                          std::int64_t p) {
  for (std::int64_t i = 0; i < n; ++i) {
    double* const to = result + i * p;
    std::int64_t k = 0;
    for (; k + 4 <= m; k += 4) {
      const double *const weights = a + i * m + k, *const rows = b + k * p;
      const double w0 = weights[0], w1 = weights[1], w2 = weights[2], w3 = weights[3];
      if (w0 == 0 && w1 == 0 && w2 == 0 && w3 == 0) continue;
      for (std::int64_t j = 0; j < p; ++j)
        to[j] += w0 * rows[j] + w1 * rows[p + j] + w2 * rows[2 * p + j] + w3 * rows[3 * p + j];
    }
    for (; k < m; ++k)
      for (std::int64_t j = 0; j < p; ++j) to[j] += a[i * m + k] * b[k * p + j];
  }
}

inline Matrix transposed(const Matrix& a) {
  Matrix result({a.shape[1], a.shape[0]});
  for (std::int64_t i = 0; i < a.shape[0]; ++i)
    for (std::int64_t j = 0; j < a.shape[1]; ++j) result.at(j)[i] = a.at(i)[j];
  return result;
}

inline Matrix product(const Matrix& a, const Matrix& b) {
  Matrix result({a.shape[0], b.shape[1]});
  multiply_into(a.values.data(), b.values.data(), result.values.data(), a.shape[0], a.shape[1], b.shape[1]);
  return result;
}

// Eigenvalues of a symmetric matrix and, in the rows of `vectors`, their eigenvectors (Jacobi's rotations).
struct Eigen {
  std::vector<double> values;
  Matrix vectors;
};

inline Eigen eigen_of(Matrix a) {
  const std::int64_t n = a.length();
  Matrix vectors({n, n});
  for (std::int64_t i = 0; i < n; ++i) vectors.at(i)[i] = 1;
  double whole = 0;
  for (const double each : a.values) whole += each * each;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0;
    for (std::int64_t p = 0; p < n; ++p)
      for (std::int64_t q = p + 1; q < n; ++q) off += a.at(p)[q] * a.at(p)[q];
    if (off <= 1e-30 * whole) break;
    for (std::int64_t p = 0; p < n; ++p)
      for (std::int64_t q = p + 1; q < n; ++q) {
        if (a.at(p)[q] == 0) continue;
        const double theta = (a.at(q)[q] - a.at(p)[p]) / (2 * a.at(p)[q]);
        const double t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        const auto turn = [&](double& x, double& y) {
          const double before = x;
          x = c * before - s * y;
          y = s * before + c * y;
        };
        for (std::int64_t k = 0; k < n; ++k) turn(a.at(k)[p], a.at(k)[q]);
        for (std::int64_t k = 0; k < n; ++k) turn(a.at(p)[k], a.at(q)[k]);
        for (std::int64_t k = 0; k < n; ++k) turn(vectors.at(p)[k], vectors.at(q)[k]);
      }
  }
  Eigen result{{}, std::move(vectors)};
  for (std::int64_t i = 0; i < n; ++i) result.values.push_back(a.at(i)[i]);
  return result;
}

// The triangle L of a = L·Lᵀ in place; false where a isn't clearly positive definite.
inline bool factorized(Matrix& a) {
  const std::int64_t n = a.length();
  double largest = 0;
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, a.at(i)[i]);
  for (std::int64_t j = 0; j < n; ++j) {
    for (std::int64_t i = j; i < n; ++i) {
      double sum = a.at(i)[j];
      for (std::int64_t k = 0; k < j; ++k) sum -= a.at(i)[k] * a.at(j)[k];
      if (i == j && sum <= 1e-10 * largest) return false;
      a.at(i)[j] = i == j ? std::sqrt(sum) : sum / a.at(j)[j];
    }
  }
  return true;
}

// The x [n, m] of least length that comes nearest to a·x = b, for a symmetric a without negative eigenvalues.
inline Matrix solved(const Matrix& a, Matrix b) {
  const std::int64_t n = a.length(), columns = b.shape[1];
  Matrix triangle = a;
  if (factorized(triangle)) {
    for (const bool forward : {true, false})
      for (std::int64_t step = 0; step < n; ++step) {
        const std::int64_t i = forward ? step : n - 1 - step;
        for (std::int64_t m = 0; m < columns; ++m) {
          double sum = b.at(i)[m];
          for (std::int64_t k = forward ? 0 : i + 1; k < (forward ? i : n); ++k)
            sum -= (forward ? triangle.at(i)[k] : triangle.at(k)[i]) * b.at(k)[m];
          b.at(i)[m] = sum / triangle.at(i)[i];
        }
      }
    return b;
  }
  const Eigen eigen = eigen_of(a);
  double largest = 0;
  for (const double value : eigen.values) largest = std::max(largest, std::abs(value));
  Matrix along = product(eigen.vectors, b);
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = eigen.values[static_cast<std::size_t>(i)];
    const bool none = std::abs(value) <= 2.3e-16 * static_cast<double>(std::max<std::int64_t>(n, 1)) * largest;
    for (std::int64_t m = 0; m < columns; ++m) along.at(i)[m] = none ? 0.0 : along.at(i)[m] / value;
  }
  return product(transposed(eigen.vectors), along);
}

// The unit eigenvector of a symmetric matrix without negative eigenvalues that belongs to the largest one.
inline std::vector<double> main_direction(const Matrix& a) {
  const std::int64_t n = a.length();
  std::vector<double> x(static_cast<std::size_t>(n)), next(x.size());
  // Any start with a part in every direction; multiplying by a leaves the main one.
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 1 + 0.5 * std::sin(static_cast<double>(i) * 2.399963 + 1);
  for (int turn = 0; turn < 2000; ++turn) {
    double length = 0, change = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (std::int64_t k = 0; k < n; ++k) sum += a.at(i)[k] * x[static_cast<std::size_t>(k)];
      next[static_cast<std::size_t>(i)] = sum;
      length += sum * sum;
    }
    length = std::sqrt(length);
    if (length == 0) return std::vector<double>(x.size(), 0.0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      next[i] /= length;
      change += (next[i] - x[i]) * (next[i] - x[i]);
    }
    std::swap(x, next);
    if (turn > 0 && change < 1e-28) return x;
  }
  const Eigen eigen = eigen_of(a);  // the two largest are nearly equal
  const auto best = std::max_element(eigen.values.begin(), eigen.values.end()) - eigen.values.begin();
  return {eigen.vectors.at(best), eigen.vectors.at(best + 1)};
}

}  // namespace onnxplain
