#include "harness/report/gate/baseline_update.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "harness/core/error.h"
#include "harness/report/analysis/analysis.h"
#include "harness/report/analysis/rules.h"
#include "harness/report/baseline.h"
#include "harness/report/shown.h"
#include "harness/report/text_table.h"

namespace kvsweep {
namespace {

std::string key_of(const Item& item) {
  return item.sample_id + '\0' + item.prompt_hash;
}

// Items whose scores differ in any metric, and those that only one of the two has.
int64_t changed_items(const Results& before, const PointSamples& a, const Results& after, const PointSamples& b) {
  if (a.metrics != b.metrics) return std::ssize(b.item);
  std::map<std::string, size_t> at;
  for (size_t i = 0; i < a.size(); ++i) at[key_of(before.items()[a.item[i]])] = i;
  int64_t changed = std::ssize(a.item);
  for (size_t j = 0; j < b.size(); ++j) {
    const auto found = at.find(key_of(after.items()[b.item[j]]));
    if (found == at.end()) {
      ++changed;
      continue;
    }
    bool same = true;
    for (size_t m = 0; m < a.metrics.size(); ++m) same = same && a.scores[m][found->second] == b.scores[m][j];
    changed -= same;
  }
  return changed;
}

std::string fault_of(const Results& run, const Record& record) {
  if (record.status == "failed") return "failed: " + error_line(record.error);
  if (record.status == "not_engaged") return "not engaged";
  const PointSamples* samples = run.samples(record.id);
  if (samples == nullptr) return "no samples";
  for (size_t m = 0; m < samples->metrics.size(); ++m)
    for (const double score : samples->scores[m])
      if (!std::isfinite(score)) return samples->metrics[m] + " has scores that are not numbers";
  return "";
}

void require_whole(const Results& run) {
  std::vector<std::string> faults;
  for (const Record& record : run.records())
    if (const std::string fault = fault_of(run, record); !fault.empty())
      faults.push_back(fmt::format("\n  {}: {}", record.point.label(), fault));
  if (!faults.empty())
    throw DataError(fmt::format("{}: {} of {} points cannot be a baseline:{}", run.path().string(), faults.size(),
                                run.records().size(), join(faults, "")));
}

}  // namespace

BaselineUpdate::BaselineUpdate(std::filesystem::path baseline, const std::filesystem::path& run)
    : path_(std::move(baseline)), run_(read_results(run)) {
  require_whole(run_);
  if (std::filesystem::is_directory(path_))
    throw ConfigError(fmt::format("{}: is a directory; a baseline is one file", path_.string()));
  try {
    if (std::filesystem::exists(path_))
      before_ = read_results(path_);
    else
      replaced_ = "a new file";
  } catch (const StaleRecord&) {
    replaced_ = fmt::format("the old file is of another schema than {} and is replaced whole", kRecordSchema);
  }
  compare();
}

void BaselineUpdate::compare() {
  std::map<std::string, const Record*> old;
  if (before_)
    for (const Record& record : before_->records()) old[record.id] = &record;
  for (const Record& record : run_.records()) {
    const PointSamples& samples = *run_.samples(record.id);
    BaselineChange& change = changes_.emplace_back();
    change.after = &record;
    change.items = std::ssize(samples.item);
    const auto at = old.find(record.id);
    if (at == old.end()) {
      change.kind = BaselineChange::Kind::kAdded;
      change.changed = change.items;
      continue;
    }
    change.before = at->second;
    const PointSamples* stored = before_->samples(record.id);
    change.changed = stored == nullptr ? change.items : changed_items(*before_, *stored, run_, samples);
    change.rules = describe(rule_differences(rules_of(*before_, *change.before), rules_of(run_, record), {}), false);
    const bool same =
        change.changed == 0 && change.rules.empty() && change.before->bytes_per_token == record.bytes_per_token;
    change.kind = same ? BaselineChange::Kind::kSame : BaselineChange::Kind::kChanged;
    old.erase(at);
  }
  if (!before_) return;
  for (const Record& record : before_->records())
    if (old.contains(record.id))
      changes_.push_back({BaselineChange::Kind::kRemoved, &record, nullptr, record.n, record.n, ""});
}

std::string BaselineUpdate::table() const {
  TextTable table;
  table.columns = {{"change", true},       {"point", true},           {"items changed", false}, {"score before", false},
                   {"score after", false}, {"B/token before", false}, {"B/token after", false}, {"rules", true}};
  const char* names[] = {"same", "changed", "added", "removed"};
  const auto score = [](const Record* of) {
    return of == nullptr ? "-" : fmt::format("{:.6g}", shown_score(*of).value);
  };
  const auto bytes = [](const Record* of) { return of == nullptr ? "-" : fmt::format("{:.6g}", of->bytes_per_token); };
  std::map<BaselineChange::Kind, int64_t> counts;
  for (const BaselineChange& change : changes_) {
    ++counts[change.kind];
    if (change.kind == BaselineChange::Kind::kSame) continue;
    const Record& record = change.after != nullptr ? *change.after : *change.before;
    table.rows.push_back({names[static_cast<int>(change.kind)], record.point.label(),
                          fmt::format("{} of {}", change.changed, change.items), score(change.before),
                          score(change.after), bytes(change.before), bytes(change.after), change.rules});
  }
  using Kind = BaselineChange::Kind;
  std::string out = fmt::format("baseline {}: {} points changed, {} added, {} removed, {} the same{}\n", path_.string(),
                                counts[Kind::kChanged], counts[Kind::kAdded], counts[Kind::kRemoved],
                                counts[Kind::kSame], replaced_.empty() ? "" : "; " + replaced_);
  return table.rows.empty() ? out : out + to_terminal(table);
}

void BaselineUpdate::write() const {
  std::vector<SampleRecord> samples;
  for (const Record& record : run_.records())
    for (const LinePlace& place : run_.samples(record.id)->line) {
      samples.push_back(run_.read_sample(place));
      samples.back().time = {};
    }
  write_baseline(path_, run_.records(), samples);
}

}  // namespace kvsweep
