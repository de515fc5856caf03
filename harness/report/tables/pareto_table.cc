#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/report/tables/cells.h"
#include "harness/report/tables/tables.h"

namespace kvsweep {
namespace {

struct Cost {
  const char* title;
  const char* name;  // in CSV
  int decimals;
  double (*of)(const PooledRow&);
};

constexpr Cost kCosts[] = {{"eff. bits", "effective_bits", 3, [](const PooledRow& row) { return row.effective_bits; }},
                           {"B/token", "bytes_per_token", 1, [](const PooledRow& row) { return row.bytes_per_token; }},
                           {"ms/token", "decode_ms_per_token", 2, [](const PooledRow& row) {
                              return row.decode_ms_per_token.value_or(std::numeric_limits<double>::quiet_NaN());
                            }}};

// Points of one front: pooled rows with a loss and that cost, the cheapest first.
std::vector<const PooledRow*> candidates(const TableContext& context, const Pool& pool, const Cost& cost) {
  std::vector<const PooledRow*> rows;
  for (const PooledRow& row : pool.rows)
    if (row.gap.empty() && row.loss && row.loss->not_numbers == 0 && context.shows(row) && !std::isnan(cost.of(row)))
      rows.push_back(&row);
  std::stable_sort(rows.begin(), rows.end(), [&](const PooledRow* a, const PooledRow* b) {
    return std::pair(cost.of(*a), a->loss->loss) < std::pair(cost.of(*b), b->loss->loss);
  });
  return rows;
}

// Of those that are no worse in both and better in one, the one with the least loss, then the least cost.
const PooledRow* dominator(const std::vector<const PooledRow*>& rows, const PooledRow* row, const Cost& cost) {
  const PooledRow* best = nullptr;
  for (const PooledRow* other : rows) {
    const double c = cost.of(*other), own = cost.of(*row), l = other->loss->loss, own_l = row->loss->loss;
    if (!(c <= own && l <= own_l && (c < own || l < own_l))) continue;
    if (best == nullptr || std::pair(l, c) < std::pair(best->loss->loss, cost.of(*best))) best = other;
  }
  return best;
}

}  // namespace

Document pareto_tables(const TableContext& context) {
  Document document;
  document.csv.columns = {{"model"},      {"view"}, {"kind"},     {"cost"},         {"configuration"},
                          {"value"},      {"loss"}, {"loss_low"}, {"loss_high"},    {"p_holm"},
                          {"detectable"}, {"n"},    {"on_front"}, {"dominated_by"}, {"gap"}};
  for (const Pool* const one_pool : pools_of(context.analysis)) {
    const Pool& pool = *one_pool;
    for (const Cost& cost : kCosts) {
      const std::vector<const PooledRow*> rows = candidates(context, pool, cost);
      Table table;
      table.title = fmt::format("{}: loss against {}", pool_title(pool), cost.title);
      table.about = {pool_text(pool) + " | " + context.bounds_text()};
      table.commits = commits_of(records_of(pool));
      const bool exponential = !rows.empty() && rows.front()->loss->exponential;
      table.columns = {{"configuration", true},
                       {cost.title},
                       {exponential ? "ratio" : "loss"},
                       {"front", true},
                       {"beaten by", true}};
      Decimals decimals;
      for (const PooledRow* row : rows) decimals.add(row->loss->standard_error);
      for (const PooledRow* row : rows) {
        const PooledRow* by = dominator(rows, row, cost);
        const std::string by_name = by == nullptr ? "" : configuration_name(context, *by);
        const Interval ends = row->loss->interval;
        table.rows.push_back(
            {text_cell(configuration_name(context, *row)), number_cell(fixed(cost.of(*row), cost.decimals)),
             loss_cell_alone(*row->loss, decimals.count()), text_cell(by == nullptr ? "*" : ""), text_cell(by_name)});
        document.csv.rows.push_back({pool.model, pool.view, pool.kind.empty() ? "all" : pool.kind, cost.name,
                                     configuration_name(context, *row), derived(cost.of(*row)),
                                     derived(row->loss->loss), derived(ends.low), derived(ends.high),
                                     derived(row->loss->p_adjusted), derived(seen(*row->loss)),
                                     fmt::to_string(row->loss->n), by == nullptr ? "true" : "false", by_name, ""});
      }
      for (const PooledRow& row : pool.rows) {
        if (!context.shows(row)) continue;
        std::string gap = row.gap;
        if (gap.empty() && std::isnan(cost.of(row))) gap = "not timed";
        if (gap.empty()) continue;
        table.notes.push_back(fmt::format("not in it: {}: {}", configuration_name(context, row), gap));
        document.csv.rows.push_back({pool.model, pool.view, pool.kind.empty() ? "all" : pool.kind, cost.name,
                                     configuration_name(context, row), "", "", "", "", "", "", "", "", "", gap});
      }
      document.tables.push_back(std::move(table));
    }
  }
  document.legend = {
      "*: nothing here has both less or equal cost and less or equal loss; by point losses: a neighbour whose interval "
      "overlaps may be as good",
      "loss: mean of the tasks' losses, each of the same weight; ~x: no difference shown, one of x would have been "
      "found (one-sided 5 %, power 80 %)"};
  return document;
}

}  // namespace kvsweep
