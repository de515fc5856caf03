#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "harness/core/error.h"
#include "harness/report/shown.h"
#include "harness/report/tables/cells.h"
#include "harness/report/tables/records_csv.h"
#include "harness/report/tables/tables.h"

namespace kvsweep {
namespace {

using Rows = std::vector<const Row*>;

bool failed(const Row& row) {
  return row.record->status == "failed";
}

bool engaged(const Row& row) {
  return row.record->status == "ok";
}

// How a group's numbers are written, the same in all of its rows.
struct Style {
  bool intervals = false;  // of scores: one of the rows has samples
  bool exponential = false, higher_is_better = true;
  int score = 4, loss = 4;
};

// Decimals that show about five digits of the largest of a column.
int decimals_of_largest(const Rows& rows) {
  double largest = 0;
  for (const Row* row : rows) {
    const double value = std::abs(shown_score(*row->record).value);
    if (std::isfinite(value)) largest = std::max(largest, value);
  }
  return largest < 10 ? 4 : largest < 100 ? 3 : largest < 1000 ? 2 : 1;
}

Style style_of(const Rows& rows) {
  Style style;
  Decimals score, loss;
  for (const Row* row : rows) {
    style.intervals = style.intervals || row->score;
    score.add(shown_score(*row->record).standard_error.value_or(0));
    if (row->loss)
      loss.add(row->loss->standard_error);
    else if (row->record->paired)
      loss.add(row->record->paired->standard_error);
  }
  const MetricInfo& info = rows.front()->record->primary_info();
  style.exponential = info.exponential;
  style.higher_is_better = info.higher_is_better;
  style.loss = loss.count();
  style.score = info.exponential || !info.higher_is_better ? decimals_of_largest(rows)
                                                           : std::min(score.count(), decimals_of_largest(rows));
  return style;
}

Cell score_cell(const Row& row, const Style& style) {
  if (row.record->status == "not_engaged") return text_cell("not engaged");
  const Shown shown = shown_score(*row.record);
  if (!row.score) return error_cell(shown.value, shown.standard_error, style.score, false);
  const Interval ends = style.exponential ? Interval{std::exp(row.score->low), std::exp(row.score->high)} : *row.score;
  return interval_cell(shown.value, ends, style.score, false);
}

// What a record alone says of the loss: the paired difference with its standard error.
Cell recorded_loss(const Record& record, const Style& style) {
  if (record.status != "ok" || !record.paired || record.id == record.reference_id) return missing_cell();
  const Paired& paired = *record.paired;
  if (style.exponential) {
    const double ratio = paired.ratio.value_or(std::exp(paired.delta));
    const double error = paired.ratio_standard_error.value_or(ratio * paired.standard_error);
    return error_cell(ratio, record.n < 2 ? std::nullopt : std::optional(error), 4, false);
  }
  const double loss = style.higher_is_better ? -paired.delta : paired.delta;
  return error_cell(loss == 0 ? 0 : loss, record.n < 2 ? std::nullopt : std::optional(paired.standard_error),
                    style.loss, true);
}

// Full precision against itself moved at least as many positions. A mean of shares and a share of sums that are equal
// may differ in their last bits.
bool within_noise(const Record& record) {
  if (!record.noise || record.noise->positions <= 0 || record.kl.n <= 0) return false;
  const double own = static_cast<double>(record.noise->top1_flips) / static_cast<double>(record.noise->positions);
  return record.top1_flips.mean <= own * (1 + 1e-12);
}

std::string verdict_of(const Row& row) {
  if (row.is_reference || row.gap == "reference") return "reference";
  if (!row.loss) return row.gap.substr(0, row.gap.find(':'));
  const std::string verdict = verdict_text(*row.loss);
  return verdict == "not shown" && within_noise(*row.record) ? "within noise" : verdict;
}

std::vector<Column> columns_of(const Record& first, const Style& style, double confidence) {
  const std::string ends = style.intervals ? fmt::format(" [{:g} %]", 100 * confidence) : "±SE";
  const std::string& score = first.primary_info().shown_as;
  return {{"scheme", true},
          {"K"},
          {"V"},
          {score + ends},
          {(style.exponential ? "ratio" : "loss") + ends},
          {"lost/gained", false, false},
          {"p (Holm)"},
          {"sees"},
          {"flips %", false, false},
          {"KL"},
          {"KL p99", false, false},
          {"eff. bits"},
          {"B/token"},
          {"ms/token"},
          {"n"},
          {"vs full", true}};
}

std::vector<Cell> cells_of(const TableContext& context, const Row& row, const Style& style) {
  const Record& record = *row.record;
  const bool has_kl = engaged(row) && record.kl.n > 0;
  std::vector<Cell> cells = {text_cell(context.families.family(record)),
                             number_cell(fmt::format("{:g}", record.nominal_k_bits)),
                             number_cell(fmt::format("{:g}", record.nominal_v_bits)), score_cell(row, style)};
  if (row.loss && row.loss->not_numbers == 0) {
    const Comparison& c = *row.loss;
    cells.insert(cells.end(), {loss_cell(c, style.loss), text_cell(fmt::format("{}/{}", c.lost, c.gained)),
                               text_cell(p_text(c.p_adjusted)), seen_cell(c, style.loss)});
  } else {
    const bool compared = row.loss.has_value();
    cells.insert(cells.end(), {compared ? loss_cell(*row.loss, style.loss) : recorded_loss(record, style),
                               missing_cell(), missing_cell(), missing_cell()});
  }
  cells.push_back(has_kl ? number_cell(fmt::format("{:.2f}", 100 * record.top1_flips.mean)) : missing_cell());
  cells.push_back(has_kl ? number_cell(significant(record.kl.mean)) : missing_cell());
  cells.push_back(has_kl ? number_cell(significant(record.kl_p99)) : missing_cell());
  cells.push_back(number_cell(fmt::format("{:.3f}", record.effective_bits)));
  cells.push_back(number_cell(fmt::format("{:.1f}", record.bytes_per_token)));
  cells.push_back(record.decode_ms_per_token ? number_cell(fmt::format("{:.2f}", *record.decode_ms_per_token))
                                             : missing_cell());
  cells.push_back(number_cell(fmt::to_string(record.n)));
  cells.push_back(text_cell(verdict_of(row)));
  return cells;
}

// K bits down, V bits across. Two rows of one cell cannot be: they would have the same parameters.
Table square(const std::string& title, const Rows& rows, const std::function<Cell(const Row&)>& cell) {
  std::set<double> k_bits, v_bits;
  std::map<std::pair<double, double>, const Row*> at;
  for (const Row* row : rows) {
    k_bits.insert(row->record->nominal_k_bits);
    v_bits.insert(row->record->nominal_v_bits);
    at[{row->record->nominal_k_bits, row->record->nominal_v_bits}] = row;
  }
  Table table;
  table.title = title;
  table.level = 4;
  table.columns = {{"K \\ V"}};
  for (const double v : v_bits) table.columns.push_back({fmt::format("{:g}", v)});
  for (const double k : k_bits) {
    auto& cells = table.rows.emplace_back(std::vector{number_cell(fmt::format("{:g}", k))});
    for (const double v : v_bits) {
      const auto found = at.find({k, v});
      cells.push_back(found == at.end() ? missing_cell() : cell(*found->second));
    }
  }
  return table;
}

void add_squares(const TableContext& context, const Rows& rows, const Style& style, std::vector<Table>& tables) {
  std::map<std::string, Rows> families;
  for (const Row* row : rows) families[context.families.family(*row->record)].push_back(row);
  for (const auto& [family, members] : families) {
    if (members.size() < 2) continue;
    const std::string axes = family + ", K bits down, V bits across: ";
    tables.push_back(square(axes + rows.front()->record->primary_info().shown_as, members, [&](const Row& row) {
      return engaged(row) ? number_cell(fixed(shown_score(*row.record).value, style.score)) : text_cell("not engaged");
    }));
    tables.push_back(square(axes + "KL", members, [](const Row& row) {
      return engaged(row) && row.record->kl.n > 0 ? number_cell(significant(row.record->kl.mean)) : missing_cell();
    }));
  }
}

// "no difference shown for 3 of 12; they would have seen losses from 0.0710 to 0.1200"
std::string not_shown_note(const Rows& rows, const Style& style) {
  int64_t compared = 0, quiet = 0;
  double least = 0, most = 0;
  for (const Row* row : rows) {
    if (!row->loss || verdict_text(*row->loss) == "no answer" || row->loss->not_numbers > 0) continue;
    ++compared;
    if (row->loss->significant()) continue;
    const std::optional<double> effect = seen(*row->loss);
    if (!effect) continue;
    least = quiet == 0 ? *effect : std::min(least, *effect);
    most = std::max(most, *effect);
    ++quiet;
  }
  if (quiet == 0) return "";
  const auto text = [&](double effect) {
    return style.exponential ? fixed(std::exp(effect), 4) : fixed(effect, style.loss);
  };
  return fmt::format("no difference shown for {} of {}: they would have seen {} from {} to {}", quiet, compared,
                     style.exponential ? "ratios" : "losses", text(least), text(most));
}

std::vector<std::string> notes_of(const TableContext& context, const Group& group, const Rows& all, const Rows& rows,
                                  const Style& style) {
  std::vector<std::string> notes;
  if (const std::string quiet = rows.empty() ? "" : not_shown_note(rows, style); !quiet.empty()) notes.push_back(quiet);
  std::set<std::string> seen_notes;
  const auto once = [&](const std::string& note) {
    if (seen_notes.insert(note).second) notes.push_back(note);
  };
  for (const Row* row : all) {
    const Record& record = *row->record;
    const std::string name = context.families.configuration(record);
    if (failed(*row)) {
      once(fmt::format("failed: {}: {}", configuration_of(record), error_line(record.error)));
      continue;
    }
    if (row->gap == "no samples" || row->gap == "no samples of full precision")
      once(fmt::format("{}: differences are those of the records, with standard errors and without tests", row->gap));
    else if (row->gap.find(':') != std::string::npos)
      once(name + ": " + row->gap);
    if (row->loss && row->loss->unpaired > 0)
      once(fmt::format("{}: {} items that only one side has are left out", name, row->loss->unpaired));
    if (group.reference != nullptr && !context.analysis.allowed().empty()) {
      const std::string differs = describe(
          rule_differences(group.rules, rules_of(context.analysis.results(), record), context.analysis.allowed()),
          true);
      if (!differs.empty()) once(fmt::format("allowed to differ: {}: {}", name, differs));
    }
  }
  for (const Row* row : all)
    for (const std::string& warning : row->record->warnings) once("warning: " + warning);
  return notes;
}

void add_group(const TableContext& context, const Group& group, std::vector<Table>& tables) {
  Rows all, rows;
  for (const Row& row : group.rows) {
    if (!row.is_reference && !context.shows(*row.record)) continue;
    all.push_back(&row);
    if (!failed(row)) rows.push_back(&row);
  }
  Table table;
  table.title = group.title;
  table.about = {rules_text(*group.first)};
  std::vector<const Record*> records;
  for (const Row* row : all) records.push_back(row->record);
  table.commits = commits_of(records);
  const Style style = rows.empty() ? Style{} : style_of(rows);
  if (!rows.empty()) {
    if (group.items > 0) table.about.front() += fmt::format(" | n {}", group.items);
    table.columns = columns_of(*rows.front()->record, style, context.confidence());
    for (const Row* row : rows) table.rows.push_back(cells_of(context, *row, style));
  }
  table.notes = notes_of(context, group, all, rows, style);
  tables.push_back(std::move(table));
  if (!rows.empty()) add_squares(context, rows, style, tables);
}

}  // namespace

Document main_tables(const TableContext& context) {
  Document document;
  bool samples = false;
  for (const Group& group : context.analysis.groups()) {
    if (!context.shows(group)) continue;
    add_group(context, group, document.tables);
    samples = samples || group.reference_samples != nullptr;
  }
  document.legend = {
      "loss: full precision less the scheme on the same items, what is bad upwards; ratio: the scheme's to full "
      "precision's",
      "p: of no loss and no gain, adjusted by Holm over the table; sees: the smallest loss that would have been found "
      "(one-sided 5 %, power 80 %)",
      "flips %: positions whose most likely token differs; KL in nats"};
  if (!samples) document.legend.clear();
  document.csv = records_csv(context);
  return document;
}

}  // namespace kvsweep
