#pragma once

#include <string>
#include <vector>

#include "harness/report/analysis/analysis.h"
#include "harness/report/analysis/family.h"
#include "harness/report/tables/table.h"

namespace kvsweep {

enum class TableKind { kMain, kPivot, kLoss, kRecommend, kPareto, kKeyValue, kGrid };

enum class PivotCell { kLoss, kScore, kKl, kBits };

struct PivotRequest {
  // Of kPivotKeys. What differs within the results and is no key of either becomes a row key behind those asked for:
  // every cell is one point, and nothing is averaged.
  std::vector<std::string> rows = {"task", "tokens", "scheme", "k_bits"};
  std::vector<std::string> columns = {"v_bits"};
  PivotCell cell = PivotCell::kLoss;
};
inline constexpr const char* kPivotKeys[] = {"model", "task", "tokens", "view", "seed", "scheme", "k_bits", "v_bits"};

struct TableRequest {
  TableKind kind = TableKind::kMain;
  // Glob over point labels, as that of `kvsweep run --only`: what is shown of what was analysed. Adjusted p and pools
  // stay those of everything; full precision is always shown. "": all.
  std::string only;
  PivotRequest pivot;
  RenderOptions render;
};

// A pure function of the analysis. Throws ConfigError: `only` matches no point, a key of the pivot that there is not or
// that is given twice; DataError: a record that lacks its own primary metric.
std::string render_tables(const Analysis& analysis, const TableRequest& request);

// What the tables of one command share.
struct TableContext {
  const Analysis& analysis;
  const Families& families;
  std::string only;

  bool shows(const Record& record) const;
  bool shows(const Group& group) const;    // a row of it besides full precision
  bool shows(const PooledRow& row) const;  // one of its points
  double confidence() const { return analysis.options().confidence; }
  std::string bounds_text() const;  // "intervals of 95 %"
};

Document main_tables(const TableContext& context);
Document pivot_tables(const TableContext& context, const PivotRequest& request);
Document loss_matrix(const TableContext& context);
Document recommended(const TableContext& context);
Document pareto_tables(const TableContext& context);
Document key_value_tables(const TableContext& context);
Document depth_grids(const TableContext& context);

// "view exact | seed 17 | model smollm2-135m | weights b179c952 | data none"
std::string rules_text(const Record& record);
// "model smollm2-135m | view exact | 3 tasks: needle 512, needle 1024, kv_retrieval 512"
std::string pool_text(const Pool& pool);
std::string pool_title(const Pool& pool);  // its kind, or "all tasks but language modeling"
// Commits of the program that made the records, each once: "0123abcd, 4567cdef (dirty)".
std::string commits_of(const std::vector<const Record*>& records);
std::vector<const Record*> records_of(const Pool& pool);
// Pools in the order of the analysis, without that of all tasks where a kind's has the same groups.
std::vector<const Pool*> pools_of(const Analysis& analysis);
// Items of all groups.
int64_t items_of(const Pool& pool);
std::string configuration_name(const TableContext& context, const PooledRow& row);

}  // namespace kvsweep
