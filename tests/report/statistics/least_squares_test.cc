// oracle: lines and planes whose least squares are known from sums; contract: errors.
#include "harness/report/statistics/least_squares.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "harness/core/error.h"
#include "harness/core/random.h"

namespace kvsweep {
namespace {

TEST_CASE("a line through points without noise is found without error") {
  const Fit fit = fit_line({256, 512, 1024, 4096}, {30 + 0.256, 30 + 0.512, 30 + 1.024, 30 + 4.096});
  CHECK(fit.coefficients[0] == Catch::Approx(30));
  CHECK(fit.coefficients[1] == Catch::Approx(1e-3));
  CHECK(fit.standard_error(0) < 1e-10);
  CHECK(fit.standard_error(1) < 1e-13);
}

TEST_CASE("a line's coefficients and standard errors are those of the textbook's sums") {
  Rng rng(5);
  std::vector<double> x, y;
  for (int i = 0; i < 25; ++i) {
    x.push_back(256.0 * (1 + i % 5));
    y.push_back(40 + 0.02 * x.back() + rng.normal());
  }
  double mean_x = 0, mean_y = 0, sxx = 0, sxy = 0, rss = 0;
  for (int i = 0; i < 25; ++i) mean_x += x[i] / 25, mean_y += y[i] / 25;
  for (int i = 0; i < 25; ++i) sxx += (x[i] - mean_x) * (x[i] - mean_x), sxy += (x[i] - mean_x) * (y[i] - mean_y);
  const double slope = sxy / sxx, intercept = mean_y - slope * mean_x;
  for (int i = 0; i < 25; ++i) rss += std::pow(y[i] - intercept - slope * x[i], 2);
  const double s2 = rss / 23;
  const Fit fit = fit_line(x, y);
  CHECK(fit.coefficients[0] == Catch::Approx(intercept).epsilon(1e-10));
  CHECK(fit.coefficients[1] == Catch::Approx(slope).epsilon(1e-10));
  CHECK(fit.standard_error(1) == Catch::Approx(std::sqrt(s2 / sxx)).epsilon(1e-10));
  CHECK(fit.standard_error(0) == Catch::Approx(std::sqrt(s2 * (1.0 / 25 + mean_x * mean_x / sxx))).epsilon(1e-10));
}

// With columns that are orthogonal to one another each coefficient stands alone: c = x.y / x.x, SE = s / |x|.
TEST_CASE("a plane over a balanced factorial is that of each factor alone") {
  const double levels[] = {-3, -1, 1, 3}, noise[] = {0.5, -0.25, 0.125, -1};
  std::vector<std::vector<double>> rows;
  std::vector<double> y;
  double rss = 0, sum = 0, with_k = 0, with_v = 0;
  for (int k = 0; k < 4; ++k)
    for (int v = 0; v < 4; ++v) {
      rows.push_back({1, levels[k], levels[v]});
      y.push_back(7 + 2 * levels[k] - 0.5 * levels[v] + noise[(3 * k + v) % 4] * (1 + v));
      sum += y.back(), with_k += levels[k] * y.back(), with_v += levels[v] * y.back();
    }
  const double c0 = sum / 16, ck = with_k / 80, cv = with_v / 80;  // 4 * (9 + 1 + 1 + 9) = 80
  for (int i = 0; i < 16; ++i) rss += std::pow(y[i] - c0 - ck * rows[i][1] - cv * rows[i][2], 2);
  const Fit fit = least_squares(rows, y);
  CHECK(fit.coefficients[0] == Catch::Approx(c0));
  CHECK(fit.coefficients[1] == Catch::Approx(ck));
  CHECK(fit.coefficients[2] == Catch::Approx(cv));
  CHECK(fit.standard_error(0) == Catch::Approx(std::sqrt(rss / 13 / 16)));
  CHECK(fit.standard_error(1) == Catch::Approx(std::sqrt(rss / 13 / 80)));
  CHECK(fit.difference_error(1, 2) == Catch::Approx(std::sqrt(2 * rss / 13 / 80)));
}

TEST_CASE("the error of a difference takes the covariance with it") {
  // y = a + b x: far from x = 0 the errors of a and b are opposite, and a - b is less certain than either.
  const Fit fit = fit_line({100, 101, 102, 103}, {1, 2, 2, 4});
  CHECK(fit.covariance[0][1] < 0);
  CHECK(fit.difference_error(0, 1) > fit.standard_error(0));
}

TEST_CASE("a coefficient's interval is Student's") {
  // scipy 1.17, linregress and t.ppf(0.975, 4)
  const Fit fit = fit_line({1, 2, 3, 4, 5, 6}, {2.1, 3.9, 6.2, 7.8, 10.1, 11.7});
  CHECK(fit.degrees == 4);
  CHECK(fit.standard_error(1) == Catch::Approx(0.04583317872577735).epsilon(1e-10));
  CHECK(fit.interval(1).low == Catch::Approx(1.821318123842588).epsilon(1e-10));
  CHECK(fit.interval(1).high == Catch::Approx(2.0758247333002684).epsilon(1e-10));
  CHECK_THROWS_AS(fit.interval(1, 1), DataError);
}

TEST_CASE("two slopes differ when the interval of their difference leaves out zero") {
  const double levels[] = {-3, -1, 1, 3};
  const auto plane = [&](double k_slope, double v_slope) {
    Rng rng(7);
    std::vector<std::vector<double>> rows;
    std::vector<double> y;
    for (const double k : levels)
      for (const double v : levels) {
        rows.push_back({1, k, v});
        y.push_back(5 + k_slope * k + v_slope * v + 0.1 * rng.normal());
      }
    return least_squares(rows, y);
  };
  const Fit same = plane(0.5, 0.5), different = plane(0.5, 0.4);
  CHECK(same.difference_p(1, 2) > 0.05);
  CHECK(same.difference_interval(1, 2).low < 0);
  CHECK(same.difference_interval(1, 2).high > 0);
  CHECK(different.difference_p(1, 2) < 0.05);
  CHECK(different.difference_interval(1, 2).low > 0);
  // p is where the interval touches zero.
  const double touching = 1 - different.difference_p(1, 2);
  CHECK(different.difference_interval(1, 2, touching).low == Catch::Approx(0).margin(1e-9));
  CHECK(different.difference_p(2, 1) == different.difference_p(1, 2));
  CHECK(different.difference_p(1, 1) == 1);
}

TEST_CASE("as many points as coefficients leave no error to state, fewer are refused") {
  const Fit fit = fit_line({1, 2}, {3, 5});
  CHECK(fit.coefficients[1] == Catch::Approx(2));
  CHECK(std::isnan(fit.standard_error(1)));
  CHECK(std::isnan(fit.interval(1).low));
  CHECK(std::isnan(fit.difference_p(0, 1)));
  CHECK_THROWS_AS(fit_line({1}, {3}), DataError);
  CHECK_THROWS_AS(fit_line({2, 2, 2}, {3, 4, 5}), DataError);
  CHECK_THROWS_AS(least_squares({{1, 2}, {1}}, {3, 4}), DataError);
  CHECK_THROWS_AS(least_squares({}, {}), DataError);
  CHECK_THROWS_AS(fit_line({1, 2, std::nan("")}, {3, 4, 5}), DataError);
  CHECK_THROWS_AS(fit_line({1, 2, 3}, {3, 4, INFINITY}), DataError);
}

}  // namespace
}  // namespace kvsweep
