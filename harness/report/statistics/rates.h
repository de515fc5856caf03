#pragma once

#include <cstdint>
#include <span>

#include "harness/report/statistics/interval.h"

namespace kvsweep {

// Quantile by linear interpolation between order statistics (Hyndman and Fan 1996, type 7, the default of numpy).
// values: at least one, finite; 0 <= at <= 1.
double quantile(std::span<const double> values, double at);

struct Spread {
  double median = 0;
  Interval quartiles;  // 25 % and 75 %
};
Spread spread(std::span<const double> values);

// Of times (or rates) of two configurations that took turns, pair by pair.
struct Ratio {
  double ratio = 1;    // exp(mean of log(other[i] / base[i])): swapping sides gives its inverse
  Interval bootstrap;  // percentile, of the pairs
  // Student's t of the logarithms. With 5 pairs the bootstrap covers 83 % instead of 95 %, this one what it says: gates
  // use this.
  Interval t;
};
// base, other: equally many, at least 2, > 0.
Ratio paired_ratio(std::span<const double> base, std::span<const double> other, double confidence, uint64_t seed,
                   int64_t resamples = 10000);

}  // namespace kvsweep
