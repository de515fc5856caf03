#include "harness/report/statistics/proportion.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/distributions/normal.hpp>
#include <cmath>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

void check(int64_t k, int64_t n, double confidence) {
  if (n < 1 || k < 0 || k > n) throw DataError(fmt::format("{} of {}: no proportion", k, n));
  if (!(confidence > 0 && confidence < 1))
    throw DataError(fmt::format("confidence {}: allowed are numbers between 0 and 1", confidence));
}

double two_sided_z(double confidence) {
  return boost::math::quantile(boost::math::normal(), 0.5 + confidence / 2);
}

// Of the two proportions' dependence, continuity corrected where it is positive (Newcombe 1998, method 10).
double phi(const PairedCounts& counts) {
  const auto a = static_cast<double>(counts.both), b = static_cast<double>(counts.lost);
  const auto c = static_cast<double>(counts.gained), d = static_cast<double>(counts.neither);
  const double margins = (a + b) * (c + d) * (a + c) * (b + d);
  if (margins == 0) return 0;
  double cross = a * d - b * c;
  if (cross > 0) cross = std::max(0.0, cross - (a + b + c + d) / 2);
  return cross / std::sqrt(margins);
}

}  // namespace

Interval wilson(int64_t k, int64_t n, double confidence) {
  check(k, n, confidence);
  const double z = two_sided_z(confidence), items = static_cast<double>(n), p = static_cast<double>(k) / items;
  const double centre = (p + z * z / (2 * items)) / (1 + z * z / items);
  const double half = z / (1 + z * z / items) * std::sqrt(p * (1 - p) / items + z * z / (4 * items * items));
  return {k == 0 ? 0 : centre - half, k == n ? 1 : centre + half};
}

Interval clopper_pearson(int64_t k, int64_t n, double confidence) {
  check(k, n, confidence);
  using Binomial = boost::math::binomial;
  const auto trials = static_cast<double>(n), hits = static_cast<double>(k);
  const double tail = (1 - confidence) / 2;
  return {k == 0 ? 0 : Binomial::find_lower_bound_on_p(trials, hits, tail),
          k == n ? 1 : Binomial::find_upper_bound_on_p(trials, hits, tail)};
}

double PairedCounts::wald_error() const {
  const auto n = static_cast<double>(items()), flipped = static_cast<double>(lost + gained);
  const auto difference = static_cast<double>(lost - gained);
  return std::sqrt(flipped - difference * difference / n) / n;
}

McNemar mcnemar(int64_t lost, int64_t gained) {
  if (lost < 0 || gained < 0)
    throw DataError(fmt::format("{} lost and {} gained: counts are not negative", lost, gained));
  if (lost + gained == 0) return {};
  const auto flips = static_cast<double>(lost + gained);
  const boost::math::binomial even(flips, 0.5);
  const auto at_least = [&](int64_t k) {
    return k == 0 ? 1.0 : boost::math::cdf(boost::math::complement(even, static_cast<double>(k - 1)));
  };
  const auto fewer = static_cast<double>(std::min(lost, gained));
  const double twice = 2 * boost::math::cdf(even, fewer);
  const double excess = std::abs(static_cast<double>(lost - gained)) - 1;
  McNemar result;
  result.two_sided = std::min(1.0, twice);
  result.loss = at_least(lost);
  result.gain = at_least(gained);
  result.mid_p = std::min(1.0, twice - boost::math::pdf(even, fewer));
  result.chi2_cc = boost::math::cdf(boost::math::complement(boost::math::chi_squared(1), excess * excess / flips));
  return result;
}

Interval newcombe_paired(const PairedCounts& counts, double confidence) {
  if (std::min({counts.both, counts.lost, counts.gained, counts.neither}) < 0)
    throw DataError(fmt::format("paired counts {}, {}, {}, {}: counts are not negative", counts.both, counts.lost,
                                counts.gained, counts.neither));
  const int64_t n = counts.items(), full = counts.both + counts.lost, other = counts.both + counts.gained;
  const Interval a = wilson(full, n, confidence), b = wilson(other, n, confidence);
  const double p = static_cast<double>(full) / static_cast<double>(n);
  const double q = static_cast<double>(other) / static_cast<double>(n);
  const auto combined = [r = phi(counts)](double x, double y) { return std::sqrt(x * x - 2 * r * x * y + y * y); };
  return {counts.loss() - combined(p - a.low, b.high - q), counts.loss() + combined(a.high - p, q - b.low)};
}

}  // namespace kvsweep
