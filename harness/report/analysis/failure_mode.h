#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "harness/report/analysis/comparison.h"

namespace kvsweep {

// How items that became worse failed, most frequent first. One mode an item: the first of
//  * the modes of the task's diagnostics whose value is worse than the reference's (MetricInfo::failure), in order of
//    the metrics' names;
//  * "forgets the beginning": attention on the oldest tenth is less than half of full precision's;
//  * "other answer" of generated texts, "other choice" of choices, "less likely" of scored texts.
struct FailureModes {
  std::vector<std::pair<std::string, int64_t>> counts;
  int64_t items = 0;  // that became worse

  const std::string* dominant() const { return counts.empty() ? nullptr : &counts.front().first; }
};

// Both points are of the same results.
FailureModes failure_modes(const PairedScores& scores, const PointSamples& reference, const PointSamples& own,
                           const Record& record);

FailureModes sum(const std::vector<const FailureModes*>& parts);

}  // namespace kvsweep
