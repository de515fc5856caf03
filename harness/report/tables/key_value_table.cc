#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/core/error.h"
#include "harness/report/analysis/key_or_value.h"
#include "harness/report/tables/cells.h"
#include "harness/report/tables/tables.h"

namespace kvsweep {
namespace {

std::string where(const KeyValueContrast& contrast) {
  if (contrast.pool != nullptr) return pool_title(*contrast.pool);
  return fmt::format("{} {}", contrast.group->first->point.task, contrast.group->first->point.tokens);
}

std::string widths(const KeyValueContrast& contrast) {
  return fmt::format("{} against {}", bits_text(contrast.low, contrast.high), bits_text(contrast.high, contrast.low));
}

Cell contrast_cell(const std::optional<Comparison>& contrast, int decimals) {
  return contrast ? loss_cell(*contrast, decimals) : missing_cell();
}

std::string answer(const std::optional<Comparison>& contrast, int decimals) {
  if (!contrast) return kNone;
  const std::string text = sensitive(*contrast);
  return text == "not shown" ? text + " ~" + seen_cell(*contrast, decimals).text : text;
}

Table contrast_table(const std::vector<const KeyValueContrast*>& contrasts) {
  Table table;
  table.columns = {{"tasks", true},
                   {"scheme", true},
                   {"contrast", true},
                   {"eff. bits", true},
                   {"score"},
                   {"answer", true},
                   {"KL"},
                   {"answer", true},
                   {"n"}};
  Decimals score, kl;
  for (const KeyValueContrast* one : contrasts) {
    if (one->score && !one->score->exponential) score.add(one->score->standard_error);
    if (one->kl) kl.add(one->kl->standard_error);
  }
  std::vector<const Record*> records;
  for (const KeyValueContrast* one : contrasts) {
    table.rows.push_back({text_cell(where(*one)), text_cell(one->family), text_cell(widths(*one)),
                          text_cell(fmt::format("{:.2f}, {:.2f}", one->low_keys_bits, one->low_values_bits)),
                          contrast_cell(one->score, score.count()), text_cell(answer(one->score, score.count())),
                          contrast_cell(one->kl, kl.count()), text_cell(answer(one->kl, kl.count())),
                          one->score ? number_cell(fmt::to_string(one->score->n)) : missing_cell()});
    if (!one->gap.empty())
      table.notes.push_back(fmt::format("{}, {} {}: {}", where(*one), one->family, widths(*one), one->gap));
  }
  return table;
}

Cell slope_cell(const std::optional<KeyValueSlopes>& slopes, double slope, const Interval& interval, int decimals) {
  return slopes ? interval_cell(slope, interval, decimals, true) : missing_cell();
}

std::string symmetric(const std::optional<KeyValueSlopes>& slopes) {
  if (!slopes) return kNone;
  if (std::isnan(slopes->difference_p)) return "no answer";
  if (slopes->difference_p == 1) return "equal";
  const std::string p = "p " + p_text(slopes->difference_p);
  if (slopes->difference_p >= 0.05) return "not shown to differ, " + p;
  return (slopes->keys > slopes->values ? "a key bit costs more, " : "a value bit costs more, ") + p;
}

Table cost_table(const TableContext& context, const std::vector<KeyValueCosts>& costs, bool time) {
  Table table;
  table.title = time ? "what a bit costs: ms a decoded token" : "what a bit costs: bytes a token";
  table.about = {"least squares over the configurations of a scheme, K and V bits nominal | " + context.bounds_text()};
  table.columns = {{"task", true},    {"scheme", true},    {"view", true},  {"points"},
                   {"a bit of keys"}, {"a bit of values"}, {"equal?", true}};
  if (!time) {
    table.columns.push_back({"caches a GiB"});
    table.columns.push_back({"a key bit less"});
    table.columns.push_back({"a value bit less"});
  }
  for (const KeyValueCosts& one : costs) {
    const std::optional<KeyValueSlopes>& slopes = time ? one.decode_ms_per_token : one.bytes_per_token;
    const KeyValueSlopes s = slopes.value_or(KeyValueSlopes{});
    const int decimals = time ? 3 : 1;
    const std::string task = fmt::format("{} {}", one.group->first->point.task, one.group->first->point.tokens);
    auto& line = table.rows.emplace_back(
        std::vector{text_cell(task), text_cell(one.family), text_cell(one.group->first->point.view),
                    number_cell(fmt::to_string(slopes ? s.points : static_cast<int>(one.records.size()))),
                    slope_cell(slopes, s.keys, s.keys_interval, decimals),
                    slope_cell(slopes, s.values, s.values_interval, decimals), text_cell(symmetric(slopes))});
    if (!time) {
      line.push_back(slopes ? number_cell(fixed(one.sequences, 1)) : missing_cell());
      line.push_back(slopes ? number_cell(fixed(one.sequences_per_key_bit, 1, true)) : missing_cell());
      line.push_back(slopes ? number_cell(fixed(one.sequences_per_value_bit, 1, true)) : missing_cell());
    }
    const std::string& gap = time ? one.time_gap : one.bytes_gap;
    if (!gap.empty()) table.notes.push_back(fmt::format("{}, {}: {}", task, one.family, gap));
  }
  return table;
}

std::vector<const Record*> all_records(const Analysis& analysis) {
  std::vector<const Record*> records;
  for (const Record& record : analysis.results().records()) records.push_back(&record);
  return records;
}

void csv_contrast(const KeyValueContrast& one, TextTable& csv) {
  const Point& point = one.group != nullptr ? one.group->first->point : one.pool->groups.front()->first->point;
  for (const bool kl : {false, true}) {
    const std::optional<Comparison>& contrast = kl ? one.kl : one.score;
    const Comparison c = contrast.value_or(Comparison{});
    const Interval ends = contrast ? c.interval : Interval{};
    const auto real = [&](double value) { return contrast ? derived(value) : ""; };
    csv.rows.push_back({"contrast",
                        point.model,
                        point.view,
                        where(one),
                        one.pool != nullptr ? "pool" : "group",
                        one.family,
                        kl ? "kl" : c.metric,
                        derived(one.low),
                        derived(one.high),
                        derived(one.low_keys_bits),
                        derived(one.low_values_bits),
                        real(c.loss),
                        real(ends.low),
                        real(ends.high),
                        real(c.p_adjusted),
                        contrast ? derived(seen(c)) : "",
                        contrast ? fmt::to_string(c.n) : "",
                        contrast ? sensitive(c) : "",
                        join(one.records, " "),
                        one.gap});
  }
}

void csv_slopes(const KeyValueCosts& one, bool time, TextTable& csv) {
  const Point& point = one.group->first->point;
  const std::optional<KeyValueSlopes>& slopes = time ? one.decode_ms_per_token : one.bytes_per_token;
  const KeyValueSlopes s = slopes.value_or(KeyValueSlopes{});
  const auto line = [&](const char* kind, double value, const Interval& interval, const std::string& p) {
    const auto real = [&](double number) { return slopes ? derived(number) : ""; };
    csv.rows.push_back({kind,
                        point.model,
                        point.view,
                        fmt::format("{} {}", point.task, point.tokens),
                        "group",
                        one.family,
                        time ? "decode_ms_per_token" : "bytes_per_token",
                        "",
                        "",
                        "",
                        "",
                        real(value),
                        real(interval.low),
                        real(interval.high),
                        p,
                        "",
                        slopes ? fmt::to_string(s.points) : "",
                        "",
                        join(one.records, " "),
                        time ? one.time_gap : one.bytes_gap});
  };
  line("slope_keys", s.keys, s.keys_interval, "");
  line("slope_values", s.values, s.values_interval, "");
  line("slope_difference", s.keys - s.values, s.difference_interval, slopes ? derived(s.difference_p) : "");
}

}  // namespace

Document key_value_tables(const TableContext& context) {
  const KeyOrValue all = key_or_value(context.analysis, context.families);
  Document document;
  document.csv.columns = {{"kind"},
                          {"model"},
                          {"view"},
                          {"tasks"},
                          {"scope"},
                          {"family"},
                          {"measure"},
                          {"low_bits"},
                          {"high_bits"},
                          {"effective_bits_low_keys"},
                          {"effective_bits_low_values"},
                          {"value"},
                          {"low"},
                          {"high"},
                          {"p"},
                          {"detectable"},
                          {"n"},
                          {"answer"},
                          {"records"},
                          {"gap"}};
  const std::string commits = commits_of(all_records(context.analysis));
  const std::vector<const Pool*> pools = pools_of(context.analysis);
  const auto shown = [&](const KeyValueContrast& one) {
    if (one.pool != nullptr && std::find(pools.begin(), pools.end(), one.pool) == pools.end()) return false;
    return one.group != nullptr ? context.shows(*one.group)
                                : std::any_of(one.pool->groups.begin(), one.pool->groups.end(),
                                              [&](const Group* group) { return context.shows(*group); });
  };
  for (const bool pooled : {true, false}) {
    std::map<std::pair<std::string, std::string>, std::vector<const KeyValueContrast*>> by_view;
    for (const KeyValueContrast& one : pooled ? all.pools : all.groups) {
      if (!shown(one)) continue;
      const Point& point = pooled ? one.pool->groups.front()->first->point : one.group->first->point;
      by_view[{point.model, point.view}].push_back(&one);
      csv_contrast(one, document.csv);
    }
    for (const auto& [key, contrasts] : by_view) {
      Table table = contrast_table(contrasts);
      table.title = fmt::format("keys or values, {}", pooled ? "pooled over tasks" : "by task and length");
      table.about = {fmt::format("model {} | view {} | {}", key.first, key.second, context.bounds_text())};
      table.commits = commits;
      document.tables.push_back(std::move(table));
    }
  }
  if (document.tables.empty()) {
    Table& none = document.tables.emplace_back();
    none.title = "keys or values";
    none.notes = {"no scheme here ran with two widths both ways round (K low V high and K high V low, all else equal)"};
  }
  std::vector<KeyValueCosts> costs;
  for (const KeyValueCosts& one : all.costs)
    if (context.shows(*one.group)) costs.push_back(one);
  for (const bool time : {false, true}) {
    if (costs.empty()) continue;
    for (const KeyValueCosts& one : costs) csv_slopes(one, time, document.csv);
    document.tables.push_back(cost_table(context, costs, time));
    document.tables.back().commits = commits;
  }
  document.legend = {
      "score, KL: what low keys lose more than low values on the same items, at the same sum of nominal bits: "
      "positive, keys are the "
      "more sensitive; of perplexities the ratio of the two; p < 0.05 adjusted by Holm over the table's measure",
      "not shown ~x: neither shown, a difference of x would have been found (one-sided 5 %, power 80 %)",
      "caches a GiB: sequences of the task's length that fit at the mean bits, and how many more for a bit less"};
  return document;
}

}  // namespace kvsweep
