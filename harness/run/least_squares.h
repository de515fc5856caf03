#pragma once

#include <cstddef>
#include <vector>

namespace kvsweep {

// Ordinary least squares, y ~ X c, with the covariance of c from the residuals: s^2 (X^T X)^-1, s^2 = RSS / (n - p).
struct Fit {
  std::vector<double> coefficients;
  std::vector<std::vector<double>> covariance;  // NaN when n == p: nothing is left to estimate an error from

  double standard_error(size_t i) const;
  double difference_error(size_t i, size_t j) const;  // of c[i] - c[j]
};

// rows: X, n of p numbers each. Throws c10::Error when n < p, sizes differ, or columns depend on one another.
Fit least_squares(const std::vector<std::vector<double>>& rows, const std::vector<double>& y);

// y ~ c[0] + c[1] x
Fit fit_line(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace kvsweep
