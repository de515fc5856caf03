// Oracle and golden: ridge fits against normal equations written out, worked intercepts and the original's weights.
#include "schemes/parts/predictor.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Matrix = std::vector<std::vector<double>>;

// a^-1 b of a symmetric positive definite a, by elimination.
Matrix solved(Matrix a, Matrix b) {
  const size_t n = a.size();
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) {
      if (j == i) continue;
      const double factor = a[j][i] / a[i][i];
      for (size_t k = i; k < n; ++k) a[j][k] -= factor * a[i][k];
      for (size_t k = 0; k < b[j].size(); ++k) b[j][k] -= factor * b[i][k];
    }
  for (size_t i = 0; i < n; ++i)
    for (double& value : b[i]) value /= a[i][i];
  return b;
}

// (X^T X + lambda I)^-1 X^T Y with a last column of ones in X.
Matrix ridge(const at::Tensor& x, const at::Tensor& y, double damping) {
  const auto from = x.accessor<float, 2>(), to = y.accessor<float, 2>();
  const auto in = static_cast<size_t>(x.size(1)), out = static_cast<size_t>(y.size(1));
  Matrix gram(in + 1, std::vector<double>(in + 1)), cross(in + 1, std::vector<double>(out));
  for (int64_t row = 0; row < x.size(0); ++row)
    for (size_t i = 0; i <= in; ++i) {
      const auto value = [&](size_t column) { return column == in ? 1.0 : double{from[row][column]}; };
      for (size_t j = 0; j <= in; ++j) gram[i][j] += value(i) * value(j);
      for (size_t j = 0; j < out; ++j) cross[i][j] += value(i) * double{to[row][j]};
    }
  double mean = 0;
  for (size_t i = 0; i <= in; ++i) mean += gram[i][i] / static_cast<double>(in + 1);
  for (size_t i = 0; i <= in; ++i) gram[i][i] += damping * mean;
  return solved(gram, cross);
}

AffineMap fitted(const at::Tensor& x, const at::Tensor& y, double damping) {
  RidgeFit fit(x.size(1), y.size(1), at::kCPU);
  fit.add(x, y);
  return fit.solve(damping);
}

double relative_distance(const at::Tensor& x, const at::Tensor& y) {
  return std::sqrt(nmse(y, x));
}

TEST_CASE("without noise the map is found") {
  const at::Tensor x = normals({500, 20}, 1) * 3 + 5, weight = normals({7, 20}, 2), bias = normals({7}, 3) * 10;
  const AffineMap map = fitted(x, AffineMap{weight, bias}.apply(x), 1e-12);
  CHECK(map.weight.allclose(weight, 1e-4, 1e-4));
  CHECK(map.bias.allclose(bias, 1e-4, 1e-4));
}

TEST_CASE("weights solve the damped normal equations, the intercept damped with the rest") {
  const double damping = GENERATE(1e-3, 1e-6, .5);
  const int64_t rows = GENERATE(3, 200, 9000);
  INFO("damping " << damping << ", " << rows << " rows");
  at::Tensor x = normals({rows, 12}, 4), y = normals({rows, 5}, 5) + 2;
  x.select(1, 3).mul_(1e-2);
  x.select(1, 7).add_(30);
  y.select(1, 1).add_(x.select(1, 7));
  const AffineMap map = fitted(x, y, damping);
  const Matrix wanted = ridge(x, y, damping);
  for (int64_t j = 0; j < 5; ++j) {
    for (int64_t i = 0; i < 12; ++i) CHECK(std::abs(map.weight[j][i].item<double>() - wanted[i][j]) < 1e-6);
    CHECK(std::abs(map.bias[j].item<double>() - wanted[12][j]) < 1e-5);
  }
}

TEST_CASE("of inputs that are zero the intercept is the mean, shrunk as worked") {
  const at::Tensor y = normals({40, 2}, 6) + 3;
  const AffineMap map = fitted(at::zeros({40, 3}), y, .1);
  CHECK(map.weight.eq(0).all().item<bool>());
  // X^T X has one entry that is not 0: 40, the ones. lambda = .1 * 40 / 4, so 40 m / (40 + 1).
  CHECK(map.bias.allclose(y.mean(0) * (40 / 41.0), 1e-6, 1e-6));
}

TEST_CASE("rows may come in pieces") {
  const at::Tensor x = normals({5000, 10}, 7), y = normals({5000, 3}, 8);
  const AffineMap whole = fitted(x, y, 1e-3);
  RidgeFit fit(10, 3, at::kCPU);
  for (int64_t first = 0, count = 1; first < 5000; first += count, count = std::min(5000 - first, 3 * count))
    fit.add(x.narrow(0, first, count), y.narrow(0, first, count));
  const AffineMap pieces = fit.solve(1e-3);
  CHECK(pieces.weight.allclose(whole.weight, 1e-6, 1e-8));
  CHECK(pieces.bias.allclose(whole.bias, 1e-6, 1e-8));
}

TEST_CASE("fits without rows or without a solution are refused") {
  CHECK_THROWS_WITH(RidgeFit(4, 2, at::kCPU).solve(1e-3), ContainsSubstring("no rows"));
  CHECK_THROWS(fitted(at::zeros({10, 3}), normals({10, 2}, 9), 0));
  RidgeFit fit(4, 2, at::kCPU);
  CHECK_THROWS(fit.add(at::zeros({10, 5}), at::zeros({10, 2})));
  CHECK_THROWS(fit.add(at::zeros({10, 4}), at::zeros({9, 2})));
}

TEST_CASE("maps of any type are applied in float32") {
  const at::Tensor x = normals({9, 16}, 10), weight = normals({4, 16}, 11), bias = normals({4}, 12);
  const at::Tensor y = AffineMap{weight, bias}.apply(x);
  CHECK(y.allclose(x.matmul(weight.t()) + bias, 1e-5, 1e-5));
  const AffineMap small{weight.to(at::kBFloat16), bias.to(at::kBFloat16)};
  const AffineMap wide{small.weight.to(at::kFloat), small.bias.to(at::kFloat)};
  CHECK(small.apply(x).equal(wide.apply(x)));
  CHECK(AffineMap{weight, bias}.apply(x.to(at::kHalf)).scalar_type() == at::kFloat);
}

TEST_CASE("relative error is that of all rows together") {
  RelativeError error;
  error.add(at::full({2, 2}, 3.0), at::full({2, 2}, 2.0));  // 4 squares of 1, of 9
  error.add(at::full({1, 2}, 1.0), at::full({1, 2}, 1.0));  // none, of 1
  CHECK(error.value() == Catch::Approx(4.0 / 38));
  CHECK(std::isnan(RelativeError().value()));
}

// The original solves with a pseudo-inverse in float32: its manifest allows for that.
TEST_CASE("ridge fits are the original's", "[golden]") {
  int64_t checked = 0;
  for (const auto& manifest : golden_manifests_or_skip("aquakv"))
    for (const GoldenCase& c : manifest->cases()) {
      if (c.function() != "fit_linear_regression") continue;
      INFO(c.label());
      if (!c.flag("fit_intercept")) {
        WARN(c.name() << " has no intercept: AQUA-KV's fits have one");
        continue;
      }
      at::Tensor x = merged(c.input(0)), y = merged(c.input(1));
      const int64_t rows = std::min(x.size(0), y.size(0));
      x = x.narrow(0, 0, rows);
      y = y.narrow(0, 0, rows);
      const AffineMap map = fitted(x, y, c.number("reg_rate")), wanted{c.output("weight"), c.output("bias")};
      CHECK(relative_distance(map.weight, wanted.weight) < 2e-2);
      CHECK(relative_distance(map.apply(x), wanted.apply(x)) < 3e-3);
      ++checked;
    }
  CHECK(checked > 0);
}

}  // namespace
}  // namespace kvsweep::testing
