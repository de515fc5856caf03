#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "harness/core/error.h"
#include "harness/report/analysis/natural_order.h"
#include "harness/report/shown.h"
#include "harness/report/tables/cells.h"
#include "harness/report/tables/tables.h"

namespace kvsweep {
namespace {

using Values = std::vector<std::string>;

struct Naturally {
  bool operator()(const Values& a, const Values& b) const {
    for (size_t i = 0; i < a.size(); ++i) {
      const int order = natural_compare(a[i], b[i]);
      if (order != 0) return order < 0;
    }
    return a < b;
  }
};

struct PivotPoint {
  const Group* group = nullptr;
  const Row* row = nullptr;
};

// "needle", or with the parameters in which the results' groups of that task differ beside their length.
std::string task_name(const TableContext& context, const Point& point) {
  std::string name = point.task;
  for (const auto& [key, value] : point.task_params) {
    if (key == "tokens") continue;
    for (const Group& group : context.analysis.groups()) {
      const Point& other = group.first->point;
      const auto differs = [&, k = key, v = value](const auto& param) { return param.first == k && param.second != v; };
      if (other.task == point.task && std::any_of(other.task_params.begin(), other.task_params.end(), differs)) {
        name += fmt::format(" {}={}", key, value);
        break;
      }
    }
  }
  return name;
}

std::string value_of(const TableContext& context, const PivotPoint& point, const std::string& key) {
  const Record& record = *point.row->record;
  if (key == "model") return record.point.model;
  if (key == "task") return task_name(context, record.point);
  if (key == "tokens") return fmt::to_string(record.point.tokens);
  if (key == "view") return record.point.view;
  if (key == "seed") return fmt::to_string(record.point.seed);
  if (key == "scheme") return context.families.family(record);
  return fmt::format("{:g}", key == "k_bits" ? record.nominal_k_bits : record.nominal_v_bits);
}

void require_keys(const PivotRequest& request) {
  const std::vector<std::string> known(std::begin(kPivotKeys), std::end(kPivotKeys));
  std::set<std::string> seen;
  for (const auto* keys : {&request.rows, &request.columns}) {
    for (const std::string& key : *keys) {
      const char* option = keys == &request.rows ? "--rows" : "--columns";
      if (std::find(known.begin(), known.end(), key) == known.end())
        throw ConfigError(fmt::format("{} {}: is not a key; allowed: {}", option, key, join(known)));
      if (!seen.insert(key).second) throw ConfigError(fmt::format("{} {}: is given twice", option, key));
    }
  }
}

// Keys in which the points differ and that were not asked for.
Values left_over(const TableContext& context, const std::vector<PivotPoint>& points, const PivotRequest& request) {
  Values keys;
  for (const std::string key : kPivotKeys) {
    const auto asked = [&](const Values& of) { return std::find(of.begin(), of.end(), key) != of.end(); };
    if (asked(request.rows) || asked(request.columns)) continue;
    std::set<std::string> values;
    for (const PivotPoint& point : points) values.insert(value_of(context, point, key));
    if (values.size() > 1) keys.push_back(key);
  }
  return keys;
}

int loss_decimals(const std::vector<PivotPoint>& points) {
  Decimals decimals;
  for (const PivotPoint& point : points)
    if (point.row->loss && !point.row->loss->exponential) decimals.add(point.row->loss->standard_error);
  return decimals.count();
}

Cell cell_of(const Row& row, PivotCell kind, int decimals) {
  const Record& record = *row.record;
  if (kind == PivotCell::kBits) return number_cell(fmt::format("{:.3f}", record.effective_bits));
  if (record.status == "not_engaged") return text_cell("not engaged");
  if (kind == PivotCell::kKl)
    return record.kl.n == 0 ? missing_cell()
                            : text_cell(significant(record.kl.mean) + "±" + significant(record.kl.standard_error));
  if (kind == PivotCell::kLoss)
    return row.loss ? loss_cell_alone(*row.loss, decimals) : text_cell(row.gap.substr(0, row.gap.find(':')));
  const Shown shown = shown_score(record);
  if (!row.score) return error_cell(shown.value, shown.standard_error, 4, false);
  const bool exponential = record.primary_info().exponential;
  return interval_cell(shown.value,
                       exponential ? Interval{std::exp(row.score->low), std::exp(row.score->high)} : *row.score,
                       exponential ? 2 : 4, false);
}

const char* name_of(PivotCell cell) {
  switch (cell) {
    case PivotCell::kLoss:
      return "loss";
    case PivotCell::kScore:
      return "score";
    case PivotCell::kKl:
      return "KL";
    case PivotCell::kBits:
      return "effective bits";
  }
  return "";
}

void add_csv(const TableContext& context, const PivotPoint& point, TextTable& csv) {
  std::vector<std::string> line = {point.row->record->id};
  for (const std::string key : kPivotKeys) line.push_back(value_of(context, point, key));
  const Record& record = *point.row->record;
  const bool measured = record.status != "failed";
  const auto& loss = point.row->loss;
  const Interval ends = loss ? loss->interval : Interval{};
  const auto of_loss = [&](double value) { return loss ? derived(value) : ""; };
  line.insert(line.end(), {loss ? loss->metric : record.primary_metric, loss ? fmt::to_string(loss->n) : "",
                           measured ? derived(record.metrics.at(record.primary_metric).mean) : "",
                           point.row->score ? derived(point.row->score->low) : "",
                           point.row->score ? derived(point.row->score->high) : "", of_loss(loss ? loss->loss : 0),
                           of_loss(ends.low), of_loss(ends.high), of_loss(loss ? loss->p_adjusted : 0),
                           loss ? derived(seen(*loss)) : "", measured && record.kl.n > 0 ? derived(record.kl.mean) : "",
                           measured ? derived(record.effective_bits) : "", point.row->gap});
  csv.rows.push_back(std::move(line));
}

}  // namespace

Document pivot_tables(const TableContext& context, const PivotRequest& request) {
  require_keys(request);
  std::vector<PivotPoint> points, failed;
  std::vector<const Record*> records;
  std::set<std::string> n;
  for (const Group& group : context.analysis.groups()) {
    for (const Row& row : group.rows) {
      if (row.is_reference || row.record->id == group.reference_id || !context.shows(*row.record)) continue;
      (row.record->status == "failed" ? failed : points).push_back({&group, &row});
      records.push_back(row.record);
      if (row.record->n > 0) n.insert(fmt::to_string(row.record->n));
    }
  }
  Document document;
  document.csv.columns = {{"id"}};
  for (const char* key : kPivotKeys) document.csv.columns.push_back({key});
  for (const char* title : {"metric", "n", "mean", "mean_low", "mean_high", "loss", "loss_low", "loss_high", "p_holm",
                            "detectable", "kl", "effective_bits", "gap"})
    document.csv.columns.push_back({title});

  Values row_keys = request.rows;
  for (std::string& key : left_over(context, points, request)) row_keys.push_back(std::move(key));
  std::map<Values, std::map<Values, const PivotPoint*, Naturally>, Naturally> cells;
  std::set<Values, Naturally> columns;
  const auto values = [&](const PivotPoint& point, const Values& keys) {
    Values out;
    for (const std::string& key : keys) out.push_back(value_of(context, point, key));
    return out;
  };
  for (const PivotPoint& point : points) {
    const Values column = values(point, request.columns);
    columns.insert(column);
    cells[values(point, row_keys)][column] = &point;
    add_csv(context, point, document.csv);
  }
  for (const PivotPoint& point : failed) add_csv(context, point, document.csv);

  Table table;
  table.title = fmt::format("{}: {} by {}", name_of(request.cell), join(row_keys, " x "), join(request.columns, " x "));
  if (!points.empty()) table.about = {rules_text(*points.front().row->record)};
  std::set<std::string> rules;
  for (const PivotPoint& point : points) rules.insert(rules_text(*point.row->record));
  if (rules.size() > 1) table.about = {rules.begin(), rules.end()};
  if (!table.about.empty())
    table.about.back() += fmt::format(" | n {} | {}", join({n.begin(), n.end()}), context.bounds_text());
  table.commits = commits_of(records);
  for (const std::string& key : row_keys) table.columns.push_back({key, true});
  for (const Values& column : columns) {
    std::vector<std::string> titles;
    for (size_t i = 0; i < column.size(); ++i) titles.push_back(request.columns[i] + " " + column[i]);
    table.columns.push_back({titles.empty() ? name_of(request.cell) : join(titles)});
  }
  const int decimals = loss_decimals(points);
  for (const auto& [key, row] : cells) {
    auto& line = table.rows.emplace_back();
    for (const std::string& value : key) line.push_back(text_cell(value));
    for (const Values& column : columns) {
      const auto at = row.find(column);
      line.push_back(at == row.end() ? missing_cell() : cell_of(*at->second->row, request.cell, decimals));
    }
  }
  for (const PivotPoint& point : failed)
    table.notes.push_back(fmt::format("{}, {} {}: {}", configuration_of(*point.row->record),
                                      point.row->record->point.task, point.row->record->point.tokens, point.row->gap));
  document.tables.push_back(std::move(table));
  document.legend = {
      "loss: full precision less the scheme on the same items; of perplexities the ratio of the scheme's to full "
      "precision's; ~x: no difference shown, one of x would have been found (one-sided 5 %, power 80 %)",
      "-: not run"};
  if (request.cell != PivotCell::kLoss) document.legend.erase(document.legend.begin());
  return document;
}

}  // namespace kvsweep
