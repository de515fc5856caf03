#include "harness/report/analysis/margins.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace kvsweep {
namespace {

// Whether each item is a draw of its own and counts as much as every other in the mean.
bool equal_weights(const Design& design) {
  if (!design.cluster.empty()) return false;
  if (design.weighting == Weighting::kItems) return true;
  std::map<int32_t, int64_t> sizes;
  for (const int32_t stratum : design.stratum) ++sizes[stratum];
  return std::all_of(sizes.begin(), sizes.end(), [&](const auto& one) { return one.second == sizes.begin()->second; });
}

}  // namespace

double suggested_margin(double k_bits, double v_bits) {
  const double bits = (k_bits + v_bits) / 2;
  double loss = std::begin(kSuggestedMargins)->loss;
  for (const SuggestedMargin& margin : kSuggestedMargins)
    if (margin.bits >= bits) loss = margin.loss;
  return loss;
}

std::optional<Judged> Judge::operator()(const PairedScores& scores, const Record& record) {
  if (!std::all_of(scores.loss.begin(), scores.loss.end(), [](double d) { return std::isfinite(d); }))
    return std::nullopt;
  const double share = suggested_margin(record.nominal_k_bits, record.nominal_v_bits);
  Margin margin;
  margin.max_loss = scores.exponential ? std::log1p(share) : share;
  if (!scores.unit_range) margin.range.reset();
  if (!scores.unit_range || !scores.binary() || !equal_weights(scores.design))
    return Judged{margin.max_loss, non_inferiority(scores.design, scores.loss, margin)};

  const int64_t n = std::ssize(scores.loss), lost = std::count(scores.loss.begin(), scores.loss.end(), 1.0),
                gained = std::count(scores.loss.begin(), scores.loss.end(), -1.0);
  const Counts counts{margin.max_loss, n, lost, gained};
  {
    const std::lock_guard lock(mutex_);
    if (const auto at = known_.find(counts); at != known_.end()) return Judged{margin.max_loss, at->second};
  }
  std::vector<double> losses(scores.loss.size(), 0.0);
  std::fill_n(losses.begin(), lost, 1.0);
  std::fill_n(losses.rbegin(), gained, -1.0);
  const NonInferiority result = non_inferiority({}, losses, margin);
  const std::lock_guard lock(mutex_);
  known_.emplace(counts, result);
  return Judged{margin.max_loss, result};
}

}  // namespace kvsweep
