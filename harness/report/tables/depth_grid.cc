#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "harness/report/analysis/natural_order.h"
#include "harness/report/analysis/tag_means.h"
#include "harness/report/statistics/proportion.h"
#include "harness/report/tables/cells.h"
#include "harness/report/tables/tables.h"

namespace kvsweep {
namespace {

constexpr const char* kTag = "depth";

struct ByDepth {
  bool operator()(const std::string& a, const std::string& b) const {
    const int order = natural_compare(a, b);
    return order != 0 ? order < 0 : a < b;
  }
};

// Groups that differ in tokens only.
std::string question_but_tokens(const Point& point) {
  std::string text = fmt::format("{} v{}", point.task, point.task_version);
  for (const auto& [key, value] : point.task_params)
    if (key != "tokens") text += fmt::format(" {}={}", key, value);
  return text;
}

struct MapRow {
  const Record* record = nullptr;
  std::string gap;
  std::map<std::string, TagMean, ByDepth> cells;
};

struct Map {
  std::string title;
  const Record* first = nullptr;
  std::set<std::string, ByDepth> depths;
  std::vector<MapRow> rows;
};

const TagMeans* depths_of(const std::vector<TagMeans>& means) {
  const auto at = std::find_if(means.begin(), means.end(), [](const TagMeans& one) { return one.tag == kTag; });
  return at == means.end() ? nullptr : &*at;
}

// A cell is a share of items only where all are right or wrong.
bool is_share(const TagMean& cell) {
  const double right = cell.mean * static_cast<double>(cell.n);
  return std::abs(right - std::round(right)) < 1e-9 && cell.mean >= 0 && cell.mean <= 1;
}

void add_rows(const TableContext& context, const Group& group, Map& map) {
  const Results& results = context.analysis.results();
  for (const Row& row : group.rows) {
    if (!row.is_reference && !context.shows(*row.record)) continue;
    const PointSamples* samples = results.samples(row.record->id);
    MapRow& out = map.rows.emplace_back();
    out.record = row.record;
    out.gap = row.is_reference || row.loss ? "" : row.gap;
    if (samples == nullptr || !out.gap.empty()) continue;
    const std::vector<TagMeans> means = tag_means(results, *samples, row.record->primary_metric);
    const TagMeans* depths = depths_of(means);
    if (depths == nullptr) continue;
    for (const TagMean& cell : depths->means) {
      out.cells[cell.value] = cell;
      map.depths.insert(cell.value);
    }
  }
}

// Full precision first, then by scheme and bits, lengths of a configuration together.
void sort_rows(const TableContext& context, Map& map) {
  const auto key = [&](const MapRow& row) {
    const Record& record = *row.record;
    return std::tuple(record.id != record.reference_id, context.families.family(record), record.nominal_k_bits,
                      record.nominal_v_bits, record.point.tokens);
  };
  std::stable_sort(map.rows.begin(), map.rows.end(), [&](const MapRow& a, const MapRow& b) { return key(a) < key(b); });
}

std::string items_text(const Map& map) {
  int64_t least = 0, most = 0;
  for (const MapRow& row : map.rows) {
    for (const auto& [unused, cell] : row.cells) {
      least = least == 0 ? cell.n : std::min(least, cell.n);
      most = std::max(most, cell.n);
    }
  }
  const Interval all = clopper_pearson(std::max<int64_t>(least, 1), std::max<int64_t>(least, 1));
  return fmt::format("n {} a cell, so that a cell of 1.00 says {:.2f} or more (95 %)",
                     least == most ? fmt::to_string(least) : fmt::format("{} to {}", least, most), all.low);
}

Table table_of(const TableContext& context, const Map& map) {
  Table table;
  table.title = map.title + ": " + map.first->primary_info().shown_as + " by depth";
  table.about = {rules_text(*map.first), items_text(map)};
  table.columns = {{"scheme", true}, {"K"}, {"V"}, {"tokens"}};
  std::vector<const Record*> records;
  for (const std::string& depth : map.depths) table.columns.push_back({depth + " %"});
  for (const MapRow& row : map.rows) {
    const bool measured = row.record->status != "failed";
    records.push_back(row.record);
    const std::string name =
        measured ? context.families.family(*row.record) : context.families.configuration(*row.record);
    auto& cells = table.rows.emplace_back(std::vector{text_cell(name)});
    cells.push_back(measured ? number_cell(fmt::format("{:g}", row.record->nominal_k_bits)) : missing_cell());
    cells.push_back(measured ? number_cell(fmt::format("{:g}", row.record->nominal_v_bits)) : missing_cell());
    cells.push_back(number_cell(fmt::to_string(row.record->point.tokens)));
    for (const std::string& depth : map.depths) {
      const auto at = row.cells.find(depth);
      if (at == row.cells.end()) {
        cells.push_back(missing_cell());
        continue;
      }
      Cell& cell = cells.emplace_back(number_cell(fixed(at->second.mean, 2)));
      if (!std::isnan(at->second.mean)) cell.shade = at->second.mean;
    }
    if (!row.gap.empty())
      table.notes.push_back(fmt::format("{}, {} tokens: {}", context.families.configuration(*row.record),
                                        row.record->point.tokens, row.gap));
  }
  table.commits = commits_of(records);
  return table;
}

void add_csv(const TableContext& context, const Map& map, TextTable& csv) {
  for (const MapRow& row : map.rows) {
    const Point& point = row.record->point;
    const auto line = [&](const std::string& depth, const TagMean* cell) {
      const bool share = cell != nullptr && is_share(*cell);
      const Interval ends =
          share ? clopper_pearson(std::llround(cell->mean * static_cast<double>(cell->n)), cell->n) : Interval{};
      csv.rows.push_back({row.record->id, point.model, question_but_tokens(point), point.view,
                          fmt::to_string(point.seed), fmt::to_string(point.tokens),
                          context.families.configuration(*row.record), row.record->primary_metric, depth,
                          cell == nullptr ? "" : derived(cell->mean), cell == nullptr ? "" : fmt::to_string(cell->n),
                          share ? derived(ends.low) : "", share ? derived(ends.high) : "", row.gap});
    };
    for (const std::string& depth : map.depths) {
      const auto at = row.cells.find(depth);
      line(depth, at == row.cells.end() ? nullptr : &at->second);
    }
  }
}

}  // namespace

Document depth_grids(const TableContext& context) {
  std::vector<Map> maps;
  std::map<std::string, size_t> at;
  for (const Group& group : context.analysis.groups()) {
    if (!context.shows(group)) continue;
    const Point& point = group.first->point;
    const std::string question = question_but_tokens(point);
    const auto [found, fresh] =
        at.try_emplace(fmt::format("{}\n{}\n{}\n{}", point.model, question, point.view, point.seed), maps.size());
    if (fresh) {
      maps.emplace_back();
      maps.back().title = question;
      maps.back().first = group.first;
    }
    add_rows(context, group, maps[found->second]);
  }
  Document document;
  document.csv.columns = {{"id"},     {"model"},         {"task"}, {"view"}, {"seed"}, {"tokens"}, {"configuration"},
                          {"metric"}, {"depth_percent"}, {"mean"}, {"n"},    {"low"},  {"high"},   {"gap"}};
  for (Map& map : maps) {
    if (map.depths.empty()) continue;
    sort_rows(context, map);
    document.tables.push_back(table_of(context, map));
    add_csv(context, map, document.csv);
  }
  if (document.tables.empty()) {
    Table& none = document.tables.emplace_back();
    none.title = "no task here says at which depth its answers lie (tag 'depth')";
  }
  return document;
}

}  // namespace kvsweep
