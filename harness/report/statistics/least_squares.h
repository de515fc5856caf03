#pragma once

#include <cstddef>
#include <vector>

#include "harness/report/statistics/interval.h"

namespace kvsweep {

// Ordinary least squares, y ~ X c, with the covariance of c from the residuals: s^2 (X^T X)^-1, s^2 = RSS / (n - p).
struct Fit {
  std::vector<double> coefficients;
  std::vector<std::vector<double>> covariance;  // NaN when n == p: nothing is left to estimate an error from
  double degrees = 0;                           // n - p

  double standard_error(size_t i) const;
  double difference_error(size_t i, size_t j) const;  // of c[i] - c[j]

  // By Student's t with `degrees` of freedom. NaN when n == p.
  Interval interval(size_t i, double confidence = 0.95) const;
  Interval difference_interval(size_t i, size_t j, double confidence = 0.95) const;
  // Two-sided p of c[i] == c[j]: is a bit of keys worth a bit of values? NaN when n == p; a difference without any
  // residual is 0.
  double difference_p(size_t i, size_t j) const;
};

// rows: X, n of p numbers each. Throws DataError when n < p, sizes differ, a number is not finite, or columns depend on
// one another.
Fit least_squares(const std::vector<std::vector<double>>& rows, const std::vector<double>& y);

// y ~ c[0] + c[1] x
Fit fit_line(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace kvsweep
