// oracle: binomial sums in plain loops, published tables; contract: symmetry, errors.
#include "harness/report/statistics/proportion.h"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <vector>

#include "harness/core/error.h"

namespace kvsweep {
using Catch::Approx;

namespace {

double choose(int n, int k) {
  double ways = 1;
  for (int i = 1; i <= k; ++i) ways *= static_cast<double>(n - k + i) / i;
  return ways;
}

double binomial(int n, int k, double p) {
  return choose(n, k) * std::pow(p, k) * std::pow(1 - p, n - k);
}

}  // namespace

TEST_CASE("McNemar's tests are sums over all ways to split the flips") {
  for (int lost = 0; lost <= 12; ++lost)
    for (int gained = 0; lost + gained <= 20; ++gained) {
      INFO(lost << " lost, " << gained << " gained");
      const int flips = lost + gained;
      double loss = 0, gain = 0, lower = 0;
      for (int k = 0; k <= flips; ++k) {
        const double chance = binomial(flips, k, 0.5);
        loss += k >= lost ? chance : 0;
        gain += k >= gained ? chance : 0;
        lower += k <= std::min(lost, gained) ? chance : 0;
      }
      const McNemar p = mcnemar(lost, gained);
      CHECK(p.loss == Approx(loss).epsilon(1e-12));
      CHECK(p.gain == Approx(gain).epsilon(1e-12));
      CHECK(p.two_sided == Approx(std::min(1.0, 2 * lower)).epsilon(1e-12));
      CHECK(p.mid_p == Approx(std::min(1.0, 2 * lower - binomial(flips, lost, 0.5))).epsilon(1e-12));
    }
}

TEST_CASE("five losses without a gain are the fewest that a one-sided test sees, six for a two-sided one") {
  CHECK(mcnemar(4, 0).loss > 0.05);
  CHECK(mcnemar(5, 0).loss == Approx(1.0 / 32));
  CHECK(mcnemar(5, 0).two_sided > 0.05);
  CHECK(mcnemar(6, 0).two_sided == Approx(2.0 / 64));
}

// The ends of Clopper-Pearson are where one tail is half of what is left over.
TEST_CASE("an exact interval's ends leave 2.5 % in each tail") {
  for (const int k : {1, 7, 15, 29}) {
    const Interval interval = clopper_pearson(k, 30);
    double above = 0, below = 0;
    for (int i = k; i <= 30; ++i) above += binomial(30, i, interval.low);
    for (int i = 0; i <= k; ++i) below += binomial(30, i, interval.high);
    CHECK(above == Approx(0.025).epsilon(1e-9));
    CHECK(below == Approx(0.025).epsilon(1e-9));
  }
}

// At an end p of Wilson's interval (k/n - p)^2 = z^2 p (1 - p) / n.
TEST_CASE("a score interval's ends solve the score equation") {
  const double z = 1.2815515655446004;  // 80 %
  for (const int k : {1, 7, 15, 29}) {
    const Interval interval = wilson(k, 30, 0.8);
    for (const double p : {interval.low, interval.high})
      CHECK(std::pow(k / 30.0 - p, 2) == Approx(z * z * p * (1 - p) / 30).epsilon(1e-10));
  }
}

TEST_CASE("losses and gains that trade places turn the interval of a paired difference around") {
  const Interval one = newcombe_paired({120, 14, 5, 61}, 0.9), other = newcombe_paired({120, 5, 14, 61}, 0.9);
  CHECK(one.low == Approx(-other.high));
  CHECK(one.high == Approx(-other.low));
  CHECK(newcombe_paired({0, 0, 0, 10}).low < 0);
}

TEST_CASE("counts that are no counts are refused") {
  CHECK_THROWS_AS(wilson(3, 2), DataError);
  CHECK_THROWS_AS(wilson(-1, 2), DataError);
  CHECK_THROWS_AS(wilson(0, 0), DataError);
  CHECK_THROWS_AS(wilson(1, 2, 1.0), DataError);
  CHECK_THROWS_AS(clopper_pearson(1, 2, 0), DataError);
  CHECK_THROWS_AS(mcnemar(-1, 0), DataError);
  CHECK_THROWS_AS(newcombe_paired({5, -1, 0, 0}), DataError);
  CHECK_THROWS_AS(newcombe_paired({}), DataError);
}

}  // namespace kvsweep
