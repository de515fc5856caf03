#include "harness/report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "harness/report/shown.h"
#include "harness/report/table_csv.h"
#include "harness/report/text_table.h"

namespace kvsweep {
namespace {

constexpr const char* kNone = "-";
constexpr int kDeltaDecimals = 4;  // differences are small beside the scores that they are taken from
using Rows = std::vector<const Record*>;

std::string params_text(const Fields& params) {
  std::string out;
  for (const auto& [key, value] : params) out += fmt::format(" {}={}", key, value);
  return out;
}

std::string short_hash(const std::string& hash) {
  return hash.empty() ? "none" : hash.substr(0, 8);
}

std::string score_title(const Record& record) {
  return record.primary_info().shown_as;
}

std::string task_text(const Point& point) {
  return fmt::format("{} v{}{} | {} tokens", point.task, point.task_version, params_text(point.task_params),
                     point.tokens);
}

std::string rules_text(const Record& record) {
  return fmt::format("view {} | seed {} | model {} | weights {} | data {}\n", record.point.view, record.point.seed,
                     record.point.model, short_hash(record.env.weights_sha256), short_hash(record.env.data_sha256));
}

// Records of one table were made under the same rules. A failed one may not have come as far as the hashes: it stands
// below the first table of its task.
bool same_rules(const Record& a, const Record& b) {
  const auto asked = [](const Record& r) {
    const Point& p = r.point;
    return std::tie(p.model, p.task, p.task_version, p.task_params, p.view, p.seed);
  };
  const auto found = [](const Record& r) {
    return std::tie(r.env.weights_sha256, r.env.data_sha256, r.primary_metric);
  };
  return asked(a) == asked(b) && (b.status == "failed" || found(a) == found(b));
}

bool is_reference(const Record& record) {
  return record.paired && record.paired->versus == record.point.scheme;
}

const std::string* find(const Fields& params, const std::string& key) {
  for (const auto& [name, value] : params)
    if (name == key) return &value;
  return nullptr;
}

bool is_number(const std::string& text, double expected) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end && value == expected;
}

// The parameter is another name for the K bits or the V bits of every row that has it.
bool repeats_bits(const Rows& rows, const std::string& key) {
  const auto repeats = [&](double Record::*bits) {
    return std::all_of(rows.begin(), rows.end(), [&](const Record* row) {
      const std::string* value = find(row->point.scheme_params, key);
      return value == nullptr || is_number(*value, row->*bits);
    });
  };
  return repeats(&Record::nominal_k_bits) || repeats(&Record::nominal_v_bits);
}

std::vector<std::string> varying_params(const Rows& rows) {
  std::vector<std::string> names;
  for (const Record* row : rows) {
    for (const auto& [name, unused] : row->point.scheme_params) {
      if (std::find(names.begin(), names.end(), name) != names.end()) continue;
      std::set<std::string> values;
      for (const Record* other : rows)
        if (const std::string* value = find(other->point.scheme_params, name)) values.insert(*value);
      if (values.size() > 1 && !repeats_bits(rows, name)) names.push_back(name);
    }
  }
  return names;
}

void sort_rows(Rows& rows) {
  const auto key = [](const Record* row) {
    return std::tuple(!is_reference(*row), row->point.scheme, row->nominal_k_bits, row->nominal_v_bits);
  };
  std::stable_sort(rows.begin(), rows.end(), [&](const Record* a, const Record* b) { return key(a) < key(b); });
}

// Decimals that show about five digits of the largest score of a column.
int decimals(const Rows& rows) {
  double largest = 0;
  for (const Record* row : rows) {
    const double value = std::abs(shown_score(*row).value);
    if (std::isfinite(value)) largest = std::max(largest, value);
  }
  return largest < 10 ? 4 : largest < 100 ? 3 : largest < 1000 ? 2 : 1;
}

std::string fixed(double value, int digits, bool sign) {
  if (std::isnan(value)) return "nan";  // whose sign means nothing
  return sign ? fmt::format("{:+.{}f}", value, digits) : fmt::format("{:.{}f}", value, digits);
}

std::string with_error(const Shown& shown, int digits, bool sign) {
  const std::string value = fixed(shown.value, digits, sign);
  return shown.standard_error ? value + "±" + fixed(*shown.standard_error, digits, false) : value;
}

std::string kl_text(const Record& record) {
  if (record.kl.n == 0) return kNone;
  return std::isnan(record.kl.mean) ? "nan" : fmt::format("{:#.3g}", record.kl.mean);
}

bool engaged(const Record& record) {
  return record.status == "ok";
}

std::string score_text(const Record& record, int digits) {
  return engaged(record) ? with_error(shown_score(record), digits, false) : "not engaged";
}

std::vector<std::string> row_cells(const Record& record, const std::vector<std::string>& params, int digits) {
  std::vector<std::string> cells = {record.point.scheme, fmt::format("{:g}", record.nominal_k_bits),
                                    fmt::format("{:g}", record.nominal_v_bits)};
  for (const std::string& name : params) {
    const std::string* value = find(record.point.scheme_params, name);
    cells.push_back(value != nullptr ? *value : kNone);
  }
  const auto delta = shown_delta(record);
  const bool compared = engaged(record) && record.kl.n > 0;
  cells.push_back(score_text(record, digits));
  cells.push_back(engaged(record) && delta ? with_error(*delta, kDeltaDecimals, true) : kNone);
  cells.push_back(engaged(record) ? kl_text(record) : kNone);
  cells.push_back(compared ? fmt::format("{:.2f}", 100 * record.top1_flips.mean) : kNone);
  cells.push_back(fmt::format("{:g}", (record.nominal_k_bits + record.nominal_v_bits) / 2));
  cells.push_back(fmt::format("{:.3f}", record.effective_bits));
  cells.push_back(fmt::format("{:.1f}", record.bytes_per_token));
  cells.push_back(record.decode_ms_per_token ? fmt::format("{:.2f}", *record.decode_ms_per_token) : kNone);
  cells.push_back(fmt::to_string(record.n));
  return cells;
}

TextTable main_table(const Rows& rows) {
  const std::vector<std::string> params = varying_params(rows);
  const auto paired = std::find_if(rows.begin(), rows.end(), [](const Record* row) { return row->paired.has_value(); });
  const std::string versus = paired == rows.end() ? "reference" : (*paired)->paired->versus;
  TextTable table;
  table.columns = {{"scheme", true}, {"K"}, {"V"}};
  for (const std::string& name : params) table.columns.push_back({name});
  const std::vector<std::string> measures = {score_title(*rows.front()) + "±SE",
                                             "vs " + versus + "±SE",
                                             "KL",
                                             "flips %",
                                             "nom. bits",
                                             "eff. bits",
                                             "B/token",
                                             "ms/token",
                                             "n"};
  for (const std::string& title : measures) table.columns.push_back({title});
  const int digits = decimals(rows);
  for (const Record* row : rows) table.rows.push_back(row_cells(*row, params, digits));
  return table;
}

using Cell = std::string (*)(const Record&, int digits);

// K bits down, V bits across. Two records of one cell cannot be: they would have the same parameters.
TextTable grid(const Rows& rows, Cell cell, int digits) {
  std::set<double> k_bits, v_bits;
  std::map<std::pair<double, double>, const Record*> at;
  for (const Record* row : rows) {
    k_bits.insert(row->nominal_k_bits);
    v_bits.insert(row->nominal_v_bits);
    at[{row->nominal_k_bits, row->nominal_v_bits}] = row;
  }
  TextTable table;
  table.columns = {{"K \\ V"}};
  for (const double v : v_bits) table.columns.push_back({fmt::format("{:g}", v)});
  for (const double k : k_bits) {
    auto& cells = table.rows.emplace_back(std::vector{fmt::format("{:g}", k)});
    for (const double v : v_bits) {
      const auto found = at.find({k, v});
      cells.push_back(found == at.end() ? kNone : cell(*found->second, digits));
    }
  }
  return table;
}

// Rows of one scheme that differ in nothing but bits, by what they have in common: "uniform group=64".
std::map<std::string, Rows> families(const Rows& rows) {
  std::map<std::string, Rows> schemes, families;
  for (const Record* row : rows) schemes[row->point.scheme].push_back(row);
  for (const auto& [scheme, members] : schemes) {
    const std::vector<std::string> varying = varying_params(members);
    for (const Record* row : members) {
      std::string title = scheme;
      for (const std::string& name : varying)
        if (const std::string* value = find(row->point.scheme_params, name))
          title += fmt::format(" {}={}", name, *value);
      families[title].push_back(row);
    }
  }
  return families;
}

std::string as_text(const TextTable& table, TableFormat format) {
  return format == TableFormat::kTerminal ? to_terminal(table) : to_markdown(table);
}

std::string heading(const std::string& text, const char* level, TableFormat format) {
  return format == TableFormat::kTerminal ? text + "\n" : fmt::format("{} {}\n\n", level, text);
}

std::string grids(const Rows& rows, TableFormat format) {
  const int digits = decimals(rows);
  const Cell score = [](const Record& row, int places) {
    return engaged(row) ? fixed(shown_score(row).value, places, false) : "not engaged";
  };
  const Cell kl = [](const Record& row, int) { return engaged(row) ? kl_text(row) : kNone; };
  std::string out;
  for (const auto& [title, members] : families(rows)) {
    if (members.size() < 2) continue;
    const std::string axes = title + ", K bits down, V bits across: ";
    out += "\n" + heading(axes + score_title(*rows.front()), "####", format) +
           as_text(grid(members, score, digits), format);
    out += "\n" + heading(axes + "KL", "####", format) + as_text(grid(members, kl, digits), format);
  }
  return out;
}

std::string notes(const Rows& failed, const Rows& all, TableFormat format) {
  const char* bullet = format == TableFormat::kTerminal ? "" : "- ";
  std::string out;
  for (const Record* row : failed)
    out += fmt::format("{}failed: {}{}: {}\n", bullet, row->point.scheme, params_text(row->point.scheme_params),
                       row->error.substr(0, row->error.find('\n')));
  std::set<std::string> seen;
  for (const Record* row : all)
    for (const std::string& warning : row->warnings)
      if (seen.insert(warning).second) out += fmt::format("{}warning: {}\n", bullet, warning);
  return out;
}

std::string section(const Rows& all, TableFormat format) {
  Rows rows, failed;
  for (const Record* record : all) (record->status == "failed" ? failed : rows).push_back(record);
  sort_rows(rows);
  std::string out = heading(task_text(all.front()->point), "###", format) + rules_text(*all.front());
  if (format == TableFormat::kMarkdown) out += "\n";
  if (!rows.empty()) out += as_text(main_table(rows), format);
  const std::string below = notes(failed, all, format);
  if (!rows.empty() && !below.empty()) out += "\n";
  out += below;
  if (!rows.empty()) out += grids(rows, format);
  return out;
}

}  // namespace

std::string render_tables(const std::vector<Record>& records, TableFormat format) {
  if (format == TableFormat::kCsv) return records_csv(records);
  std::vector<Rows> groups;
  for (const bool failed : {false, true}) {
    for (const Record& record : records) {
      if ((record.status == "failed") != failed) continue;
      const auto at = std::find_if(groups.begin(), groups.end(),
                                   [&](const Rows& rows) { return same_rules(*rows.front(), record); });
      (at == groups.end() ? groups.emplace_back() : *at).push_back(&record);
    }
  }
  std::string out;
  for (const Rows& rows : groups) out += (out.empty() ? "" : "\n") + section(rows, format);
  return out;
}

}  // namespace kvsweep
