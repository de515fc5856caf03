#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/core/error.h"
#include "harness/report/analysis/margins.h"
#include "harness/report/statistics/margin.h"
#include "harness/report/tables/cells.h"
#include "harness/report/tables/pooled.h"
#include "harness/report/tables/tables.h"

namespace kvsweep {
namespace {

constexpr double kBudgets[] = {8, 6, 5, 4, 3, 2.5};  // effective bits
constexpr double kConfidence = 0.95;                 // one-sided, of the bound

struct Candidate {
  const PooledRow* row = nullptr;
  double margin = 0;
  NonInferiority test;
};

std::vector<Candidate> candidates(const TableContext& context, const Pool& pool) {
  std::vector<Candidate> out;
  for (const PooledRow& row : pool.rows) {
    if (!row.gap.empty() || !row.loss || row.loss->not_numbers > 0 || !context.shows(row)) continue;
    const Pooled pooled = pooled_scores(context.analysis, pool, {&row});
    Candidate& candidate = out.emplace_back();
    candidate.row = &row;
    Margin margin;
    margin.max_loss = candidate.margin = suggested_margin(row.record->nominal_k_bits, row.record->nominal_v_bits);
    margin.confidence = kConfidence;
    if (pooled.scores.exponential) margin.range.reset();
    candidate.test = non_inferiority(pooled.scores.design, pooled.scores.loss, margin);
  }
  return out;
}

// Least upper bound within the budget, then least bits: no other candidate has both less of bits and of the bound.
const Candidate* best(const std::vector<Candidate>& all, double budget) {
  const Candidate* chosen = nullptr;
  const auto key = [](const Candidate& one) {
    return std::tuple(one.test.bounds.high, one.row->effective_bits, one.row->loss->loss);
  };
  for (const Candidate& one : all) {
    if (one.row->effective_bits > budget || std::isnan(one.test.bounds.high)) continue;
    if (chosen == nullptr || key(one) < key(*chosen)) chosen = &one;
  }
  return chosen;
}

std::string verdict_of(const Candidate& one) {
  if (one.row->loss->exponential) return "no margin for perplexities";
  const std::string margin = fmt::format("{:g} points", 100 * one.margin);
  switch (one.test.verdict) {
    case Verdict::kPass:
      return "loses less than " + margin;
    case Verdict::kFail:
      return "loses more than " + margin;
    case Verdict::kInconclusive:
      break;
  }
  return one.test.items_needed > 0 ? fmt::format("open: {}, {} items needed", margin, one.test.items_needed)
                                   : "open: " + margin;
}

std::vector<std::string> ids_of(const PooledRow& row) {
  std::vector<std::string> ids;
  for (const Row* one : row.rows) ids.push_back(one->record->id);
  return ids;
}

const char* verdict_name(Verdict verdict) {
  return verdict == Verdict::kPass ? "pass" : verdict == Verdict::kFail ? "fail" : "inconclusive";
}

}  // namespace

Document recommended(const TableContext& context) {
  Document document;
  document.csv.columns = {{"model"},
                          {"view"},
                          {"kind"},
                          {"budget_effective_bits"},
                          {"configuration"},
                          {"effective_bits"},
                          {"bytes_per_token"},
                          {"decode_ms_per_token"},
                          {"loss"},
                          {"loss_low"},
                          {"loss_high"},
                          {"upper_bound"},
                          {"margin"},
                          {"verdict"},
                          {"items_needed"},
                          {"n"},
                          {"tasks"},
                          {"records"}};
  for (const Pool* const one_pool : pools_of(context.analysis)) {
    const Pool& pool = *one_pool;
    const std::vector<Candidate> all = candidates(context, pool);
    const bool exponential = !all.empty() && all.front().row->loss->exponential;
    Table table;
    table.title = "recommended: " + pool_title(pool);
    table.about = {pool_text(pool) + " | " + context.bounds_text()};
    table.commits = commits_of(records_of(pool));
    table.columns = {{"eff. bits at most"}, {"configuration", true},          {"eff. bits"}, {"B/token"},
                     {"ms/token"},          {exponential ? "ratio" : "loss"}, {"at most"},   {"n"},
                     {"verdict", true}};
    Decimals decimals;
    for (const Candidate& one : all) decimals.add(one.row->loss->standard_error);
    std::map<std::string, std::string> support;
    std::vector<std::string> tasks;
    for (const Group* group : pool.groups)
      tasks.push_back(fmt::format("{} {}", group->first->point.task, group->first->point.tokens));
    for (const double budget : kBudgets) {
      const Candidate* one = best(all, budget);
      auto& line = table.rows.emplace_back(std::vector{number_cell(fmt::format("{:g}", budget))});
      std::vector<std::string> csv = {pool.model, pool.view, pool.kind.empty() ? "all" : pool.kind,
                                      fmt::format("{:g}", budget)};
      if (one == nullptr) {
        line.push_back(text_cell("none measured"));
        csv.push_back("");
      } else {
        const PooledRow& row = *one->row;
        const Comparison& c = *row.loss;
        const Interval ends = c.interval;
        const std::string name = configuration_name(context, row);
        const double bound = one->test.bounds.high;
        line.insert(
            line.end(),
            {text_cell(name), number_cell(fixed(row.effective_bits, 3)), number_cell(fixed(row.bytes_per_token, 1)),
             row.decode_ms_per_token ? number_cell(fixed(*row.decode_ms_per_token, 2)) : missing_cell(),
             loss_cell_alone(c, decimals.count()),
             number_cell(exponential ? fixed(std::exp(bound), 4) : fixed(bound, decimals.count())),
             number_cell(fmt::to_string(c.n)), text_cell(verdict_of(*one))});
        support[name] = fmt::format("{}: records {}", name, join(ids_of(row), " "));
        csv.insert(csv.end(),
                   {name, derived(row.effective_bits), derived(row.bytes_per_token), derived(row.decode_ms_per_token),
                    derived(c.loss), derived(ends.low), derived(ends.high), derived(bound),
                    exponential ? "" : derived(one->margin), exponential ? "" : verdict_name(one->test.verdict),
                    one->test.items_needed > 0 && !exponential ? fmt::to_string(one->test.items_needed) : "",
                    fmt::to_string(c.n), join(tasks, "; "), join(ids_of(row), " ")});
      }
      line.resize(table.columns.size(), missing_cell());
      csv.resize(document.csv.columns.size());
      document.csv.rows.push_back(std::move(csv));
    }
    for (const auto& [unused, note] : support) table.notes.push_back(note);
    for (const PooledRow& row : pool.rows)
      if (context.shows(row) && !row.gap.empty())
        table.notes.push_back(fmt::format("not considered: {}: {}", configuration_name(context, row), row.gap));
    document.tables.push_back(std::move(table));
  }
  document.legend = {
      "recommended: of the configurations without a gap within the budget the one whose loss has the least upper bound "
      "(at most: "
      "one-sided 95 %, exact for scores in [0, 1]), then the least bits",
      "verdict: that bound against a margin by nominal bits, the mean of K and V: 4 points up to 2 bits, 2 up to 3, 1 "
      "up "
      "to 4, 0.5 above; chosen and judged on the same items, which flatters the choice",
      "loss: mean of the tasks' losses, each of the same weight; ~x: no difference shown, one of x would have been "
      "found (one-sided "
      "5 %, power 80 %)"};
  return document;
}

}  // namespace kvsweep
