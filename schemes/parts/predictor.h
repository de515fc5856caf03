#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvsweep {

// x W^T + b
struct AffineMap {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out]

  // x [rows, in] -> [rows, out]; in float32 whatever weight and x are stored as.
  at::Tensor apply(const at::Tensor& x) const;
};

// Ridge regression of y on x with an intercept, from normal equations: with a column of ones at the end of X,
//   W = (X^T X + lambda I)^-1 X^T Y,  lambda = damping * mean of the diagonal of X^T X
// so that the intercept is damped like the rest. Source: AQUA-KV, aquakv/linear_utils.py.
// Code differs: sums and solution are float64 (Cholesky) instead of float32 (pseudo-inverse).
//
// Holds (in + 1) * (in + 1 + out) float64 however many rows come, and while adding kRows rows as float64.
class RidgeFit {
 public:
  static constexpr int64_t kRows = 4096;

  RidgeFit(int64_t in, int64_t out, at::Device device);
  // x [rows, in], y [rows, out]
  void add(const at::Tensor& x, const at::Tensor& y);
  // float32. Throws c10::Error without rows or with a system that has no solution (no damping, columns that depend on
  // one another).
  AffineMap solve(double damping) const;

 private:
  at::Tensor gram_, cross_;  // X^T X, X^T Y
};

// |y - prediction|^2 / |y|^2 over everything added; NaN when that is nothing.
class RelativeError {
 public:
  void add(const at::Tensor& y, const at::Tensor& prediction);
  double value() const { return error_ / energy_; }

 private:
  double error_ = 0, energy_ = 0;
};

}  // namespace kvsweep
