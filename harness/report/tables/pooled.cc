#include "harness/report/tables/pooled.h"

#include "harness/core/error.h"

namespace kvsweep {

Pooled pooled_scores(const Analysis& analysis, const Pool& pool, const std::vector<const PooledRow*>& rows) {
  const Results& results = analysis.results();
  std::vector<std::string> gaps;
  for (const PooledRow* row : rows)
    if (!row->gap.empty()) gaps.push_back(row->configuration + ": " + row->gap);
  if (!gaps.empty()) return {{}, join(gaps, "; ")};
  std::vector<PairedScores> parts;
  const auto configurations = static_cast<double>(rows.size());
  for (size_t g = 0; g < pool.groups.size(); ++g) {
    for (const PooledRow* row : rows) {
      const Record& record = *row->rows[g]->record;
      PairedScores one = pair_scores(results, *pool.groups[g]->reference_samples, results, *results.samples(record.id),
                                     record, record.primary_metric);
      if (row == rows.front()) {
        for (auto* values : {&one.own, &one.loss})
          for (double& value : *values) value /= configurations;
        parts.push_back(std::move(one));
        continue;
      }
      PairedScores& sum = parts.back();
      if (one.item != sum.item) return {{}, pool.groups[g]->title + ": configurations were asked different items"};
      for (size_t i = 0; i < one.item.size(); ++i) {
        sum.own[i] += one.own[i] / configurations;
        sum.loss[i] += one.loss[i] / configurations;
      }
    }
  }
  return {stack(parts), ""};
}

}  // namespace kvsweep
