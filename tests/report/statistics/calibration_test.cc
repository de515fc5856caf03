// oracle: what intervals cover, how often verdicts err and how often effects are seen, by sums over all outcomes where
// they can be had and by simulation elsewhere. Run with -s for the figures.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <vector>

#include "harness/core/random.h"
#include "harness/report/statistics/bootstrap.h"
#include "harness/report/statistics/margin.h"
#include "harness/report/statistics/paired.h"
#include "harness/report/statistics/power.h"
#include "harness/report/statistics/proportion.h"
#include "harness/report/statistics/rates.h"

namespace kvsweep {
namespace {

// Of n items, each lost with one probability and gained with another.
double chance_of(int n, int lost, int gained, double p, double q) {
  const double rest = 1 - p - q;
  const int same = n - lost - gained;
  if ((p <= 0 && lost > 0) || (q <= 0 && gained > 0) || (rest <= 0 && same > 0)) return 0;
  double log = std::lgamma(n + 1) - std::lgamma(lost + 1) - std::lgamma(gained + 1) - std::lgamma(same + 1);
  if (lost > 0) log += lost * std::log(p);
  if (gained > 0) log += gained * std::log(q);
  if (same > 0) log += same * std::log(rest);
  return std::exp(log);
}

Verdict final_verdict(const Design& design, const std::vector<double>& d, double max_loss) {
  std::vector<Interval> items;
  for (const double value : d) items.push_back({value, value});
  return *certain_verdict(design, items, {.max_loss = max_loss});
}

std::vector<double> flips(int n, int lost, int gained) {
  std::vector<double> d(static_cast<size_t>(n), 0.0);
  for (int i = 0; i < lost + gained; ++i) d[static_cast<size_t>(i)] = i < lost ? 1 : -1;
  return d;
}

// The verdict for every (lost, gained) with up to `most` of each: with more gains it takes more losses to change it.
struct Table {
  Table(int items, int most, double max_loss) : n(items) {
    int pass = 0, fail = 0;
    for (int gained = 0; gained <= std::min(most, n); ++gained) {
      const int last = n - gained;
      while (pass <= last && final_verdict({}, flips(n, pass, gained), max_loss) == Verdict::kPass) ++pass;
      fail = std::max(fail, pass);
      while (fail <= last && final_verdict({}, flips(n, fail, gained), max_loss) != Verdict::kFail) ++fail;
      passes_below.push_back(pass);
      fails_from.push_back(fail);
    }
  }
  // P(PASS), P(FAIL) at a share of flips and a true loss.
  std::pair<double, double> chances(double share, double loss) const {
    const double p = (share + loss) / 2, q = (share - loss) / 2;
    std::pair<double, double> sum{0, 0};
    for (int gained = 0; gained < static_cast<int>(passes_below.size()); ++gained)
      for (int lost = 0; lost <= n - gained; ++lost) {
        const auto at = static_cast<size_t>(gained);
        if (lost >= passes_below[at] && lost < fails_from[at]) continue;
        (lost < passes_below[at] ? sum.first : sum.second) += chance_of(n, lost, gained, p, q);
      }
    return sum;
  }
  int n;
  std::vector<int> passes_below, fails_from;
};

// Share of `rounds` in which `holds` is true, with a stream of its own for each.
double frequency(int rounds, const std::function<bool(Rng&)>& holds) {
  int count = 0;
  for (int round = 0; round < rounds; ++round) {
    Rng rng(static_cast<uint64_t>(round) + 1000003);
    count += holds(rng);
  }
  return static_cast<double>(count) / rounds;
}

std::vector<double> drawn_flips(Rng& rng, int n, double share, double loss) {
  std::vector<double> d;
  for (int i = 0; i < n; ++i) {
    const double u = rng.uniform();
    d.push_back(u < (share + loss) / 2 ? 1 : u < share ? -1 : 0);
  }
  return d;
}

bool covers(const Interval& interval, double truth) {
  return interval.low <= truth && truth <= interval.high;
}

constexpr double kLeastCover = 0.93, kMostCover = 0.97;

}  // namespace

TEST_CASE("a verdict on binary scores errs in at most 5 % of all cases, summed over every outcome", "[slow]") {
  const int n = GENERATE(50, 200, 1000);
  for (const double margin : {0.005, 0.01, 0.02, 0.04}) {
    const Table table(n, n == 1000 ? 170 : n == 200 ? 60 : 30, margin);
    for (const double share : {0.01, 0.02, 0.05, 0.2}) {
      if (margin > share) continue;  // no loss is as large
      INFO(n << " items, " << share << " flips, margin " << margin);
      CHECK(table.chances(share, margin).first <= 0.05);
      CHECK(table.chances(share, margin).second <= 0.05);
      CHECK(table.chances(share, margin / 2).second <= 0.05);
      CHECK(table.chances(share, 0).second <= 0.05);
    }
  }
}

TEST_CASE("a verdict on graded scores errs in at most 5 % of simulations", "[slow]") {
  const int n = GENERATE(50, 200, 1000);
  const double share = GENERATE(0.01, 0.05, 0.2);
  const int rounds = n == 1000 ? 5000 : 20000;
  // Small losses often and large ones seldom; gains are small. What a t test takes for certainty.
  const auto draw = [&](Rng& rng) {
    const double u = rng.uniform() / share, size = rng.uniform();
    return u < 0.2 ? 1 : u < 0.7 ? size : u < 1 ? -size / 2 : 0;
  };
  const double loss = share * (0.2 + 0.5 * 0.5 - 0.3 * 0.25);
  int passed = 0, failed = 0, by_t = 0;
  for (int round = 0; round < rounds; ++round) {
    Rng rng(static_cast<uint64_t>(round) * 31 + 17);
    std::vector<double> d;
    for (int i = 0; i < n; ++i) d.push_back(draw(rng));
    const Verdict verdict = final_verdict({}, d, loss);
    passed += verdict == Verdict::kPass;
    failed += verdict == Verdict::kFail;
    by_t += t_interval(mean_difference({}, d), 0.9).high < loss;
  }
  INFO(n << " items, " << share << " flips; t would have passed " << static_cast<double>(by_t) / rounds);
  CHECK(static_cast<double>(passed) / rounds <= 0.05);
  CHECK(static_cast<double>(failed) / rounds <= 0.05);
}

TEST_CASE("a verdict on clusters and on means of strata errs in at most 5 % of simulations", "[slow]") {
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  const int clusters = GENERATE(40, 200);
  constexpr double kShare[] = {0.05, 0.15};  // of clusters that lose all their items, by stratum
  Design design{{}, {}, weighting};
  double items[2] = {0, 0};
  for (int c = 0; c < clusters; ++c)
    for (int i = 0; i <= c % 4; ++i) {  // size and loss are independent: the mean over items has no bias
      design.stratum.push_back(c % 3 == 0 ? 0 : 1);
      design.cluster.push_back(c);
      items[design.stratum.back()] += 1;
    }
  const double loss = weighting == Weighting::kStrata
                          ? (kShare[0] + kShare[1]) / 2
                          : (items[0] * kShare[0] + items[1] * kShare[1]) / (items[0] + items[1]);
  int passed = 0, failed = 0;
  constexpr int kRounds = 10000;
  for (int round = 0; round < kRounds; ++round) {
    Rng rng(static_cast<uint64_t>(round) * 7 + 5);
    std::vector<double> d;
    for (size_t i = 0; i < design.cluster.size(); ++i) {
      const bool same = i > 0 && design.cluster[i] == design.cluster[i - 1];
      d.push_back(same ? d.back() : rng.uniform() < kShare[design.stratum[i]] ? 1 : 0);
    }
    const Verdict verdict = final_verdict(design, d, loss);
    passed += verdict == Verdict::kPass;
    failed += verdict == Verdict::kFail;
  }
  CHECK(static_cast<double>(passed) / kRounds <= 0.05);
  CHECK(static_cast<double>(failed) / kRounds <= 0.05);
}

TEST_CASE("intervals of proportions and of paired binary scores cover 93 to 97 %", "[slow]") {
  const int n = GENERATE(100, 400);
  for (int percent = 10; percent <= 90; percent += 5) {
    double covered = 0;
    for (int k = 0; k <= n; ++k)
      if (covers(wilson(k, n), percent / 100.0)) covered += chance_of(n, k, 0, percent / 100.0, 0);
    INFO("Wilson, " << n << " items, p " << percent << " %");
    CHECK(covered >= kLeastCover);
    CHECK(covered <= kMostCover);
  }
  for (const double share : {0.05, 0.2}) {
    const double right = 0.7, loss = 0.02;
    const double covered = frequency(20000, [&](Rng& rng) {
      PairedCounts counts;
      for (int i = 0; i < n; ++i) {
        const double u = rng.uniform();
        ++(u < (share + loss) / 2 ? counts.lost : u < share ? counts.gained : u < right ? counts.both : counts.neither);
      }
      return covers(newcombe_paired(counts), loss);
    });
    INFO("Newcombe, " << n << " items, " << share << " flips");
    CHECK(covered >= kLeastCover);
    CHECK(covered <= kMostCover);
  }
}

TEST_CASE("intervals of means cover 93 to 97 %: Student's, percentile and BCa, of strata and of clusters", "[slow]") {
  const Weighting weighting = GENERATE(Weighting::kItems, Weighting::kStrata);
  const bool clustered = GENERATE(false, true);
  Design design{{}, {}, weighting};
  for (int c = 0; c < 240; ++c)
    for (int i = 0; i <= (clustered ? c % 3 : 0); ++i) {
      design.stratum.push_back(c % 4 == 0 ? 0 : 1);
      design.cluster.push_back(c);
    }
  if (!clustered) design.cluster.clear();
  int first = 0;
  for (const int32_t s : design.stratum) first += s == 0;
  const double share = weighting == Weighting::kStrata ? 0.5 : first / static_cast<double>(design.stratum.size());
  const double truth = 0.3 * share + 0.1 * (1 - share);
  int by_t = 0, by_percentile = 0, by_bca = 0;
  constexpr int kRounds = 6000;
  for (int round = 0; round < kRounds; ++round) {
    Rng rng(static_cast<uint64_t>(round) * 13 + 3);
    std::vector<double> d;
    double common = 0;
    for (size_t i = 0; i < design.stratum.size(); ++i) {  // skewed: exponential less 1
      const bool same = clustered && i > 0 && design.cluster[i] == design.cluster[i - 1];
      if (!same) common = -std::log(1 - rng.uniform()) - 1;
      d.push_back((design.stratum[i] == 0 ? 0.3 : 0.1) + (clustered ? 0.5 : 1) * common +
                  (clustered ? 0.5 * rng.normal() : 0));
    }
    const Bootstrapped drawn =
        bootstrap(design, d, {.resamples = 1000, .seed = static_cast<uint64_t>(round), .threads = 1});
    by_t += covers(t_interval(mean_difference(design, d)), truth);
    by_percentile += covers(drawn.percentile, truth);
    by_bca += covers(drawn.bca, truth);
  }
  for (const int count : {by_t, by_percentile, by_bca}) {
    CHECK(static_cast<double>(count) / kRounds >= kLeastCover);
    CHECK(static_cast<double>(count) / kRounds <= kMostCover);
  }
}

TEST_CASE("of five pairs of times Student's interval covers 93 to 97 %, which the bootstrap does not", "[slow]") {
  int by_t = 0, by_bootstrap = 0;
  constexpr int kRounds = 10000;
  for (int round = 0; round < kRounds; ++round) {
    Rng rng(static_cast<uint64_t>(round));
    std::vector<double> base, other;
    for (int i = 0; i < 5; ++i) {
      const double load = std::exp(0.1 * rng.normal());
      base.push_back(10 * load * std::exp(0.03 * rng.normal()));
      other.push_back(8 * load * std::exp(0.03 * rng.normal()));
    }
    const Ratio ratio = paired_ratio(base, other, 0.95, static_cast<uint64_t>(round), 400);
    by_t += covers(ratio.t, 0.8);
    by_bootstrap += covers(ratio.bootstrap, 0.8);
  }
  CHECK(static_cast<double>(by_t) / kRounds >= kLeastCover);
  CHECK(static_cast<double>(by_t) / kRounds <= kMostCover);
  CHECK(static_cast<double>(by_bootstrap) / kRounds < 0.9);
}

// The effect is printed from one set of items and tried on another.
TEST_CASE("an effect of the printed size is seen in at least 78 % of simulations", "[slow]") {
  const int n = GENERATE(50, 200, 1000);
  const double share = GENERATE(0.01, 0.05, 0.2);
  constexpr int kRounds = 4000;
  int seen = 0, passed = 0, exact = 0;
  std::map<int64_t, double> known;
  const auto detectable = [&](int64_t changed) {
    const auto found = known.find(changed);
    if (found != known.end()) return found->second;
    return known[changed] = detectable_by_mcnemar(n, static_cast<double>(changed) / n);
  };
  const double right = detectable_by_mcnemar(n, share);
  for (int round = 0; round < kRounds; ++round) {
    Rng rng(static_cast<uint64_t>(round) * 3 + 1);
    const NonInferiority printed = non_inferiority({}, drawn_flips(rng, n, share, 0), {.max_loss = 0.02});
    if (printed.detectable >= 1) continue;
    passed += final_verdict({}, drawn_flips(rng, n, share, 0), printed.detectable) == Verdict::kPass;
    int64_t changed = 0;
    for (const double d : drawn_flips(rng, n, share, 0)) changed += d != 0;
    const auto loss_seen = [&](double loss) {
      int64_t lost = 0, gained = 0;
      for (const double d : drawn_flips(rng, n, std::max(share, loss), loss)) lost += d > 0, gained += d < 0;
      return mcnemar(lost, gained).loss < 0.05;
    };
    seen += loss_seen(detectable(changed + 1));
    exact += loss_seen(right);
  }
  INFO(n << " items, " << share << " flips, detectable " << right << " by McNemar");
  CHECK(static_cast<double>(exact) / kRounds >= 0.78);
  CHECK(static_cast<double>(seen) / kRounds >= 0.78);
  CHECK(static_cast<double>(passed) / kRounds >= 0.78);
}

}  // namespace kvsweep
