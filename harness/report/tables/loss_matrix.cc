#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "harness/core/error.h"
#include "harness/report/tables/cells.h"
#include "harness/report/tables/pooled.h"
#include "harness/report/tables/tables.h"

namespace kvsweep {
namespace {

// A cell: one family in one pool at one number of key bits.
struct MatrixCell {
  std::vector<const PooledRow*> rows;
  std::vector<double> values;  // V bits of the rows
  std::optional<Comparison> loss;
  FailureModes failures;
  std::string gap;
};

struct MatrixRow {
  const Pool* pool = nullptr;
  std::string family;
  std::set<double> v_bits;  // in every cell
  bool balanced = true;     // false: no V bits are measured with all K bits, each cell has its own
  std::map<double, MatrixCell> cells;
};

// Rows by family and K bits, cut to those V bits that the family has with all of them: then cells of a row differ in
// their keys alone.
std::map<std::string, MatrixRow> rows_of(const TableContext& context, const Pool& pool) {
  std::map<std::string, MatrixRow> rows;
  for (const PooledRow& row : pool.rows) {
    if (row.record == nullptr || row.record->status == "failed" || !context.shows(row)) continue;
    MatrixRow& of = rows[context.families.family(*row.record)];
    of.pool = &pool;
    MatrixCell& cell = of.cells[row.record->nominal_k_bits];
    cell.rows.push_back(&row);
    cell.values.push_back(row.record->nominal_v_bits);
  }
  for (auto& [family, row] : rows) {
    row.family = family;
    row.v_bits = {row.cells.begin()->second.values.begin(), row.cells.begin()->second.values.end()};
    for (const auto& [unused, cell] : row.cells)
      std::erase_if(row.v_bits, [&](double v) { return std::ranges::count(cell.values, v) == 0; });
    row.balanced = !row.v_bits.empty();
    if (!row.balanced) continue;
    for (auto& [unused, cell] : row.cells) {
      std::erase_if(cell.rows, [&](const PooledRow* one) { return !row.v_bits.contains(one->record->nominal_v_bits); });
      cell.values = {row.v_bits.begin(), row.v_bits.end()};
    }
  }
  return rows;
}

void fill(const Analysis& analysis, MatrixRow& row, std::vector<Comparison*>& family) {
  for (auto& [unused, cell] : row.cells) {
    const Pooled pooled = pooled_scores(analysis, *row.pool, cell.rows);
    cell.gap = pooled.gap;
    std::vector<const FailureModes*> failures;
    for (const PooledRow* one : cell.rows) failures.push_back(&one->failures);
    cell.failures = sum(failures);
    if (!cell.gap.empty()) continue;
    cell.loss = compare(pooled.scores, analysis.options());
    family.push_back(&*cell.loss);
  }
}

std::string bits_list(const std::vector<double>& bits) {
  std::vector<std::string> texts;
  for (const double one : bits) texts.push_back(fmt::format("{:g}", one));
  return join(texts);
}

// "other answer 80 % of 24"
std::string failure_text(const FailureModes& failures) {
  if (failures.dominant() == nullptr) return "none";
  const double share = static_cast<double>(failures.counts.front().second) / static_cast<double>(failures.items);
  return fmt::format("{} {:.0f} % of {}", *failures.dominant(), 100 * share, failures.items);
}

using CellText = std::function<Cell(const MatrixCell&)>;

Table matrix(const std::vector<MatrixRow>& rows, const std::set<double>& k_bits, const CellText& text) {
  Table table;
  table.columns = {{"tasks", true}, {"scheme", true}, {"V bits", true}};
  for (const double k : k_bits) table.columns.push_back({fmt::format("K {:g}", k)});
  for (const MatrixRow& row : rows) {
    auto& line = table.rows.emplace_back();
    line.push_back(text_cell(pool_title(*row.pool)));
    line.push_back(text_cell(row.family));
    line.push_back(text_cell(row.balanced ? bits_list({row.v_bits.begin(), row.v_bits.end()}) : "each its own"));
    for (const double k : k_bits) {
      const auto at = row.cells.find(k);
      if (at == row.cells.end())
        line.push_back(missing_cell());
      else
        line.push_back(at->second.loss ? text(at->second) : text_cell("missing"));
    }
  }
  return table;
}

void add_csv(const MatrixRow& row, TextTable& csv) {
  for (const auto& [k, cell] : row.cells) {
    const auto& loss = cell.loss;
    const auto of_loss = [&](double value) { return loss ? derived(value) : ""; };
    const Comparison c = loss.value_or(Comparison{});
    const Interval ends = loss ? c.interval : Interval{};
    const bool failures = loss && cell.failures.dominant() != nullptr;
    std::vector<std::string> configurations;
    for (const PooledRow* one : cell.rows) configurations.push_back(one->configuration);
    csv.rows.push_back({row.pool->model, row.pool->view, row.pool->kind.empty() ? "all" : row.pool->kind, row.family,
                        fmt::format("{:g}", k), bits_list(cell.values), loss ? fmt::to_string(c.n) : "",
                        of_loss(c.loss), of_loss(ends.low), of_loss(ends.high), of_loss(c.p_adjusted),
                        loss ? derived(seen(c)) : "", failures ? *cell.failures.dominant() : "",
                        failures ? derived(static_cast<double>(cell.failures.counts.front().second) /
                                           static_cast<double>(cell.failures.items))
                                 : "",
                        loss ? fmt::to_string(cell.failures.items) : "", join(configurations, "; "), cell.gap});
  }
}

}  // namespace

Document loss_matrix(const TableContext& context) {
  std::map<std::pair<std::string, std::string>, std::vector<const Pool*>> tables;  // by model and view
  for (const Pool* pool : pools_of(context.analysis)) tables[{pool->model, pool->view}].push_back(pool);
  Document document;
  document.csv.columns = {{"model"},          {"view"},       {"kind"},    {"family"},        {"k_bits"},
                          {"v_bits"},         {"n"},          {"loss"},    {"loss_low"},      {"loss_high"},
                          {"p_holm"},         {"detectable"}, {"failure"}, {"failure_share"}, {"items_worse"},
                          {"configurations"}, {"gap"}};
  for (const auto& [key, members] : tables) {
    std::vector<MatrixRow> rows;
    std::vector<Comparison*> family;
    std::vector<const Record*> records;
    std::vector<std::string> about, notes;
    for (const Pool* pool : members) {
      about.push_back(pool_title(*pool) + ": " + pool_text(*pool));
      for (const Record* record : records_of(*pool)) records.push_back(record);
      for (auto& [unused, row] : rows_of(context, *pool)) rows.push_back(std::move(row));
      for (const PooledRow& row : pool->rows)
        if (context.shows(row) && (row.record == nullptr || row.record->status == "failed"))
          notes.push_back(fmt::format("{}: {}: {}", pool_title(*pool), configuration_name(context, row), row.gap));
    }
    std::set<double> k_bits;
    Decimals decimals;
    for (MatrixRow& row : rows) fill(context.analysis, row, family);
    adjust(family);
    for (const MatrixRow& row : rows) {
      add_csv(row, document.csv);
      for (const auto& [k, cell] : row.cells) {
        k_bits.insert(k);
        if (cell.loss && !cell.loss->exponential) decimals.add(cell.loss->standard_error);
        if (!cell.gap.empty())
          notes.push_back(fmt::format("missing: {}, {} K{:g}: {}", pool_title(*row.pool), row.family, k, cell.gap));
      }
    }
    Table losses =
        matrix(rows, k_bits, [&](const MatrixCell& cell) { return loss_cell_alone(*cell.loss, decimals.count()); });
    losses.title = fmt::format("loss by kind of task and key bits: model {}, view {}", key.first, key.second);
    about.back() += " | " + context.bounds_text();
    losses.about = std::move(about);
    losses.notes = std::move(notes);
    losses.commits = commits_of(records);
    Table failures =
        matrix(rows, k_bits, [](const MatrixCell& cell) { return text_cell(failure_text(cell.failures)); });
    failures.title = "how items that became worse failed: the most frequent way, its share";
    failures.level = 4;
    document.tables.push_back(std::move(losses));
    document.tables.push_back(std::move(failures));
  }
  document.legend = {
      "a cell is the mean over the V bits named, which the scheme has with all of the row's K bits, of the mean over "
      "tasks of the "
      "loss; of perplexities the ratio; p is adjusted by Holm over the table",
      "~x: no difference shown, one of x would have been found (one-sided 5 %, power 80 %); missing: see the notes, "
      "never a mean of the "
      "rest; -: not run"};
  return document;
}

}  // namespace kvsweep
