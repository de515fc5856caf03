// oracle: Clopper-Pearson, Beta and Dirichlet integrals, drawn weights; contract: monotone, certain only when certain.
#include "harness/report/statistics/margin.h"

#include <algorithm>
#include <boost/math/distributions/beta.hpp>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/report/statistics/exponential_sum.h"
#include "harness/report/statistics/paired.h"
#include "harness/report/statistics/proportion.h"

namespace kvsweep {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Catch::Matchers::WithinAbs;

namespace {

std::vector<double> flips(int64_t n, int64_t lost, int64_t gained) {
  std::vector<double> d(static_cast<size_t>(n), 0.0);
  std::fill_n(d.begin(), lost, 1.0);
  std::fill_n(d.begin() + lost, gained, -1.0);
  return d;
}

std::vector<Interval> exactly(const std::vector<double>& d) {
  std::vector<Interval> items;
  for (const double value : d) items.push_back({value, value});
  return items;
}

Verdict verdict(const std::vector<double>& d, double max_loss) {
  return non_inferiority({}, d, {.max_loss = max_loss}).verdict;
}

}  // namespace

TEST_CASE("two exponentials, and many that are alike, have the sums' probabilities of the textbook") {
  CHECK_THAT(probability_of_positive_sum(std::vector{2.0, -3.0}), WithinAbs(2.0 / 5, 1e-9));
  CHECK_THAT(probability_of_positive_sum(std::vector{3.0, -2.0}), WithinAbs(3.0 / 5, 1e-9));
  // y = 1 - p (k + 1 times) and -p (n - k): the share of the first is Beta(k + 1, n - k), and p its threshold
  for (const int n : {1, 5, 40, 1000, 14042})
    for (const int k : {0, n / 50, n / 2, n - 1})
      for (const double p : {0.001, 0.02, 0.3, 0.5, 0.97}) {
        INFO(k << " of " << n << " at " << p);
        std::vector<double> y(static_cast<size_t>(k + 1), 1 - p);
        y.insert(y.end(), static_cast<size_t>(n - k), -p);
        const boost::math::beta_distribution<double> beta(k + 1, n - k);
        CHECK_THAT(probability_of_positive_sum(y), WithinAbs(boost::math::cdf(boost::math::complement(beta, p)), 1e-9));
      }
  CHECK(probability_of_positive_sum(std::vector{0.0, -1.0}) == 0);
  CHECK(probability_of_positive_sum(std::vector{0.0, 1.0}) == 1);
}

// Distinct positive y_i: P(sum > 0) = sum_i prod_{j != i} y_i / (y_i - y_j) by partial fractions.
TEST_CASE("sums of exponentials that all differ have the probability of their partial fractions") {
  const std::vector<double> y{0.9, 0.5, 0.2, -0.1, -0.3, -0.35, -0.8, -1.2};
  double wanted = 0;
  for (const double a : y) {
    double product = a > 0 ? 1 : 0;
    for (const double b : y) product *= a == b ? 1 : a / (a - b);
    wanted += product;
  }
  CHECK_THAT(probability_of_positive_sum(y), WithinAbs(wanted, 1e-9));
}

TEST_CASE("losses without gains are bounded as Clopper and Pearson do") {
  for (const int lost : {0, 1, 7, 30})
    for (const int n : {31, 250}) {
      INFO(lost << " of " << n);
      const NonInferiority found = non_inferiority({}, flips(n, lost, 0), {.max_loss = 0.01});
      CHECK_THAT(found.bounds.high, WithinAbs(clopper_pearson(lost, n, 0.9).high, 1e-8));
      // Gains alone: the lower bound, turned around.
      CHECK_THAT(non_inferiority({}, flips(n, 0, lost), {.max_loss = 0.01}).bounds.low,
                 WithinAbs(-clopper_pearson(lost, n, 0.9).high, 1e-8));
    }
}

// 0.99^298 = 0.0500, 0.99^299 = 0.0495: the first n at which a true loss of 1 % is unlikely to leave no trace.
TEST_CASE("a set without flips passes a margin of one point from 299 items on") {
  CHECK(verdict(flips(298, 0, 0), 0.01) == Verdict::kInconclusive);
  CHECK(verdict(flips(299, 0, 0), 0.01) == Verdict::kPass);
  CHECK(non_inferiority({}, flips(298, 0, 0), {.max_loss = 0.01}).items_needed == 299);
}

TEST_CASE("graded differences have the probabilities of drawn weights") {
  Rng rng(4);
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  Design design{{}, {}, weighting};
  std::vector<double> d;
  for (int i = 0; i < 30; ++i) {
    design.stratum.push_back(i < 20 ? 0 : 1);
    design.cluster.push_back(i < 20 ? i / 3 : 100 + i / 2);
    d.push_back(std::round(8 * rng.uniform() - 3) / 8);
  }
  const double max_loss = 0.3;
  const NonInferiority found = non_inferiority(design, d, {.max_loss = max_loss});
  // By hand: items weigh 1/30, or 1/40 and 1/20; the heaviest cluster has 3 of stratum 0, or 2 of stratum 1.
  const bool items = weighting == Weighting::kItems;
  const double heaviest = items ? 3.0 / 30 : 2.0 / 20;
  int64_t above = 0, below = 0;
  constexpr int kDraws = 400000;
  for (int draw = 0; draw < kDraws; ++draw) {
    double sum = 0, extra = 0, weight = 0;
    for (size_t i = 0; i < d.size(); ++i) {
      if (i == 0 || design.cluster[i] != design.cluster[i - 1]) weight = -std::log(1 - rng.uniform());
      sum += weight * (items ? 1.0 / 30 : i < 20 ? 1.0 / 40 : 1.0 / 20) * (d[i] - max_loss);
    }
    extra = -std::log(1 - rng.uniform()) * heaviest;
    above += sum + extra * (1 - max_loss) >= 0;
    below += sum + extra * (-1 - max_loss) <= 0;
  }
  CHECK(found.p_pass == Approx(static_cast<double>(above) / kDraws).margin(0.0025));  // 3 standard errors
  CHECK(found.p_fail == Approx(static_cast<double>(below) / kDraws).margin(0.0025));
}

TEST_CASE("bounds are where p is 5 %, and the verdict is theirs") {
  for (const auto& [lost, gained] : {std::pair{5, 3}, {20, 2}, {0, 4}, {60, 0}, {12, 9}}) {
    const std::vector<double> d = flips(400, lost, gained);
    const NonInferiority found = non_inferiority({}, d, {.max_loss = 0.02});
    CHECK_THAT(non_inferiority({}, d, {.max_loss = found.bounds.high}).p_pass, WithinAbs(0.05, 1e-6));
    CHECK_THAT(non_inferiority({}, d, {.max_loss = found.bounds.low}).p_fail, WithinAbs(0.05, 1e-6));
    CHECK(found.verdict == verdict_of(found.bounds, 0.02));
    CHECK(found.loss == Approx((lost - gained) / 400.0));
  }
  CHECK(verdict(flips(400, 60, 0), 0.02) == Verdict::kFail);
  CHECK(verdict(flips(400, 12, 9), 0.02) == Verdict::kInconclusive);
  CHECK(verdict(flips(4000, 120, 90), 0.02) == Verdict::kPass);
}

TEST_CASE("all items at an end of the range are bounded by it") {
  CHECK(non_inferiority({}, flips(10, 10, 0), {.max_loss = 0.5}).bounds.high == 1);
  CHECK(non_inferiority({}, flips(10, 0, 10), {.max_loss = 0.5}).bounds.low == -1);
}

TEST_CASE("a verdict needs the items that it says, at the loss and spread seen") {
  const NonInferiority small = non_inferiority({}, flips(200, 6, 4), {.max_loss = 0.03});
  REQUIRE(small.verdict == Verdict::kInconclusive);
  // Flips in proportion: at that size the bound is z(power) standard errors short of the margin.
  const int64_t n = small.items_needed, scale = (n + 199) / 200;
  const NonInferiority large = non_inferiority({}, flips(200 * scale, 6 * scale, 4 * scale), {.max_loss = 0.03});
  CHECK(large.verdict == Verdict::kPass);
  CHECK(large.p_pass < 0.012);  // at power 0.8: 1 - Phi(2.4865) = 0.0065
  CHECK(large.p_pass > 0.003);
  CHECK(non_inferiority({}, flips(100, 3, 0), {.max_loss = 0.03}).items_needed == 0);  // seen exactly at the margin
}

TEST_CASE("without a range the bounds are Student's") {
  Rng rng(8);
  std::vector<double> d;
  for (int i = 0; i < 40; ++i) d.push_back(0.02 + 0.1 * rng.normal());
  const NonInferiority found = non_inferiority({}, d, {.max_loss = 0.1, .range = std::nullopt});
  CHECK(found.bounds == t_interval(mean_difference({}, d), 0.9));
  std::vector<double> shifted;
  for (const double value : d) shifted.push_back(value - 0.1);
  CHECK(found.p_pass == Approx(mean_difference({}, shifted).p_gain).epsilon(1e-12));
  CHECK(found.p_fail == Approx(mean_difference({}, shifted).p_loss).epsilon(1e-12));
  CHECK(found.verdict == Verdict::kPass);
  const Margin none{.max_loss = 0.1, .range = std::nullopt};
  CHECK(non_inferiority({}, std::vector<double>(9, 0.0), none).verdict == Verdict::kPass);
  CHECK(non_inferiority({}, std::vector{0.05}, none).verdict == Verdict::kInconclusive);
}

TEST_CASE("equivalence asks for both sides") {
  const Equivalence yes = equivalence({}, flips(2000, 20, 20), {.max_loss = 0.01});
  CHECK(yes.equivalent);
  const Equivalence lossy = equivalence({}, flips(2000, 60, 10), {.max_loss = 0.03});
  CHECK(lossy.p == Approx(non_inferiority({}, flips(2000, 60, 10), {.max_loss = 0.03}).p_pass));
  const Equivalence gains = equivalence({}, flips(2000, 0, 50), {.max_loss = 0.02});
  CHECK_FALSE(gains.equivalent);
  CHECK(equivalence({}, flips(2000, 10, 60), {.max_loss = 0.03}).p == Approx(lossy.p));  // the same, turned around
  CHECK_FALSE(equivalence({}, flips(100, 0, 0), {.max_loss = 0.01}).equivalent);
}

TEST_CASE("more loss of an item never makes a verdict better") {
  Rng rng(5);
  for (int round = 0; round < 50; ++round) {
    std::vector<double> d;
    for (int i = 0; i < 60; ++i) d.push_back(rng.below(3) == 0 ? 2 * rng.uniform() - 1 : 0);
    const NonInferiority before = non_inferiority({}, d, {.max_loss = 0.1});
    double& item = d[static_cast<size_t>(rng.below(60))];
    item += (1 - item) * rng.uniform();
    const NonInferiority after = non_inferiority({}, d, {.max_loss = 0.1});
    CHECK(after.p_pass >= before.p_pass - 1e-10);
    CHECK(after.p_fail <= before.p_fail + 1e-10);
  }
}

TEST_CASE("a verdict is certain exactly when no completion can change it") {
  Rng rng(6);
  int certain = 0;
  for (int round = 0; round < 40; ++round) {
    // 9 items of which the last 4 are open; completions are all 81 of {-1, 0, 1}, those at the ends among them
    std::vector<Interval> possible;
    const double max_loss = rng.uniform() - 0.5;
    for (int i = 0; i < 5; ++i)
      possible.push_back({double(rng.below(3)) - 1, 0}), possible.back().high = possible.back().low;
    for (int i = 0; i < 4; ++i) {
      const double low = double(rng.below(2)) - 1;  // full precision was right: [0, 1]; wrong: [-1, 0]
      possible.push_back({low, low + 1});
    }
    std::vector<int> seen(3, 0);
    for (int code = 0; code < 16; ++code) {
      std::vector<double> d;
      for (size_t i = 0; i < 9; ++i) d.push_back(i < 5 || !(code >> (i - 5) & 1) ? possible[i].low : possible[i].high);
      ++seen[static_cast<size_t>(verdict(d, max_loss))];
    }
    const auto found = certain_verdict({}, possible, {.max_loss = max_loss});
    const bool one = std::count(seen.begin(), seen.end(), 0) == 2;
    CHECK(found.has_value() == one);
    if (found) CHECK(seen[static_cast<size_t>(*found)] == 16);
    certain += found.has_value();
  }
  CHECK(certain > 5);
  CHECK(certain < 35);
}

TEST_CASE("a broken scheme fails before the end, a good one passes at the end") {
  std::vector<Interval> possible(200, {-1, 1});
  const Margin margin{.max_loss = 0.02};
  CHECK_FALSE(certain_verdict({}, possible, margin));
  size_t fails_at = 0;
  for (size_t i = 0; i < 200 && fails_at == 0; ++i) {
    possible[i] = {1, 1};
    if (certain_verdict({}, possible, margin) == Verdict::kFail) fails_at = i + 1;
  }
  CHECK(fails_at > 100);
  CHECK(fails_at < 130);
  // With all right in full precision an open item can lose but not gain: far fewer are enough.
  possible.assign(200, {0, 1});
  fails_at = 0;
  for (size_t i = 0; i < 200 && fails_at == 0; ++i) {
    possible[i] = {1, 1};
    if (certain_verdict({}, possible, margin) == Verdict::kFail) fails_at = i + 1;
  }
  CHECK(fails_at > 4);
  CHECK(fails_at < 20);
  for (const auto& [lost, gained] : {std::pair{1, 2}, {9, 1}, {40, 0}})
    CHECK(certain_verdict({}, exactly(flips(200, lost, gained)), margin) == verdict(flips(200, lost, gained), 0.02));
}

TEST_CASE("margins and differences that make no test are refused") {
  const std::vector<double> d{0, 1, 0};
  CHECK_THROWS_AS(non_inferiority({}, d, {.max_loss = 1}), DataError);
  CHECK_THROWS_AS(non_inferiority({}, d, {.max_loss = std::nan("")}), DataError);
  CHECK_THROWS_AS(non_inferiority({}, d, {.max_loss = 0.1, .confidence = 0.4}), DataError);
  CHECK_THROWS_MATCHES(non_inferiority({}, std::vector{0.0, 1.5}, {.max_loss = 0.1}), DataError,
                       MessageMatches(ContainsSubstring("item 1 is 1.5")));
  CHECK_THROWS_AS(equivalence({}, d, {.max_loss = 0}), DataError);
  CHECK_THROWS_AS(certain_verdict({}, exactly(d), {.max_loss = 0.1, .range = std::nullopt}), DataError);
  CHECK_THROWS_AS(certain_verdict({}, std::vector<Interval>{{0.5, 0.2}}, {.max_loss = 0.1}), DataError);
  CHECK_THROWS_AS(certain_verdict({}, std::vector<Interval>{{0, 2}}, {.max_loss = 0.1}), DataError);
  CHECK_THROWS_AS(certain_verdict({}, {}, {.max_loss = 0.1}), DataError);
}

}  // namespace kvsweep
