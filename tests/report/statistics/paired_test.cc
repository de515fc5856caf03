// oracle: textbook sums, all signs enumerated, scipy 1.17; contract: order of items, designs that do not fit.
#include "harness/report/statistics/paired.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "harness/core/error.h"
#include "harness/core/random.h"

namespace kvsweep {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

const std::vector<double> kDifferences{0.5, -0.25, 1, 0, 0.125, 0.75, -0.5, 0.25};

struct Example {
  Design design;
  std::vector<double> d;
};

// Strata of 12, 7 and 20 items, clusters of 1 to 3.
Example example(Weighting weighting, bool clustered) {
  Rng rng(11);
  Example made;
  made.design.weighting = weighting;
  for (const auto& [stratum, items] : std::map<int32_t, int>{{4, 12}, {9, 7}, {-1, 20}})
    for (int i = 0; i < items; ++i) {
      made.design.stratum.push_back(stratum);
      if (clustered) made.design.cluster.push_back(stratum * 100 + i * 2 / (3 + (i % 2)));
      made.d.push_back(rng.normal() + 0.3 * stratum);
    }
  return made;
}

Example shuffled(const Example& from, uint64_t seed) {
  std::vector<size_t> order(from.d.size());
  std::iota(order.begin(), order.end(), size_t{0});
  Rng(seed).shuffle(order);
  Example to{{{}, {}, from.design.weighting}, {}};
  for (const size_t i : order) {
    to.d.push_back(from.d[i]);
    if (!from.design.stratum.empty()) to.design.stratum.push_back(from.design.stratum[i]);
    if (!from.design.cluster.empty()) to.design.cluster.push_back(from.design.cluster[i]);
  }
  return to;
}

}  // namespace

TEST_CASE("a mean of paired differences is tested as scipy does") {
  const MeanDifference mean = mean_difference({}, kDifferences);
  CHECK(mean.t == Approx(1.3206763594884356).epsilon(1e-12));
  CHECK(mean.p_two_sided == Approx(0.22814736607350866).epsilon(1e-12));
  CHECK(mean.p_loss == Approx(0.11407368303675433).epsilon(1e-12));
  CHECK(mean.p_gain == Approx(1 - 0.11407368303675433).epsilon(1e-12));
  CHECK(t_interval(mean, 0.9).low == Approx(-0.10184807038188376).epsilon(1e-12));
  CHECK(t_interval(mean, 0.9).high == Approx(0.5705980703818836).epsilon(1e-12));
  CHECK(mean.degrees == 7);
}

TEST_CASE("strata take their own spread only, and weigh by items or each the same") {
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  const Example made = example(weighting, false);
  std::map<int32_t, std::vector<double>> strata;
  for (size_t i = 0; i < made.d.size(); ++i) strata[made.design.stratum[i]].push_back(made.d[i]);
  double mean = 0, variance = 0, squares = 0;
  for (const auto& [label, values] : strata) {
    const auto n = static_cast<double>(values.size());
    const double weight = weighting == Weighting::kItems ? n / 39 : 1.0 / 3;
    const double own = std::accumulate(values.begin(), values.end(), 0.0) / n;
    double sum = 0;
    for (const double value : values) sum += (value - own) * (value - own);
    mean += weight * own;
    const double part = weight * weight * sum / (n * (n - 1));
    variance += part;
    squares += part * part / (n - 1);
  }
  const MeanDifference found = mean_difference(made.design, made.d);
  CHECK(found.mean == Approx(mean).epsilon(1e-12));
  CHECK(found.standard_error == Approx(std::sqrt(variance)).epsilon(1e-12));
  CHECK(found.degrees == Approx(variance * variance / squares).epsilon(1e-12));
  CHECK(found.strata == 3);
  CHECK(found.clusters == 39);
}

TEST_CASE("clusters of one item each are no clusters, equal items in a cluster count once") {
  Design alone{{}, {7, 3, 5, 1, 2, 9, 8, 0}, Weighting::kItems};
  CHECK(mean_difference(alone, kDifferences).standard_error == mean_difference({}, kDifferences).standard_error);
  std::vector<double> twice;
  Design pairs;
  for (const double d : kDifferences)
    for (int copy = 0; copy < 2; ++copy) {
      pairs.cluster.push_back(static_cast<int32_t>(twice.size() / 2));
      twice.push_back(d);
    }
  const MeanDifference once = mean_difference({}, kDifferences), both = mean_difference(pairs, twice);
  CHECK(both.standard_error == Approx(once.standard_error).epsilon(1e-12));
  CHECK(both.p_two_sided == Approx(once.p_two_sided).epsilon(1e-12));
  CHECK(both.naive_error < both.standard_error);
}

TEST_CASE("without spread a t test says nothing, and with one cluster nothing has an error") {
  const MeanDifference zero = mean_difference({}, std::vector<double>(5, 0.0));
  CHECK(zero.standard_error == 0);
  CHECK(zero.p_two_sided == 1);
  CHECK(t_interval(zero) == Interval{0, 0});
  const MeanDifference same = mean_difference({}, std::vector<double>(5, 1.0));
  CHECK(same.mean == 1);
  CHECK(std::isnan(same.p_loss));
  const MeanDifference one = mean_difference({{}, {3, 3, 3}, Weighting::kItems}, std::vector{0.0, 1.0, 2.0});
  CHECK(std::isnan(one.standard_error));
  CHECK(std::isnan(t_interval(one).low));
  CHECK(std::isnan(mean_difference({{1, 1, 2}, {}, Weighting::kStrata}, std::vector{0.0, 1.0, 2.0}).p_loss));
}

TEST_CASE("flipped signs are enumerated as scipy's permutation test does") {
  const SignFlipTest p = sign_flip_test({}, kDifferences, 1);
  CHECK(p.exact);
  CHECK(p.two_sided == 0.265625);
  CHECK(p.loss == 0.1328125);
  CHECK(p.gain == 0.90625);
  CHECK(sign_flip_test({}, std::vector<double>(30, 0.0), 1).two_sided == 1);
  CHECK(sign_flip_test({}, std::vector<double>(5, 1.0), 1).loss == 1.0 / 32);
}

TEST_CASE("flipped signs of clusters and strata are sums over every choice of signs") {
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  const Design design{{0, 0, 0, 0, 0, 1, 1, 1, 1}, {0, 0, 1, 2, 2, 5, 6, 6, 7}, weighting};
  const std::vector<double> d{0.5, 0.25, -0.5, 1, 0.5, 2, -1, -0.5, 0.75};
  int64_t loss = 0, two_sided = 0;
  const auto mean_of_signs = [&](int signs) {
    double mean = 0;
    for (size_t i = 0; i < d.size(); ++i) {
      const bool flipped = signs >> (design.cluster[i] > 2 ? design.cluster[i] - 2 : design.cluster[i]) & 1;
      const double weight = weighting == Weighting::kItems ? 1.0 / 9 : 0.5 / (i < 5 ? 5 : 4);
      mean += weight * (flipped ? -d[i] : d[i]);
    }
    return mean;
  };
  const double seen = mean_of_signs(0);
  for (int signs = 0; signs < 64; ++signs) {
    loss += mean_of_signs(signs) >= seen - 1e-12;
    two_sided += std::abs(mean_of_signs(signs)) >= std::abs(seen) - 1e-12;
  }
  const SignFlipTest p = sign_flip_test(design, d, 1);
  CHECK(p.loss == static_cast<double>(loss) / 64);
  CHECK(p.two_sided == static_cast<double>(two_sided) / 64);
}

TEST_CASE("drawn signs come close to the t test, differ by seed and never give zero") {
  Rng rng(2);
  std::vector<double> d;
  for (int i = 0; i < 200; ++i) d.push_back(rng.normal() + 0.1);
  const SignFlipTest p = sign_flip_test({}, d, 1);
  CHECK_FALSE(p.exact);
  CHECK(p.loss == Approx(mean_difference({}, d).p_loss).margin(0.015));  // 3 standard errors of 10000 draws
  CHECK(p.loss + p.gain == Approx(1).margin(1e-3));
  CHECK(sign_flip_test({}, d, 1).loss == p.loss);
  CHECK(sign_flip_test({}, d, 2).loss != p.loss);
  CHECK(sign_flip_test({}, std::vector<double>(100, 1.0), 1, 999).loss == 1.0 / 1000);
}

TEST_CASE("signs are counted by cluster, zeros not at all") {
  const SignTest signs = sign_test({{}, {0, 0, 1, 2, 2, 3, 4, 5}, Weighting::kItems}, kDifferences);
  CHECK(signs.positive == 5);  // 0.25, 1, 0.125, 0.75, 0.25
  CHECK(signs.negative == 1);
  CHECK(signs.p.loss == mcnemar(5, 1).loss);
}

TEST_CASE("no number depends on the order of items") {
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  const bool clustered = GENERATE(false, true);
  const Example made = example(weighting, clustered);
  const MeanDifference mean = mean_difference(made.design, made.d);
  const SignFlipTest flips = sign_flip_test(made.design, made.d, 5);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const Example other = shuffled(made, seed);
    const MeanDifference again = mean_difference(other.design, other.d);
    CHECK(again.mean == mean.mean);
    CHECK(again.standard_error == mean.standard_error);
    CHECK(again.naive_error == mean.naive_error);
    CHECK(again.p_two_sided == mean.p_two_sided);
    CHECK(sign_flip_test(other.design, other.d, 5).two_sided == flips.two_sided);
  }
}

TEST_CASE("designs and differences that do not fit are refused by item") {
  const std::vector<double> d{1, 2, 3};
  CHECK_THROWS_AS(mean_difference({}, {}), DataError);
  CHECK_THROWS_AS(mean_difference({{1, 2}, {}, Weighting::kItems}, d), DataError);
  CHECK_THROWS_AS(mean_difference({{}, {1}, Weighting::kItems}, d), DataError);
  CHECK_THROWS_MATCHES(mean_difference({{1, 1, 2}, {8, 7, 8}, Weighting::kItems}, d), DataError,
                       MessageMatches(ContainsSubstring("cluster 8") && ContainsSubstring("item 2")));
  CHECK_THROWS_MATCHES(mean_difference({}, std::vector{1.0, std::nan(""), 2.0}), DataError,
                       MessageMatches(ContainsSubstring("item 1 is nan")));
  CHECK_THROWS_AS(sign_flip_test({}, std::vector<double>{1, INFINITY}, 1), DataError);
  CHECK_THROWS_AS(t_interval(mean_difference({}, d), 1.5), DataError);
}

}  // namespace kvsweep
