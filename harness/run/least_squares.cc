#include "harness/run/least_squares.h"

#include <ATen/ATen.h>

#include <cmath>

namespace kvsweep {
namespace {

constexpr double kDependent = 1e-12;  // of the largest pivot

}  // namespace

double Fit::standard_error(size_t i) const {
  return std::sqrt(covariance[i][i]);
}

double Fit::difference_error(size_t i, size_t j) const {
  return std::sqrt(covariance[i][i] + covariance[j][j] - 2 * covariance[i][j]);
}

Fit least_squares(const std::vector<std::vector<double>>& rows, const std::vector<double>& y) {
  const auto n = static_cast<int64_t>(rows.size());
  const int64_t p = n > 0 ? static_cast<int64_t>(rows[0].size()) : 0;
  TORCH_CHECK(p > 0 && n >= p && y.size() == rows.size(), "least squares: ", n, " rows of ", p, " for ", y.size(),
              " values");
  at::Tensor x = at::empty({n, p}, at::kDouble);
  for (int64_t i = 0; i < n; ++i) {
    TORCH_CHECK(static_cast<int64_t>(rows[static_cast<size_t>(i)].size()) == p, "least squares: rows differ in size");
    for (int64_t j = 0; j < p; ++j)
      x.data_ptr<double>()[i * p + j] = rows[static_cast<size_t>(i)][static_cast<size_t>(j)];
  }
  const at::Tensor values = at::tensor(y, at::kDouble).unsqueeze(1);
  const auto [q, r] = at::linalg_qr(x);
  const at::Tensor pivots = r.diagonal().abs();
  TORCH_CHECK(pivots.min().item<double>() > kDependent * pivots.max().item<double>(),
              "least squares: columns depend on one another");
  const at::Tensor inverse = at::linalg_inv(r);
  const at::Tensor solution = inverse.matmul(q.t().matmul(values));
  const double rss = (values - x.matmul(solution)).square().sum().item<double>();
  const at::Tensor covariance = (rss / static_cast<double>(n - p)) * inverse.matmul(inverse.t());
  Fit fit;
  for (int64_t i = 0; i < p; ++i) {
    fit.coefficients.push_back(solution[i][0].item<double>());
    auto& row = fit.covariance.emplace_back();
    for (int64_t j = 0; j < p; ++j) row.push_back(n > p ? covariance[i][j].item<double>() : std::nan(""));
  }
  return fit;
}

Fit fit_line(const std::vector<double>& x, const std::vector<double>& y) {
  std::vector<std::vector<double>> rows;
  for (const double value : x) rows.push_back({1, value});
  return least_squares(rows, y);
}

}  // namespace kvsweep
