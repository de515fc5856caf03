#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/analysis/results.h"
#include "harness/report/analysis/rules.h"
#include "harness/report/statistics/design.h"
#include "harness/report/statistics/interval.h"

namespace kvsweep {

struct CompareOptions {
  double confidence = 0.95;  // of intervals, two-sided
  int64_t resamples = 10000;
  uint64_t seed = 0;
  int threads = 2;
};

// Two points on the items that both have, one metric. `loss` of an item is what the reference has more of what is good:
// reference less own, or own less reference where less is better.
struct PairedScores {
  std::string metric;
  bool exponential = false, higher_is_better = true;
  std::vector<uint32_t> item;          // index into the reference's results' items
  std::vector<double> reference, own;  // scores
  std::vector<double> loss;
  Design design;            // strata by the record's breakdown (its first tag), clusters by the tag "document"
  int64_t unpaired = 0;     // items that only one of them has
  bool unit_range = false;  // scores lie in [0, 1]

  bool binary() const;  // all scores are 0 or 1
};

// Items are the same where sample id and prompt are. Throws DataError: no common item; one of them lacks the metric.
PairedScores pair_scores(const Results& reference, const PointSamples& reference_samples, const Results& own,
                         const PointSamples& own_samples, const Record& record, const std::string& metric);

// Several groups' items one behind the other, each group a stratum of the same weight, whatever it has of items; a
// document of one group is not one of another. `metric` is the parts' when they have the same one, else "score". At
// least one part; all of them exponential or none.
PairedScores stack(const std::vector<PairedScores>& parts);

// A paired difference and what it is worth.
struct Comparison {
  std::string metric;
  bool exponential = false, higher_is_better = true, binary = false;
  int64_t n = 0, clusters = 0, unpaired = 0;
  int64_t not_numbers = 0;  // items with a NaN or infinite score: then nothing below but the means is there
  double reference_mean = 0, own_mean = 0;
  // Of PairedScores::loss. Binary scores of independent items: Newcombe's score interval, exact McNemar. Else,
  // stratified and clustered as the design says: BCa bootstrap (percentile where BCa has none) and its two-sided p; of
  // fewer than 60 documents a stratum Student's t (without any spread: the sign-flip test).
  double loss = 0, standard_error = 0;
  Interval interval;
  // "Newcombe", "BCa", "percentile", "t", "" when there is no interval. "nothing changed": resampling would say [0, 0],
  // so it is what as many independent items allow whose scores lie in [0, 1]: -ln(alpha / 2) / n, the rule of three
  // (Hanley and Lippman-Hand 1983), n being the items that the heaviest document is one of; `detectable` is of so many.
  std::string method;
  int64_t lost = 0, gained = 0;   // items that became worse, better
  double p = 1, p_adjusted = 1;   // adjusted within a table by who draws it up
  double detectable = 0;          // smallest loss that this comparison would have seen: one-sided 5 %, power 80 %
  std::optional<Interval> ratio;  // of an exponential metric, own to reference: exp of the interval's ends
  std::optional<double> ratio_value;

  double flips() const { return static_cast<double>(lost + gained) / static_cast<double>(n); }
  bool significant(double level = 0.05) const { return p_adjusted < level; }
};

Comparison compare(const PairedScores& scores, const CompareOptions& options = {});
// Of many points on the same items in one bootstrap: designs and items must be equal.
std::vector<Comparison> compare_all(const std::vector<PairedScores>& columns, const CompareOptions& options = {});

// p_adjusted by Holm's method over all that have a p.
void adjust(const std::vector<Comparison*>& family);

}  // namespace kvsweep
