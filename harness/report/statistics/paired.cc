#include "harness/report/statistics/paired.h"

#include <fmt/format.h>

#include <bit>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "harness/core/error.h"
#include "harness/core/random.h"

namespace kvsweep {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kEnumerated = 20;  // clusters: 2^20 signs take milliseconds
constexpr double kTie = 1e-10;      // of the sum of shares: sums that differ by less are the same sum

struct Variance {
  double corrected = 0, uncorrected = 0, degrees = 0;
};

Variance variance_of(const Layout& layout, std::span<const ClusterSum> sums, double mean) {
  Variance variance;
  double squares = 0, most = 0;
  for (int64_t s = 0; s < layout.strata(); ++s) {
    const int64_t first = layout.stratum[static_cast<size_t>(s)], end = layout.stratum[static_cast<size_t>(s) + 1];
    const auto count = static_cast<double>(end - first);
    const double centre = layout.weighting == Weighting::kStrata ? stratum_mean(layout, sums, s) : mean;
    std::vector<double> shares;
    double total = 0, square = 0;
    for (int64_t c = first; c < end; ++c) {
      const ClusterSum& cluster = sums[static_cast<size_t>(c)];
      shares.push_back(layout.item_weight(s) * (cluster.sum - centre * static_cast<double>(cluster.items)));
      total += shares.back();
    }
    for (const double share : shares) square += (share - total / count) * (share - total / count);
    const double corrected = count > 1 ? count / (count - 1) * square : kNaN;
    variance.corrected += corrected;
    variance.uncorrected += square;
    squares += corrected * corrected / (count - 1);
    most += count - 1;
  }
  variance.degrees = squares > 0 ? variance.corrected * variance.corrected / squares : most;
  return variance;
}

// What a cluster adds to the mean.
std::vector<double> shares_of(const Layout& layout, std::span<const ClusterSum> sums) {
  std::vector<double> shares;
  for (int64_t s = 0; s < layout.strata(); ++s)
    for (int64_t c = layout.stratum[static_cast<size_t>(s)]; c < layout.stratum[static_cast<size_t>(s) + 1]; ++c)
      shares.push_back(layout.item_weight(s) * sums[static_cast<size_t>(c)].sum);
  return shares;
}

Layout checked_layout(const Design& design, std::span<const double> d) {
  require_finite(d, "difference");
  return lay_out(design, static_cast<int64_t>(d.size()));
}

// How many flipped sums lie as far out as the one seen.
class Tails {
 public:
  Tails(double seen, double tie) : seen_(seen), tie_(tie) {}
  void add(double sum) {
    loss_ += sum >= seen_ - tie_;
    gain_ += sum <= seen_ + tie_;
    both_ += std::abs(sum) >= std::abs(seen_) - tie_;
  }
  SignFlipTest result(bool exact, int64_t more, int64_t of) const {
    const auto share = [&](int64_t count) {
      return static_cast<double>(count + more) / static_cast<double>(of + more);
    };
    return {exact, share(both_), share(loss_), share(gain_)};
  }

 private:
  double seen_, tie_;
  int64_t loss_ = 0, gain_ = 0, both_ = 0;
};

}  // namespace

MeanDifference mean_difference(const Design& design, std::span<const double> d) {
  const Layout layout = checked_layout(design, d);
  const std::vector<ClusterSum> sums = cluster_sums(layout, d);
  MeanDifference result;
  result.items = layout.items();
  result.clusters = layout.clusters();
  result.strata = layout.strata();
  result.mean = mean_of(layout, sums);
  const Variance variance = variance_of(layout, sums, result.mean);
  result.standard_error = result.naive_error = std::sqrt(variance.corrected);
  result.uncorrected_error = std::sqrt(variance.uncorrected);
  result.degrees = variance.degrees;
  if (!design.cluster.empty()) {
    const Layout items = lay_out({design.stratum, {}, design.weighting}, layout.items());
    result.naive_error = std::sqrt(variance_of(items, cluster_sums(items, d), result.mean).corrected);
  }
  if (result.standard_error == 0 && result.mean == 0) return result;
  result.t = result.p_two_sided = result.p_loss = result.p_gain = kNaN;
  if (!(result.standard_error > 0)) return result;
  result.t = result.mean / result.standard_error;
  const boost::math::students_t t(result.degrees);
  result.p_loss = boost::math::cdf(boost::math::complement(t, result.t));
  result.p_gain = boost::math::cdf(t, result.t);
  result.p_two_sided = 2 * boost::math::cdf(t, -std::abs(result.t));
  return result;
}

Interval t_interval(const MeanDifference& difference, double confidence) {
  if (!(confidence > 0 && confidence < 1))
    throw DataError(fmt::format("confidence {}: allowed are numbers between 0 and 1", confidence));
  if (std::isnan(difference.standard_error)) return {kNaN, kNaN};
  const boost::math::students_t t(difference.degrees);
  const double half = difference.standard_error * boost::math::quantile(t, 0.5 + confidence / 2);
  return {difference.mean - half, difference.mean + half};
}

SignTest sign_test(const Design& design, std::span<const double> d) {
  SignTest result;
  for (const ClusterSum& cluster : cluster_sums(checked_layout(design, d), d)) {
    result.positive += cluster.sum > 0;
    result.negative += cluster.sum < 0;
  }
  result.p = mcnemar(result.positive, result.negative);
  return result;
}

SignFlipTest sign_flip_test(const Design& design, std::span<const double> d, uint64_t seed, int64_t draws) {
  if (draws < 1) throw DataError(fmt::format("sign-flip test of {} draws", draws));
  const Layout layout = checked_layout(design, d);
  std::vector<double> shares = shares_of(layout, cluster_sums(layout, d));
  std::erase(shares, 0.0);
  double seen = 0, size = 0;
  for (const double share : shares) seen += share, size += std::abs(share);
  Tails tails(seen, kTie * size);
  if (shares.size() <= kEnumerated) {
    const uint64_t count = uint64_t{1} << shares.size();
    double sum = seen;
    tails.add(sum);
    for (uint64_t i = 1; i < count; ++i) {  // Gray code: one sign changes at a time
      double& share = shares[static_cast<size_t>(std::countr_zero(i))];
      sum -= 2 * share;
      share = -share;
      tails.add(sum);
    }
    return tails.result(true, 0, static_cast<int64_t>(count));
  }
  Rng rng(derive_seed(seed, "sign-flip"));
  for (int64_t draw = 0; draw < draws; ++draw) {
    double sum = 0;
    uint64_t bits = 0;
    for (size_t c = 0; c < shares.size(); ++c) {
      if (c % 64 == 0) bits = rng.next();
      sum += bits >> (c % 64) & 1 ? shares[c] : -shares[c];
    }
    tails.add(sum);
  }
  return tails.result(false, 1, draws);
}

}  // namespace kvsweep
