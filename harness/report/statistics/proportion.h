#pragma once

#include <cstdint>

#include "harness/report/statistics/interval.h"

namespace kvsweep {

// Counts must be non-negative and fit together, 0 < confidence < 1; else DataError.

// Score interval of a proportion of k in n (Wilson 1927), n > 0.
Interval wilson(int64_t k, int64_t n, double confidence = 0.95);

// "Exact" interval (Clopper and Pearson 1934): never below its confidence, for cells of few items. n > 0.
Interval clopper_pearson(int64_t k, int64_t n, double confidence = 0.95);

// Binary scores of the same items, full precision first.
struct PairedCounts {
  int64_t both = 0;     // right, right
  int64_t lost = 0;     // right, wrong
  int64_t gained = 0;   // wrong, right
  int64_t neither = 0;  // wrong, wrong

  int64_t items() const { return both + lost + gained + neither; }
  double loss() const { return static_cast<double>(lost - gained) / static_cast<double>(items()); }
  double flips() const { return static_cast<double>(lost + gained) / static_cast<double>(items()); }
  // Of loss(), with the counts as probabilities: sqrt(lost + gained - (lost - gained)^2 / n) / n (Wald).
  double wald_error() const;
};

// Of paired binary scores, under "as many lost as gained" (McNemar 1947). All are 1 without flips.
struct McNemar {
  double two_sided = 1;  // exact: min(1, 2 P(X <= min(lost, gained))), X ~ Bin(lost + gained, 1/2)
  double loss = 1;       // exact, one-sided: P(X >= lost)
  double gain = 1;       // P(X >= gained)
  double mid_p = 1;      // two-sided less the probability of what was seen (Fagerland et al. 2013)
  double chi2_cc = 1;    // chi-square with continuity correction, (|lost - gained| - 1)^2 / (lost + gained)
};
McNemar mcnemar(int64_t lost, int64_t gained);

// Score interval of the loss, lost/n - gained/n (Newcombe 1998, Statistics in Medicine 17:2635, method 10). At least
// one item. It covers what it promises on average over designs, but is too narrow where flips are few (one-sided errors
// of 10 % for 5 %): it is for display; verdicts come from margin.h.
Interval newcombe_paired(const PairedCounts& counts, double confidence = 0.95);

}  // namespace kvsweep
