// oracle: the sheet's table of detectable effects, sums in plain loops, scipy 1.17; contract: errors.
#include "harness/report/statistics/power.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <limits>

#include "harness/core/error.h"

namespace kvsweep {
using Catch::Approx;
using Catch::Matchers::WithinAbs;

TEST_CASE("detectable losses are those of the published table") {
  struct Row {
    int64_t items;
    double flips, points;
  };
  const Row rows[] = {{200, 0.05, 3.93},   {200, 0.10, 5.56},  {250, 0.05, 3.52},   {250, 0.10, 4.97},
                      {1000, 0.05, 1.76},  {1000, 0.10, 2.49}, {1319, 0.05, 1.53},  {1319, 0.10, 2.17},
                      {4096, 0.05, 0.87},  {4096, 0.10, 1.23}, {14042, 0.01, 0.21}, {14042, 0.02, 0.30},
                      {14042, 0.05, 0.47}, {14042, 0.10, 0.66}};
  CHECK_THAT(PowerTarget{}.factor(), WithinAbs(2.4865, 5e-5));
  for (const Row& row : rows) {
    INFO(row.items << " items, flips " << row.flips);
    CHECK_THAT(100 * detectable_by_flips(row.items, row.flips), WithinAbs(row.points, 0.005));
  }
}

TEST_CASE("items needed and the unpaired test are those of the published table") {
  CHECK(items_for_flips(0.05, 0.01) == 3086);
  CHECK(items_for_flips(0.05, 0.02) == 767);
  CHECK(items_for_flips(0.02, 0.005) == 4940);
  CHECK_THAT(100 * detectable_unpaired(1319, 0.5), WithinAbs(4.84, 0.005));
  CHECK_THAT(100 * detectable_unpaired(14042, 0.5), WithinAbs(1.48, 0.005));
}

TEST_CASE("items for a deviation are where the detectable effect reaches it") {
  const int64_t items = items_for_deviation(0.3, 0.02);
  CHECK(detectable_by_error(0.3 / std::sqrt(static_cast<double>(items)), INFINITY) <= 0.02);
  CHECK(detectable_by_error(0.3 / std::sqrt(static_cast<double>(items - 1)), INFINITY) > 0.02);
}

TEST_CASE("a two-sided test and few degrees of freedom detect less") {
  CHECK(PowerTarget{.two_sided = true}.factor() == Approx(1.959963984540054 + 0.8416212335729143));
  // scipy 1.17: t.ppf(0.95, 4) + t.ppf(0.8, 4)
  CHECK(detectable_by_error(1, 4) == Approx(2.131846786326649 + 0.9409645773640395).epsilon(1e-9));
  CHECK(detectable_by_error(0.01, std::numeric_limits<double>::infinity()) == Approx(0.01 * PowerTarget{}.factor()));
}

TEST_CASE("the power of McNemar's test is the sum over all counts of flips") {
  // scipy 1.17, binom.pmf(m, n, f) * binom.sf(c(m) - 1, m, (f + D) / 2f) over all m
  CHECK(power_of_mcnemar(50, 0.2, 0.1) == Approx(0.3479479761747842).epsilon(1e-10));
  CHECK(power_of_mcnemar(200, 0.05, 0.04) == Approx(0.7709344545557183).epsilon(1e-10));
  CHECK(power_of_mcnemar(100, 0.3, 0.15) == Approx(0.8478927158496111).epsilon(1e-10));
  CHECK(power_of_mcnemar(200, 0.05, 0) < 0.05);
  CHECK(power_of_mcnemar(200, 0, 0) == 0);
  // 5 items that are all lost: rejected at 1/32; 4 are too few
  CHECK(power_of_mcnemar(5, 1, 1) == Approx(1));
  CHECK(power_of_mcnemar(4, 1, 1) == 0);
}

TEST_CASE("the loss that McNemar's test detects is where its power is reached, more flips where there are too few") {
  for (const double flips : {0.05, 0.2}) {
    const double loss = detectable_by_mcnemar(1000, flips);
    CHECK(power_of_mcnemar(1000, flips, loss) >= 0.8);
    CHECK(power_of_mcnemar(1000, flips, loss - 1e-5) < 0.8);
    CHECK(loss > detectable_by_flips(1000, flips));
    CHECK(loss < 1.1 * detectable_by_flips(1000, flips));
  }
  // 50 items with 1 % flips: all would have to be losses, of which a test needs 5
  const double none = detectable_by_mcnemar(50, 0.01);
  double fewer = 0, ways = 1;  // P(Bin(50, none) < 5)
  for (int k = 0; k < 5; ++k) {
    fewer += ways * std::pow(none, k) * std::pow(1 - none, 50 - k);
    ways *= (50.0 - k) / (k + 1);
  }
  CHECK_THAT(1 - fewer, WithinAbs(0.8, 1e-5));
  CHECK_THAT(detectable_by_mcnemar(50, 0), WithinAbs(none, 2e-6));
  CHECK(std::isnan(detectable_by_mcnemar(4, 0.5)));
}

TEST_CASE("effects and targets out of range are refused") {
  CHECK_THROWS_AS(detectable_by_flips(0, 0.1), DataError);
  CHECK_THROWS_AS(detectable_by_flips(10, 1.1), DataError);
  CHECK_THROWS_AS(PowerTarget{.alpha = 0}.factor(), DataError);
  CHECK_THROWS_AS(PowerTarget{.power = 1}.factor(), DataError);
  CHECK_THROWS_AS(items_for_flips(0.01, 0.2), DataError);
  CHECK_THROWS_AS(items_for_deviation(0.1, 0), DataError);
  CHECK_THROWS_AS(power_of_mcnemar(10, 0.1, 0.2), DataError);
  CHECK_THROWS_AS(detectable_by_error(-1, 5), DataError);
}

}  // namespace kvsweep
