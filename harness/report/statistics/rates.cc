#include "harness/report/statistics/rates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/core/error.h"
#include "harness/report/statistics/bootstrap.h"
#include "harness/report/statistics/paired.h"

namespace kvsweep {
namespace {

Interval exponential(const Interval& interval) {
  return {std::exp(interval.low), std::exp(interval.high)};
}

}  // namespace

double quantile(std::span<const double> values, double at) {
  if (values.empty() || !(at >= 0 && at <= 1))
    throw DataError(fmt::format("quantile {} of {} values; allowed are 0 to 1 of at least one", at, values.size()));
  require_finite(values, "value");
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double place = at * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place), above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - std::floor(place)) * (sorted[above] - sorted[below]);
}

Spread spread(std::span<const double> values) {
  return {quantile(values, 0.5), {quantile(values, 0.25), quantile(values, 0.75)}};
}

Ratio paired_ratio(std::span<const double> base, std::span<const double> other, double confidence, uint64_t seed,
                   int64_t resamples) {
  if (base.size() != other.size() || base.size() < 2)
    throw DataError(
        fmt::format("ratio of {} and {} repeats; allowed are equally many, at least 2", base.size(), other.size()));
  std::vector<double> logs;
  for (size_t i = 0; i < base.size(); ++i) {
    if (!(base[i] > 0 && other[i] > 0))
      throw DataError(fmt::format("repeat {}: {} and {}; allowed are positive numbers", i, base[i], other[i]));
    logs.push_back(std::log(other[i]) - std::log(base[i]));
  }
  const MeanDifference mean = mean_difference({}, logs);
  const Bootstrapped drawn =
      bootstrap({}, logs, {.resamples = resamples, .confidence = confidence, .seed = seed, .threads = 1});
  return {std::exp(mean.mean), exponential(drawn.percentile), exponential(t_interval(mean, confidence))};
}

}  // namespace kvsweep
