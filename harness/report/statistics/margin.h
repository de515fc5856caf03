#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "harness/report/statistics/design.h"
#include "harness/report/statistics/interval.h"

namespace kvsweep {

enum class Verdict { kPass, kFail, kInconclusive };

// What a loss is held against. Losses are full precision less compressed, in the metric's units.
struct Margin {
  double max_loss = 0;       // > range.low and < range.high; negative: a gain is asked for
  double confidence = 0.95;  // one-sided, of the bound that decides
  // What a difference of one item can be: [-1, 1] for scores in [0, 1]. None: no limit is known (nats, times); then the
  // bounds are Student's t, and few or equal differences can deceive them.
  std::optional<Interval> range = Interval{-1, 1};
};

// PASS: the upper bound of the loss is below max_loss. FAIL: the lower one is above it, the loss is proven. Else
// neither.
//
// The bounds. With a range they are Gaffke's (2005, Math. Methods of Statistics 14:451; Learned-Miller and Thomas 2019,
// arXiv:1905.06208): the mean of the data and one more item at the worst end of the range, under weights that are
// uniform on the simplex; p is the probability that this mean reaches max_loss, evaluated exactly (no draws, no order
// of items, the same on every run). Why these:
//  * For losses without gains it is Clopper-Pearson: no flip in n items bounds the loss by 1 - 0.05^(1/n), so that an
//    empty sample of flips passes a margin of 1 % from 299 items on, not from one. Wald, t and both bootstraps say "no
//    flips, no loss" at any n, Newcombe's lets 9.9 % through there (from 230 items on), the score bound 6.8 % (268).
//  * No distribution on the range is known where it is wrong more often than stated. That is a conjecture with proofs
//    for special cases; for binary scores the tests here check it by summation over all outcomes.
//  * It is graded and binary at once, adapts to the variance as t does, and loses one item against it: 1/n.
//  * It is monotone in every item, which is what makes certain_verdict exact.
// Clusters are its items, weighted by size, and the added one is as large as the largest; with Weighting::kStrata items
// count by their weight. Strata are not used to narrow it (their means' spread stays in: the safe side).
//
// A significant McNemar test with a point estimate beyond the margin is no FAIL: at a true loss of exactly the margin
// about every second set has both.
struct NonInferiority {
  Verdict verdict = Verdict::kInconclusive;
  double loss = 0;    // the mean difference
  Interval bounds;    // both one-sided ones
  double p_pass = 1;  // of "the loss is max_loss or more": PASS below 1 - confidence
  double p_fail = 1;  // of "the loss is max_loss or less": FAIL below it
  double detectable =
      0;  // a margin that a scheme without loss passes with power 0.8, at this spread and two more flips
  int64_t items_needed = 0;  // for a verdict with power 0.8 were loss and spread as seen; 0: loss equals max_loss, none
};
NonInferiority non_inferiority(const Design& design, std::span<const double> d, const Margin& margin);

// Two one-sided tests: is the loss within +-max_loss? p of TOST, equivalent when below 1 - confidence. max_loss > 0.
struct Equivalence {
  bool equivalent = false;
  double p = 1;
};
Equivalence equivalence(const Design& design, std::span<const double> d, const Margin& margin);

// The verdict of bounds that were found another way (a bootstrap's, Student's).
Verdict verdict_of(const Interval& bounds, double max_loss);

// The verdict that the full set will have whatever is still to come, or none while it can change. possible[i]: what the
// difference of item i can be; of a scored item both ends are its difference. An item whose full-precision score a is
// known but not the other has [a - 1, a]; an unknown one has the range. Exact and without cost in confidence, since
// verdicts are monotone in every item. Throws DataError without a range, or when an interval leaves it.
std::optional<Verdict> certain_verdict(const Design& design, std::span<const Interval> possible, const Margin& margin);

}  // namespace kvsweep
