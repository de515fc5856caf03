// oracle: every resample of tiny sets enumerated, the jackknife by hand, scipy 1.17; contract: threads, seeds, columns
// and the order of items.
#include "harness/report/statistics/bootstrap.h"

#include <algorithm>
#include <catch2/benchmark/catch_benchmark.hpp>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <numeric>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/report/statistics/paired.h"

namespace kvsweep {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

bool same(const Bootstrapped& a, const Bootstrapped& b) {
  return a.mean == b.mean && a.standard_error == b.standard_error && a.percentile == b.percentile && a.bca == b.bca &&
         a.p_loss == b.p_loss && a.p_gain == b.p_gain;
}

// Means of every resample of the clusters {sum, items} of strata that are given as lists.
using Clusters = std::vector<std::pair<double, double>>;
std::vector<double> all_resamples(const std::vector<Clusters>& strata, Weighting weighting) {
  std::vector<double> means;
  int64_t total = 1;
  for (const Clusters& stratum : strata)
    for (size_t c = 0; c < stratum.size(); ++c) total *= static_cast<int64_t>(stratum.size());
  for (int64_t code = 0; code < total; ++code) {
    int64_t rest = code;
    double sum = 0, items = 0, of_strata = 0;
    for (const Clusters& stratum : strata) {
      const auto count = static_cast<int64_t>(stratum.size());
      double own = 0, own_items = 0;
      for (int64_t c = 0; c < count; ++c, rest /= count) {
        own += stratum[static_cast<size_t>(rest % count)].first;
        own_items += stratum[static_cast<size_t>(rest % count)].second;
      }
      sum += own, items += own_items;
      of_strata += own / own_items / static_cast<double>(strata.size());
    }
    means.push_back(weighting == Weighting::kItems ? sum / items : of_strata);
  }
  return means;
}

double share(const std::vector<double>& means, auto holds) {
  return static_cast<double>(std::count_if(means.begin(), means.end(), holds)) / static_cast<double>(means.size());
}

double deviation(const std::vector<double>& means) {
  const double mean = std::accumulate(means.begin(), means.end(), 0.0) / static_cast<double>(means.size());
  double square = 0;
  for (const double value : means) square += (value - mean) * (value - mean);
  return std::sqrt(square / static_cast<double>(means.size()));
}

double normal_cdf(double z) {
  return std::erfc(-z / std::sqrt(2.0)) / 2;
}

double normal_quantile(double p) {
  double low = -10, high = 10;
  for (int i = 0; i < 100; ++i) (normal_cdf((low + high) / 2) < p ? low : high) = (low + high) / 2;
  return low;
}

// Smallest and largest value at which the distribution of `means` can have its quantile `at`, give or take `slack`.
Interval quantile_range(std::vector<double> means, double at, double slack) {
  std::sort(means.begin(), means.end());
  const auto value = [&](double p) {
    const double place = std::clamp(p, 0.0, 1.0) * static_cast<double>(means.size() - 1);
    return means[static_cast<size_t>(std::lround(place))];
  };
  return {value(at - slack) - 1e-12, value(at + slack) + 1e-12};
}

std::vector<double> normals(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<double> d;
  for (size_t i = 0; i < n; ++i) d.push_back(rng.normal());
  return d;
}

constexpr BootstrapOptions kMany{.resamples = 200000};
constexpr double kSlack = 0.0015;  // 3 standard errors of a share of 2.5 to 5 % of 200000, 1.2 of one of a half

void check_against(const std::vector<double>& all, const Bootstrapped& got, double mean, double acceleration) {
  CHECK(got.mean == Approx(mean));
  CHECK(got.standard_error == Approx(deviation(all)).epsilon(0.01));
  const auto inside = [](double value, const Interval& range) { return range.low <= value && value <= range.high; };
  CHECK(inside(got.percentile.low, quantile_range(all, 0.025, kSlack)));
  CHECK(inside(got.percentile.high, quantile_range(all, 0.975, kSlack)));
  CHECK(got.p_loss == Approx(share(all, [&](double m) { return m - mean >= mean - 1e-12; })).margin(0.004));
  CHECK(got.p_gain == Approx(share(all, [&](double m) { return m - mean <= mean + 1e-12; })).margin(0.004));
  const double below = share(all, [&](double m) { return m < mean - 1e-12; });
  const double tied = share(all, [&](double m) { return std::abs(m - mean) <= 1e-12; });
  const double z0 = normal_quantile(below + tied / 2);
  for (const double at : {0.025, 0.975}) {
    const double z = z0 + normal_quantile(at), corrected = normal_cdf(z0 + z / (1 - acceleration * z));
    CHECK(inside(at < 0.5 ? got.bca.low : got.bca.high, quantile_range(all, corrected, 2 * kSlack)));
  }
}

double acceleration_of(const std::vector<double>& influences) {
  double squares = 0, cubes = 0;
  for (const double l : influences) squares += l * l, cubes += l * l * l;
  return cubes / (6 * std::pow(squares, 1.5));
}

}  // namespace

TEST_CASE("a bootstrap of a tiny set comes to what all its resamples give") {
  const std::vector<double> d{0, 0.25, 1, -0.5, 3, 0.125};
  Clusters items;
  for (const double value : d) items.emplace_back(value, 1);
  const double mean = std::accumulate(d.begin(), d.end(), 0.0) / 6;
  std::vector<double> influences;
  for (const double value : d) influences.push_back(value - mean);  // the jackknife's up to a factor
  check_against(all_resamples({items}, Weighting::kItems), bootstrap({}, d, kMany), mean, acceleration_of(influences));
}

TEST_CASE("strata and clusters are resampled whole and apart") {
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  // stratum 0: clusters {1, 0.5}, {-1}, {2, 0, 0.25}; stratum 1: {0.5}, {3, 1}, {-0.5}, {0}
  const Design design{{0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1}, {0, 0, 1, 2, 2, 2, 5, 6, 6, 7, 8}, weighting};
  const std::vector<double> d{1, 0.5, -1, 2, 0, 0.25, 0.5, 3, 1, -0.5, 0};
  const std::vector<Clusters> strata{{{1.5, 2}, {-1, 1}, {2.25, 3}}, {{0.5, 1}, {4, 2}, {-0.5, 1}, {0, 1}}};
  const double by_items = 6.75 / 11, by_strata = (2.75 / 6 + 4.0 / 5) / 2;
  const double mean = weighting == Weighting::kItems ? by_items : by_strata;
  std::vector<double> influences;
  for (size_t s = 0; s < 2; ++s) {
    std::vector<double> without;
    double centre = 0;
    for (const auto& [sum, items] : strata[s]) {
      const double own = s == 0 ? 2.75 : 4, count = s == 0 ? 6 : 5;
      without.push_back(weighting == Weighting::kItems ? (6.75 - sum) / (11 - items)
                                                       : mean + ((own - sum) / (count - items) - own / count) / 2);
      centre += without.back() / static_cast<double>(strata[s].size());
    }
    const auto clusters = static_cast<double>(without.size());
    for (const double value : without) influences.push_back((clusters - 1) / clusters * (centre - value));
  }
  check_against(all_resamples(strata, weighting), bootstrap(design, d, kMany), mean, acceleration_of(influences));
}

TEST_CASE("intervals of skewed data are scipy's") {
  const std::vector<double> d{1.073, 0.308, 5.375, 0.366, 0.115, 1.8,   0.499, 0.551, 0.03,  0.764,
                              1.041, 0.231, 1.677, 0.209, 0.786, 0.129, 0.923, 0.462, 0.689, 2.649,
                              1.115, 0.899, 2.84,  2.031, 1.166, 0.329, 1.435, 0.158, 8.423, 0.236};
  // scipy 1.17, bootstrap of 400000 resamples; an end of 200000 has a standard error of 0.001 (low) to 0.003 (high)
  const Bootstrapped got = bootstrap({}, d, kMany);
  CHECK(got.percentile.low == Approx(0.7526).margin(0.004));
  CHECK(got.percentile.high == Approx(1.96553).margin(0.01));
  CHECK(got.bca.low == Approx(0.84047).margin(0.004));
  CHECK(got.bca.high == Approx(2.22415).margin(0.015));
  CHECK(got.standard_error == Approx(0.31304).margin(0.002));
}

TEST_CASE("without a difference the interval is one point, with one cluster there is none") {
  const Bootstrapped none = bootstrap({}, std::vector<double>(20, 0.0));
  CHECK(none.percentile == Interval{0, 0});
  CHECK(none.bca == Interval{0, 0});
  CHECK(none.p_loss == 1);
  CHECK(none.p_gain == 1);
  const Bootstrapped lone = bootstrap({{1, 1, 2}, {}, Weighting::kItems}, std::vector<double>{0, 1, 2});
  CHECK(lone.mean == 1);
  CHECK(std::isnan(lone.bca.low));
  CHECK(std::isnan(lone.percentile.high));
  CHECK(std::isnan(lone.p_loss));
}

TEST_CASE("the number of threads changes no bit, the seed does") {
  const bool strata = GENERATE(false, true);
  Design design;
  if (strata) {
    design.weighting = Weighting::kStrata;
    for (int i = 0; i < 90; ++i) design.stratum.push_back(i % 4), design.cluster.push_back(i % 36);
  }
  const std::vector<double> d = normals(90 * 40, 1);
  const auto one = bootstrap_columns(design, d, 40, {.resamples = 999, .seed = 5, .threads = 1});
  const auto many = bootstrap_columns(design, d, 40, {.resamples = 999, .seed = 5, .threads = 5});
  const auto other = bootstrap_columns(design, d, 40, {.resamples = 999, .seed = 6, .threads = 1});
  for (size_t j = 0; j < 40; ++j) {
    CHECK(same(one[j], many[j]));
    CHECK_FALSE(one[j].percentile == other[j].percentile);
  }
}

TEST_CASE("a column among others is what it is alone") {
  const int64_t columns = GENERATE(2, 17, 64);
  const size_t n = 50, m = static_cast<size_t>(columns);
  const std::vector<double> d = normals(n * m, 2);
  const auto together = bootstrap_columns({}, d, columns, {.resamples = 500});
  for (size_t j = 0; j < m; ++j) {
    std::vector<double> column;
    for (size_t i = 0; i < n; ++i) column.push_back(d[i * m + j]);
    const Bootstrapped alone = bootstrap({}, column, {.resamples = 500});
    CHECK(together[j].mean == alone.mean);
    CHECK(together[j].percentile.low == Approx(alone.percentile.low).epsilon(1e-12));
    CHECK(together[j].bca.high == Approx(alone.bca.high).epsilon(1e-12));
    CHECK(together[j].p_loss == alone.p_loss);
  }
}

TEST_CASE("more columns than are kept at a time are the same columns") {
  const std::vector<double> few = normals(4 * 100, 3);
  std::vector<double> many;  // 4 items, 1000 columns, the hundred again and again
  for (size_t i = 0; i < 4; ++i)
    for (size_t j = 0; j < 1000; ++j) many.push_back(few[i * 100 + j % 100]);
  const auto wanted = bootstrap_columns({}, few, 100, {.resamples = 20000});
  const auto got = bootstrap_columns({}, many, 1000, {.resamples = 20000});
  for (size_t j = 0; j < 1000; ++j) CHECK(same(got[j], wanted[j % 100]));
}

TEST_CASE("the order of items changes no bit") {
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  const bool clustered = GENERATE(false, true);
  Design design{{}, {}, weighting};
  for (int i = 0; i < 60; ++i) {
    design.stratum.push_back(i % 3);
    if (clustered) design.cluster.push_back(i % 3 * 100 + i * i % 7);
  }
  const std::vector<double> d = normals(120, 4);
  std::vector<size_t> order(60);
  std::iota(order.begin(), order.end(), size_t{0});
  Rng(9).shuffle(order);
  Design mixed{{}, {}, weighting};
  std::vector<double> e;
  for (const size_t i : order) {
    mixed.stratum.push_back(design.stratum[i]);
    if (clustered) mixed.cluster.push_back(design.cluster[i]);
    e.insert(e.end(), {d[2 * i], d[2 * i + 1]});
  }
  const auto wanted = bootstrap_columns(design, d, 2, {.resamples = 1000});
  const auto got = bootstrap_columns(mixed, e, 2, {.resamples = 1000});
  for (size_t j = 0; j < 2; ++j) CHECK(same(got[j], wanted[j]));
}

TEST_CASE("a bootstrap's error is the one that linearisation gives") {
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  Design design{{}, {}, weighting};
  std::vector<double> d = normals(600, 6);
  for (int i = 0; i < 600; ++i) {
    design.stratum.push_back(i < 400 ? 0 : 1);
    design.cluster.push_back(i < 400 ? i / 4 : 1000 + (i - 400) / 2);
    d[static_cast<size_t>(i)] += i < 400 ? 0.5 * (i / 4 % 3) : 2;
  }
  const MeanDifference mean = mean_difference(design, d);
  CHECK(bootstrap(design, d).standard_error == Approx(mean.standard_error).epsilon(0.03));
}

TEST_CASE("a bootstrap of what is none is refused") {
  const std::vector<double> d{1, 2, 3, 4, 5, std::nan("")};
  CHECK_THROWS_MATCHES(bootstrap_columns({}, d, 2), DataError,
                       MessageMatches(ContainsSubstring("item 2, column 1 is nan")));
  CHECK_THROWS_AS(bootstrap_columns({}, d, 4), DataError);
  CHECK_THROWS_AS(bootstrap_columns({}, d, 0), DataError);
  CHECK_THROWS_AS(bootstrap({}, {}), DataError);
  CHECK_THROWS_AS(bootstrap({}, std::vector{1.0, 2.0}, {.resamples = 10}), DataError);
  CHECK_THROWS_AS(bootstrap({}, std::vector{1.0, 2.0}, {.threads = 0}), DataError);
  CHECK_THROWS_AS(bootstrap({}, std::vector{1.0, 2.0}, {.confidence = 1}), DataError);
}

// kvsweep_tests_plain "[.bench]" --benchmark-samples 5
TEST_CASE("what 10,000 resamples of 10,000 items take on two threads", "[.bench]") {
  Rng rng(17);
  std::vector<double> graded, binary;
  Design documents;
  for (int32_t i = 0; i < 10000; ++i) {
    graded.push_back(rng.uniform() - 0.4);
    binary.push_back(static_cast<double>(rng.below(3)) - 1);
    documents.stratum.push_back(i / 2500);
    documents.cluster.push_back(i / 5);
  }
  BENCHMARK("graded scores") {
    return bootstrap({}, graded);
  };
  BENCHMARK("lost, gained, equal") {
    return bootstrap({}, binary);
  };
  BENCHMARK("graded scores, 4 strata, 2,000 documents") {
    return bootstrap(documents, graded);
  };
}

}  // namespace kvsweep
