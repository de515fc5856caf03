#include "harness/report/statistics/least_squares.h"

#include <fmt/format.h>

#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

constexpr double kDependent = 1e-12;  // of the largest pivot
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Matrix = std::vector<std::vector<double>>;

Interval around(double value, double error, double degrees, double confidence) {
  if (!(confidence > 0 && confidence < 1))
    throw DataError(fmt::format("confidence {}: allowed are numbers between 0 and 1", confidence));
  if (std::isnan(error)) return {kNaN, kNaN};
  const double half = error * boost::math::quantile(boost::math::students_t(degrees), 0.5 + confidence / 2);
  return {value - half, value + half};
}

// Householder: `x` becomes R in its first p rows, `y` becomes Q^T y.
void triangulate(Matrix& x, std::vector<double>& y) {
  const size_t n = x.size(), p = x[0].size();
  for (size_t k = 0; k < p; ++k) {
    double norm = 0;
    for (size_t i = k; i < n; ++i) norm = std::hypot(norm, x[i][k]);
    if (norm == 0) continue;  // found as a pivot of zero
    const double pivot = x[k][k] > 0 ? -norm : norm;
    std::vector<double> v(n);
    for (size_t i = k; i < n; ++i) v[i] = x[i][k];
    v[k] -= pivot;
    double square = 0;
    for (size_t i = k; i < n; ++i) square += v[i] * v[i];
    for (size_t j = k; j < p; ++j) {
      double dot = 0;
      for (size_t i = k; i < n; ++i) dot += v[i] * x[i][j];
      for (size_t i = k; i < n; ++i) x[i][j] -= 2 * dot / square * v[i];
    }
    double dot = 0;
    for (size_t i = k; i < n; ++i) dot += v[i] * y[i];
    for (size_t i = k; i < n; ++i) y[i] -= 2 * dot / square * v[i];
  }
}

void check(const Matrix& rows, const std::vector<double>& y) {
  const size_t n = rows.size(), p = n > 0 ? rows[0].size() : 0;
  if (p == 0 || n < p || y.size() != n)
    throw DataError(
        fmt::format("least squares: {} rows of {} for {} values; allowed are as many values as rows and at "
                    "least as many rows as columns",
                    n, p, y.size()));
  for (size_t i = 0; i < n; ++i) {
    if (rows[i].size() != p)
      throw DataError(fmt::format("least squares: row {} has {} numbers, row 0 has {}", i, rows[i].size(), p));
    for (const double value : rows[i])
      if (!std::isfinite(value)) throw DataError(fmt::format("least squares: row {} holds {}", i, value));
    if (!std::isfinite(y[i])) throw DataError(fmt::format("least squares: value {} is {}", i, y[i]));
  }
}

void check_pivots(const Matrix& r, size_t p) {
  double smallest = std::abs(r[0][0]), largest = smallest;
  for (size_t k = 1; k < p; ++k) {
    smallest = std::min(smallest, std::abs(r[k][k]));
    largest = std::max(largest, std::abs(r[k][k]));
  }
  if (!(smallest > kDependent * largest)) throw DataError("least squares: columns depend on one another");
}

// Of the upper triangle in the first p rows.
Matrix inverse_of(const Matrix& r, size_t p) {
  Matrix inverse(p, std::vector<double>(p));
  for (size_t j = 0; j < p; ++j)
    for (size_t i = j + 1; i-- > 0;) {
      double sum = i == j ? 1 : 0;
      for (size_t k = i + 1; k <= j; ++k) sum -= r[i][k] * inverse[k][j];
      inverse[i][j] = sum / r[i][i];
    }
  return inverse;
}

}  // namespace

double Fit::standard_error(size_t i) const {
  return std::sqrt(covariance[i][i]);
}

double Fit::difference_error(size_t i, size_t j) const {
  // Rounding can take a difference that is certain below zero.
  const double variance = covariance[i][i] + covariance[j][j] - 2 * covariance[i][j];
  return std::isnan(variance) ? kNaN : std::sqrt(std::max(0.0, variance));
}

Interval Fit::interval(size_t i, double confidence) const {
  return around(coefficients[i], standard_error(i), degrees, confidence);
}

Interval Fit::difference_interval(size_t i, size_t j, double confidence) const {
  return around(coefficients[i] - coefficients[j], difference_error(i, j), degrees, confidence);
}

double Fit::difference_p(size_t i, size_t j) const {
  const double error = difference_error(i, j), difference = std::abs(coefficients[i] - coefficients[j]);
  if (std::isnan(error)) return kNaN;
  if (difference == 0) return 1;
  if (error == 0) return 0;
  const boost::math::students_t t(degrees);
  return 2 * boost::math::cdf(boost::math::complement(t, difference / error));
}

Fit least_squares(const std::vector<std::vector<double>>& rows, const std::vector<double>& y) {
  check(rows, y);
  const size_t n = rows.size(), p = rows[0].size();
  Matrix r = rows;
  std::vector<double> rotated = y;
  triangulate(r, rotated);
  check_pivots(r, p);
  const Matrix inverse = inverse_of(r, p);
  double rss = 0;  // what no column explains: the rows below R
  for (size_t i = p; i < n; ++i) rss += rotated[i] * rotated[i];
  Fit fit;
  fit.degrees = static_cast<double>(n - p);
  for (size_t i = 0; i < p; ++i) {
    double coefficient = 0;
    for (size_t k = i; k < p; ++k) coefficient += inverse[i][k] * rotated[k];
    fit.coefficients.push_back(coefficient);
    auto& row = fit.covariance.emplace_back();
    for (size_t j = 0; j < p; ++j) {
      double dot = 0;
      for (size_t k = std::max(i, j); k < p; ++k) dot += inverse[i][k] * inverse[j][k];
      row.push_back(n > p ? dot * rss / fit.degrees : kNaN);
    }
  }
  return fit;
}

Fit fit_line(const std::vector<double>& x, const std::vector<double>& y) {
  std::vector<std::vector<double>> rows;
  for (const double value : x) rows.push_back({1, value});
  return least_squares(rows, y);
}

}  // namespace kvsweep
