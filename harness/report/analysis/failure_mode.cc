#include "harness/report/analysis/failure_mode.h"

#include <algorithm>
#include <map>
#include <unordered_map>

namespace kvsweep {
namespace {

constexpr float kForgets = 0.5f;

FailureModes sorted(const std::map<std::string, int64_t>& counts) {
  FailureModes out;
  out.counts.assign(counts.begin(), counts.end());
  std::stable_sort(out.counts.begin(), out.counts.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [unused, items] : counts) out.items += items;
  return out;
}

}  // namespace

FailureModes failure_modes(const PairedScores& scores, const PointSamples& reference, const PointSamples& own,
                           const Record& record) {
  std::map<std::string, int64_t> counts;
  const bool generates = std::any_of(own.generated.begin(), own.generated.end(), [](int32_t n) { return n > 0; });
  const auto mode_of = [&](size_t i, size_t j) -> std::string {
    for (const auto& [metric, info] : record.metric_info) {
      if (info.failure.empty()) continue;
      const std::vector<double>*a = reference.find(metric), *b = own.find(metric);
      if (a == nullptr || b == nullptr) continue;
      if (info.higher_is_better ? (*b)[j] < (*a)[i] : (*b)[j] > (*a)[i]) return info.failure;
    }
    if (own.oldest[j] < kForgets * own.full_oldest[j]) return "forgets the beginning";
    return generates ? "other answer" : scores.binary() ? "other choice" : "less likely";
  };
  std::unordered_map<uint32_t, size_t> reference_at, own_at;
  for (size_t i = 0; i < reference.size(); ++i) reference_at[reference.item[i]] = i;
  for (size_t j = 0; j < own.size(); ++j) own_at[own.item[j]] = j;
  for (size_t k = 0; k < scores.item.size(); ++k)
    if (scores.loss[k] > 0) ++counts[mode_of(reference_at.at(scores.item[k]), own_at.at(scores.item[k]))];
  return sorted(counts);
}

FailureModes sum(const std::vector<const FailureModes*>& parts) {
  std::map<std::string, int64_t> counts;
  for (const FailureModes* part : parts)
    for (const auto& [mode, items] : part->counts) counts[mode] += items;
  return sorted(counts);
}

}  // namespace kvsweep
