// oracle: numpy's quantiles, ratios by hand; contract: swapped sides, errors.
#include "harness/report/statistics/rates.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <vector>

#include "harness/core/error.h"

namespace kvsweep {
using Catch::Approx;

TEST_CASE("quantiles are numpy 2's") {
  const std::vector<double> values{0.3, 1.2, 5.5, 2.2, 9.1, 4.4, 3.3};
  CHECK(quantile(values, 0.1) == Approx(0.84));
  CHECK(quantile(values, 0.9) == Approx(6.94));
  CHECK(quantile(values, 0) == 0.3);
  CHECK(quantile(values, 1) == 9.1);
  const Spread found = spread(values);
  CHECK(found.median == 3.3);
  CHECK(found.quartiles.low == Approx(1.7));
  CHECK(found.quartiles.high == Approx(4.95));
  CHECK(spread(std::vector{4.0}).quartiles == Interval{4, 4});
}

TEST_CASE("a ratio of pairs is the mean of their logarithms, and its inverse with the sides swapped") {
  const std::vector<double> base{10, 20, 10, 40, 10}, other{20, 40, 20, 80, 40};
  const Ratio ratio = paired_ratio(base, other, 0.95, 7), inverse = paired_ratio(other, base, 0.95, 7);
  CHECK(ratio.ratio == Approx(std::pow(2, 6.0 / 5)));  // four pairs of 2, one of 4
  CHECK(inverse.ratio == Approx(1 / ratio.ratio));
  CHECK(inverse.t.low == Approx(1 / ratio.t.high));
  CHECK(ratio.bootstrap.low == Approx(2));                      // (4/5)^5 = 0.33 of the resamples hold no pair of 4
  CHECK(ratio.bootstrap.high == Approx(std::pow(2, 8.0 / 5)));  // of 5 draws 3 or more: 5.8 %, 4 or more: 0.7 %
  // log2 of the pairs: mean 1.2, standard error sqrt(0.8 / 4 / 5) = 0.2; t(0.975, 4) = 2.7764451
  CHECK(std::log2(ratio.t.high) == Approx(1.2 + 0.2 * 2.7764451051977987));
}

TEST_CASE("pairs without variation have an interval of one point") {
  const Ratio same = paired_ratio(std::vector{3.0, 5.0, 7.0}, std::vector{3.0, 5.0, 7.0}, 0.9, 1);
  CHECK(same.ratio == 1);
  CHECK(same.bootstrap == Interval{1, 1});
  CHECK(same.t == Interval{1, 1});
}

TEST_CASE("times that are none are refused") {
  CHECK_THROWS_AS(paired_ratio(std::vector{1.0, 2.0}, std::vector{1.0}, 0.95, 1), DataError);
  CHECK_THROWS_AS(paired_ratio(std::vector{1.0}, std::vector{1.0}, 0.95, 1), DataError);
  CHECK_THROWS_AS(paired_ratio(std::vector{1.0, 0.0}, std::vector{1.0, 1.0}, 0.95, 1), DataError);
  CHECK_THROWS_AS(quantile({}, 0.5), DataError);
  CHECK_THROWS_AS(quantile(std::vector{1.0, std::nan("")}, 0.5), DataError);
  CHECK_THROWS_AS(quantile(std::vector{1.0}, 1.5), DataError);
}

}  // namespace kvsweep
