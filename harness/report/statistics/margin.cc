#include "harness/report/statistics/margin.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <boost/math/tools/roots.hpp>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <utility>
#include <vector>

#include "harness/core/error.h"
#include "harness/report/statistics/exponential_sum.h"
#include "harness/report/statistics/paired.h"
#include "harness/report/statistics/power.h"

namespace kvsweep {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void check(const Margin& margin) {
  if (!std::isfinite(margin.max_loss))
    throw DataError(fmt::format("margin {}: allowed are finite numbers", margin.max_loss));
  if (!(margin.confidence > 0.5 && margin.confidence < 1))
    throw DataError(fmt::format("confidence {}: allowed are numbers between 0.5 and 1", margin.confidence));
  if (!margin.range) return;
  if (!(margin.range->low < margin.max_loss && margin.max_loss < margin.range->high))
    throw DataError(fmt::format("margin {}: allowed are numbers within the range of a difference, {} to {}",
                                margin.max_loss, margin.range->low, margin.range->high));
}

void check_range(std::span<const double> d, const Interval& range) {
  for (size_t i = 0; i < d.size(); ++i)
    if (d[i] < range.low || d[i] > range.high)
      throw DataError(fmt::format("difference of item {} is {}; allowed are {} to {}", i, d[i], range.low, range.high));
}

// Sums of clusters as shares of a weighted mean, and one more cluster at an end of the range, as heavy as the heaviest.
class Simplex {
 public:
  Simplex(const Layout& layout, std::span<const double> d) {
    const std::vector<ClusterSum> sums = cluster_sums(layout, d);
    for (int64_t s = 0; s < layout.strata(); ++s)
      for (int64_t c = layout.stratum[static_cast<size_t>(s)]; c < layout.stratum[static_cast<size_t>(s) + 1]; ++c) {
        const ClusterSum& cluster = sums[static_cast<size_t>(c)];
        values_.push_back(layout.item_weight(s) * cluster.sum);
        weights_.push_back(layout.item_weight(s) * static_cast<double>(cluster.items));
      }
    heaviest_ = *std::max_element(weights_.begin(), weights_.end());
    // In order for all losses that will be asked about, where weights are equal.
    std::vector<size_t> order(values_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values_[a] < values_[b]; });
    for (const size_t c : order) sorted_.push_back({values_[c], weights_[c]});
  }

  // That the mean with one more cluster of this value is above `loss`.
  double above(double loss, double extra) const {
    std::vector<double> y;
    y.reserve(sorted_.size() + 1);
    for (const auto& [value, weight] : sorted_) y.push_back(value - weight * loss);
    const double one_more = heaviest_ * (extra - loss);
    y.insert(extra > 0 ? y.end() : y.begin(), one_more);
    return probability_of_positive_sum(y);
  }
  double p_pass(double loss, const Interval& range) const { return above(loss, range.high); }
  double p_fail(double loss, const Interval& range) const { return 1 - above(loss, range.low); }

  // Of the mean, all strata as one.
  double standard_error(double mean) const {
    const auto count = static_cast<double>(values_.size());
    double squares = 0;
    for (size_t c = 0; c < values_.size(); ++c) squares += std::pow(values_[c] - weights_[c] * mean, 2);
    return count > 1 ? std::sqrt(count / (count - 1) * squares) : kNaN;
  }
  double heaviest() const { return heaviest_; }

 private:
  std::vector<double> values_, weights_;
  std::vector<std::pair<double, double>> sorted_;  // values and weights, by value
  double heaviest_ = 0;
};

// Where f, positive at `from` and falling on the way to `end`, is zero. `step`: about how far that is.
template <class Function>
double crossing(double from, double end, double step, const Function& f) {
  if (from == end) return end;
  const auto toward = [&](double by) { return end > from ? std::min(end, from + by) : std::max(end, from - by); };
  // Just beside `from` items without a difference help the integral to converge.
  double inside = from, at_inside = 1, outside = toward(step / 8), at_outside = f(outside);
  if (at_outside <= 0) at_inside = f(from);
  for (; at_outside > 0 && outside != end; step *= 2) {
    inside = outside, at_inside = at_outside;
    outside = toward(step);
    at_outside = f(outside);
  }
  if (at_outside >= 0 || at_inside <= 0) return outside;
  const double tolerance = 1e-9 * std::abs(end - from);
  const auto close = [&](double a, double b) { return std::abs(b - a) <= tolerance; };
  uintmax_t steps = 100;
  const bool up = outside > inside;
  const auto [a, b] =
      boost::math::tools::toms748_solve(f, up ? inside : outside, up ? outside : inside, up ? at_inside : at_outside,
                                        up ? at_outside : at_inside, close, steps);
  return (a + b) / 2;
}

Verdict verdict_of_p(double p_pass, double p_fail, const Margin& margin) {
  const double alpha = 1 - margin.confidence;
  if (p_pass < alpha) return Verdict::kPass;
  if (p_fail < alpha) return Verdict::kFail;
  return Verdict::kInconclusive;
}

void judge_bounded(const Simplex& simplex, const Margin& margin, NonInferiority& result) {
  const double alpha = 1 - margin.confidence;
  const Interval& range = *margin.range;
  result.p_pass = simplex.p_pass(margin.max_loss, range);
  result.p_fail = simplex.p_fail(margin.max_loss, range);
  const double error = simplex.standard_error(result.loss), step = 2 * (error > 0 ? error : 0) + 2 * simplex.heaviest();
  result.bounds.low =
      crossing(result.loss, range.low, step, [&](double u) { return simplex.p_fail(u, range) - alpha; });
  result.bounds.high =
      crossing(result.loss, range.high, step, [&](double u) { return simplex.p_pass(u, range) - alpha; });
  result.verdict = verdict_of_p(result.p_pass, result.p_fail, margin);
}

void judge_unbounded(const MeanDifference& difference, const Margin& margin, NonInferiority& result) {
  result.bounds = t_interval(difference, 2 * margin.confidence - 1);
  const double gap = difference.mean - margin.max_loss;
  if (difference.standard_error > 0) {
    const boost::math::students_t t(difference.degrees);
    result.p_pass = boost::math::cdf(t, gap / difference.standard_error);
    result.p_fail = boost::math::cdf(boost::math::complement(t, gap / difference.standard_error));
  } else if (difference.standard_error == 0) {  // all differences are the same
    result.p_pass = gap < 0 ? 0 : 1;
    result.p_fail = gap > 0 ? 0 : 1;
  } else {
    result.p_pass = result.p_fail = kNaN;
  }
  result.verdict = verdict_of_p(result.p_pass, result.p_fail, margin);
}

// Smallest number of items, in multiples of `items`, whose bound comes as close as `gap`: spread / sqrt(n) + extra / n
// <= gap, and an empty sample of flips that still says something.
double items_for(double gap, double spread, double extra, double alpha, double range) {
  double n = std::pow(spread / gap, 2);
  if (extra > 0) n = std::pow(2 * extra / (std::sqrt(spread * spread + 4 * extra * gap) - spread), 2);
  if (range > gap) n = std::max(n, extra * std::log(alpha) / std::log1p(-gap / range) / range);
  return n;
}

void plan(double standard_error, double heaviest, const Margin& margin, int64_t items, NonInferiority& result) {
  const double alpha = 1 - margin.confidence, factor = PowerTarget{.alpha = alpha}.factor();
  const bool passes = result.loss < margin.max_loss;
  const double range = !margin.range ? 0 : passes ? margin.range->high : -margin.range->low;
  const auto n = static_cast<double>(items);
  const double widest = margin.range ? margin.range->high : 0;
  // As if two more items had changed: another sample can have flips where this one had none.
  result.detectable = factor * std::hypot(standard_error, std::numbers::sqrt2 * heaviest * widest) + heaviest * widest;
  const double gap = std::abs(result.loss - margin.max_loss);
  if (gap == 0 || std::isnan(standard_error)) return;
  const double needed =
      items_for(gap, factor * standard_error * std::sqrt(n), heaviest * n * std::max(0.0, range), alpha, range);
  result.items_needed = needed < 1e15 ? std::max<int64_t>(1, static_cast<int64_t>(std::ceil(needed))) : 0;
}

}  // namespace

Verdict verdict_of(const Interval& bounds, double max_loss) {
  if (bounds.high < max_loss) return Verdict::kPass;
  if (bounds.low > max_loss) return Verdict::kFail;
  return Verdict::kInconclusive;
}

NonInferiority non_inferiority(const Design& design, std::span<const double> d, const Margin& margin) {
  check(margin);
  const MeanDifference difference = mean_difference(design, d);
  NonInferiority result;
  result.loss = difference.mean;
  if (!margin.range) {
    judge_unbounded(difference, margin, result);
    plan(difference.standard_error, 0, margin, difference.items, result);
    return result;
  }
  check_range(d, *margin.range);
  const Simplex simplex(lay_out(design, difference.items), d);
  judge_bounded(simplex, margin, result);
  plan(simplex.standard_error(difference.mean), simplex.heaviest(), margin, difference.items, result);
  return result;
}

Equivalence equivalence(const Design& design, std::span<const double> d, const Margin& margin) {
  if (!(margin.max_loss > 0)) throw DataError(fmt::format("margin {}: allowed are numbers above 0", margin.max_loss));
  Margin gain = margin;
  gain.max_loss = -margin.max_loss;
  const double above = non_inferiority(design, d, margin).p_pass, below = non_inferiority(design, d, gain).p_fail;
  const double p = std::isnan(above + below) ? kNaN : std::max(above, below);
  return {p < 1 - margin.confidence, p};
}

std::optional<Verdict> certain_verdict(const Design& design, std::span<const Interval> possible, const Margin& margin) {
  check(margin);
  if (!margin.range) throw DataError("a verdict is certain before the end only where differences have a range");
  std::vector<double> best, worst;
  for (const Interval& item : possible) {
    best.push_back(item.low);
    worst.push_back(item.high);
  }
  require_finite(best, "lowest difference");
  require_finite(worst, "highest difference");
  check_range(best, *margin.range);
  check_range(worst, *margin.range);
  for (size_t i = 0; i < best.size(); ++i)
    if (best[i] > worst[i])
      throw DataError(fmt::format("difference of item {} is between {} and {}", i, best[i], worst[i]));
  const Layout layout = lay_out(design, static_cast<int64_t>(possible.size()));
  const Simplex low(layout, best), high(layout, worst);
  const double alpha = 1 - margin.confidence;
  if (high.p_pass(margin.max_loss, *margin.range) < alpha) return Verdict::kPass;
  if (low.p_fail(margin.max_loss, *margin.range) < alpha) return Verdict::kFail;
  const bool can_pass = low.p_pass(margin.max_loss, *margin.range) < alpha;
  const bool can_fail = high.p_fail(margin.max_loss, *margin.range) < alpha;
  if (!can_pass && !can_fail) return Verdict::kInconclusive;
  return std::nullopt;
}

}  // namespace kvsweep
