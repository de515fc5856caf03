#pragma once

#include <string>
#include <vector>

#include "harness/report/analysis/analysis.h"

namespace kvsweep {

// Configurations of one pool as one column of items: of each item the mean of the configurations' scores. Every one of
// them must have a loss in every group (no gap), on the same items; "" in `gap`, else what is wrong.
struct Pooled {
  PairedScores scores;
  std::string gap;
};
Pooled pooled_scores(const Analysis& analysis, const Pool& pool, const std::vector<const PooledRow*>& rows);

}  // namespace kvsweep
