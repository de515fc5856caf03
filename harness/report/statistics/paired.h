#pragma once

#include <cstdint>
#include <span>

#include "harness/report/statistics/design.h"
#include "harness/report/statistics/interval.h"
#include "harness/report/statistics/proportion.h"

namespace kvsweep {

// d[i]: full precision less compressed of item i, in the metric's units: positive is a loss where more is better. The
// caller turns the sign where less is better.

// The mean of paired differences with its standard error from linearisation: of a cluster's share in the error
// u_c = sum_i w_i (d_i - mean), within strata, SE^2 = sum_s C_s / (C_s - 1) sum_c (u_c - mean_s u)^2. For one stratum
// without clusters that is sd / sqrt(n); for one with clusters the sandwich of Miller 2024 ("Adding Error Bars to
// Evals") with the finite correction that inspect_ai applies.
struct MeanDifference {
  int64_t items = 0, clusters = 0, strata = 0;
  double mean = 0;
  // NaN when a stratum has one cluster only. This is the one to use; the two below are for comparison with others.
  double standard_error = 0;
  double naive_error = 0;        // as if every item were its own cluster
  double uncorrected_error = 0;  // without C / (C - 1), as in Miller's appendix
  double degrees = 0;  // Satterthwaite over strata: (sum v_s)^2 / sum v_s^2 / (C_s - 1); C - 1 for one stratum
  // Student's t of mean / SE. All d zero: t = 0, p = 1. Another mean without any spread: NaN, a t test cannot say;
  // sign_flip_test can.
  double t = 0;
  double p_two_sided = 1;
  double p_loss = 1, p_gain = 1;  // one-sided: mean > 0, mean < 0
};
MeanDifference mean_difference(const Design& design, std::span<const double> d);

// mean +- t quantile * standard_error. NaN where that is NaN.
Interval t_interval(const MeanDifference& difference, double confidence = 0.95);

// Clusters whose sum of d is above and below zero, and the exact binomial test of these counts.
struct SignTest {
  int64_t positive = 0, negative = 0;
  McNemar p;
};
SignTest sign_test(const Design& design, std::span<const double> d);

// Permutation test of the mean: every cluster's differences change sign together or not. Exact over all signs when at
// most 20 clusters have a sum that is not zero; else `draws` seeded ones, p = (1 + #) / (draws + 1).
struct SignFlipTest {
  bool exact = false;
  double two_sided = 1, loss = 1, gain = 1;
};
SignFlipTest sign_flip_test(const Design& design, std::span<const double> d, uint64_t seed, int64_t draws = 10000);

}  // namespace kvsweep
