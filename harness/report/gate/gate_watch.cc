#include "harness/report/gate/gate_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/core/error.h"
#include "harness/report/append_file.h"
#include "harness/report/gate/gate.h"
#include "harness/report/text_table.h"

namespace kvsweep {
namespace {

using Kind = GateRule::Kind;

bool exponential(const Record& record, const std::string& metric) {
  const auto info = record.metric_info.find(metric);
  return info != record.metric_info.end() && info->second.exponential;
}

bool judges(const GateRule& rule, const Record& record) {
  if (!rule.matches(record)) return false;
  if (rule.kind != Kind::kMargin) return true;
  const std::string metric = rule.metric_of(record);
  return !metric.empty() && (exponential(record, metric) ? rule.max_ratio : rule.max_drop).has_value();
}

// Scores of a point of a baseline by sample.
std::map<std::string, std::map<std::string, double>> scores_of(const Results& results, const std::string& id) {
  std::map<std::string, std::map<std::string, double>> out;
  const PointSamples* samples = results.samples(id);
  if (samples == nullptr) return out;
  for (size_t i = 0; i < samples->size(); ++i)
    for (size_t m = 0; m < samples->metrics.size(); ++m)
      out[results.items()[samples->item[i]].sample_id][samples->metrics[m]] = samples->scores[m][i];
  return out;
}

}  // namespace

GateWatch::GateWatch(GateFile file, const std::vector<ShardGroup>& groups, const Results* baseline, Groups known)
    : file_(std::move(file)), baseline_(baseline), known_(known) {
  require_baseline(file_, baseline);
  std::map<std::string, const Record*> before;
  if (baseline != nullptr)
    for (const Record& record : baseline->records()) before[record.id] = &record;
  for (size_t r = 0; r < file_.rules.size(); ++r) plan(r, groups, before);
}

void GateWatch::plan(size_t index, const std::vector<ShardGroup>& groups,
                     const std::map<std::string, const Record*>& before) {
  const GateRule& rule = file_.rules[index];
  std::set<std::string> seen;  // a group of several sessions or shards stands in several lines
  const size_t first = planned_.size();
  for (const ShardGroup& group : groups)
    for (const ShardPoint& point : group.points) {
      const Record& record = point.record;
      if (!judges(rule, record) || !seen.insert(record.id).second) continue;
      if (!rule.against_baseline && record.id == record.reference_id && !rule.names_scheme(record.point.scheme))
        continue;
      const auto at = before.find(record.id);
      planned_.push_back({index, record, group.samples, at == before.end() ? nullptr : at->second});
      family_ += rule.kind == Kind::kMargin && !rule.expect;
    }
  if (planned_.size() == first) plan_missing(index, "", "matches no point");
  if (!rule.against_baseline) return;
  for (const auto& [id, record] : before)
    if (judges(rule, *record) && !seen.contains(id))
      plan_missing(index, record->point.label(), "the baseline has this point, the run has not");
}

void GateWatch::plan_missing(size_t index, std::string label, std::string why) {
  std::optional<Verdict> verdict;
  if (known_ == Groups::kAll) verdict = Verdict::kFail;
  missing_.push_back({index, std::move(label), 0, 0, verdict, verdict ? std::move(why) : why + " so far"});
}

void GateWatch::add(const SampleRecord& sample) {
  if (!scores_[sample.point_id].try_emplace(sample.sample_id, sample.scores).second) return;
  if (const auto document = sample.tags.find("document"); document != sample.tags.end())
    documents_[sample.point_id][sample.sample_id] = document->second;
}

std::map<std::string, GateWatch::Scores> GateWatch::reference_of(const Planned& planned) const {
  if (planned.before != nullptr && file_.rules[planned.rule].against_baseline)
    return scores_of(*baseline_, planned.before->id);
  const auto at = scores_.find(planned.record.reference_id);
  return at == scores_.end() ? std::map<std::string, Scores>{} : at->second;
}

void GateWatch::judge_margin(const Planned& planned, WatchedVerdict& out) const {
  const GateRule& rule = file_.rules[planned.rule];
  const std::string metric = rule.metric_of(planned.record);
  if (out.of < rule.min_items) {
    out.verdict = Verdict::kInconclusive;
    out.why = fmt::format("{} items, min_items is {}", out.of, rule.min_items);
    return;
  }
  if (rule.pooled || exponential(planned.record, metric) || *rule.max_drop >= 1) {
    out.why = "known at the end";
    return;
  }
  const auto own = scores_.find(planned.record.id);
  std::set<std::string> documents;
  if (const auto shared = documents_.find(planned.record.id); shared != documents_.end())
    for (const auto& [sample, document] : shared->second)
      if (!documents.insert(document).second) {
        out.why = "items share documents: known at the end";
        return;
      }
  const auto info = planned.record.metric_info.find(metric);
  const double sign = info == planned.record.metric_info.end() || info->second.higher_is_better ? 1 : -1;
  const std::map<std::string, Scores> reference = reference_of(planned);
  std::vector<Interval> possible;
  const auto known = [&](const std::map<std::string, Scores>& of, const std::string& sample) -> std::optional<double> {
    const auto scores = of.find(sample);
    if (scores == of.end()) return std::nullopt;
    const auto score = scores->second.find(metric);
    return score == scores->second.end() ? std::nullopt : std::optional(score->second);
  };
  for (const std::string& sample : planned.samples) {
    const std::optional<double> a = known(reference, sample),
                                b = own == scores_.end() ? std::nullopt : known(own->second, sample);
    if ((a && !(*a >= 0 && *a <= 1)) || (b && !(*b >= 0 && *b <= 1))) {
      out.why = "scores are not in [0, 1]: known at the end";
      return;
    }
    const Interval x{a.value_or(0) - b.value_or(1), a.value_or(1) - b.value_or(0)};  // reference less own
    possible.push_back(sign > 0 ? x : Interval{-x.high, -x.low});
  }
  Margin margin{.max_loss = *rule.max_drop, .confidence = rule.confidence};
  out.verdict = certain_verdict({}, possible, margin);
  if (out.verdict == Verdict::kFail && !rule.expect) {
    margin.confidence = 1 - (1 - rule.confidence) / bonferroni();
    if (certain_verdict({}, possible, margin) != Verdict::kFail) out.verdict.reset();
  }
  out.why = out.verdict ? fmt::format("{} whatever the other {} items bring", name_of(*out.verdict), out.of - out.n)
                        : "can still change";
}

void GateWatch::judge_identical(const Planned& planned, WatchedVerdict& out) const {
  const auto own = scores_.find(planned.record.id);
  out.why = "no difference so far";
  if (own == scores_.end()) return;
  const std::map<std::string, Scores> reference = reference_of(planned);
  for (const std::string& sample : planned.samples) {
    const auto a = reference.find(sample), b = own->second.find(sample);
    if (a == reference.end() || b == own->second.end() || a->second == b->second) continue;
    out.verdict = Verdict::kFail;
    out.why = fmt::format("{} has other scores", sample);
    return;
  }
}

WatchedVerdict GateWatch::judge(const Planned& planned) const {
  const GateRule& rule = file_.rules[planned.rule];
  WatchedVerdict out{planned.rule, planned.record.point.label(), 0, std::ssize(planned.samples), {}, ""};
  const auto own = scores_.find(planned.record.id);
  if (own != scores_.end())
    for (const std::string& sample : planned.samples) out.n += own->second.contains(sample);
  if (rule.against_baseline && planned.before == nullptr) {
    out.verdict = Verdict::kFail;
    out.why = "the baseline has no such point";
    return out;
  }
  if (rule.kind == Kind::kMargin) judge_margin(planned, out);
  if (rule.kind == Kind::kIdentical) judge_identical(planned, out);
  if (rule.kind == Kind::kBudget) out.why = "known at the end";
  if (out.verdict && rule.expect) {
    out.why = fmt::format("control: {}", out.why);
    out.verdict = *out.verdict == *rule.expect ? Verdict::kPass : Verdict::kFail;
  }
  return out;
}

std::vector<WatchedVerdict> GateWatch::verdicts() const {
  std::vector<WatchedVerdict> out;
  for (const Planned& planned : planned_) out.push_back(judge(planned));
  out.insert(out.end(), missing_.begin(), missing_.end());
  return out;
}

std::vector<ShardGroup> planned_groups(const std::filesystem::path& directory) {
  std::vector<ShardGroup> groups;
  for (const Shard& shard : shards_in(directory, "groups"))
    scan_lines(directory / shard.file("groups"), [&](const std::string& line, const std::string& place) {
      groups.push_back(shard_group_from_json(line, place));
    });
  if (groups.empty())
    throw DataError(fmt::format(
        "{}: says nothing of what is still to come; a run that is to be watched is started with --shard 1/1 (or more)",
        directory.string()));
  return groups;
}

std::vector<WatchedVerdict> watch_directory(const GateFile& file, const std::filesystem::path& directory,
                                            const Results* baseline) {
  GateWatch watch(file, planned_groups(directory), baseline, GateWatch::Groups::kSoFar);
  for (const Shard& shard : shards_in(directory, "samples"))
    scan_lines(directory / shard.file("samples"),
               [&](const std::string& line, const std::string& place) { watch.add(sample_from_json(line, place)); });
  return watch.verdicts();
}

int exit_status(const std::vector<WatchedVerdict>& verdicts) {
  const auto is = [&](const auto& predicate) { return std::any_of(verdicts.begin(), verdicts.end(), predicate); };
  if (is([](const WatchedVerdict& one) { return one.verdict == Verdict::kFail; })) return 1;
  return verdicts.empty() || is([](const WatchedVerdict& one) { return one.verdict != Verdict::kPass; }) ? 3 : 0;
}

std::string watch_to_terminal(const GateFile& file, const std::vector<WatchedVerdict>& verdicts) {
  TextTable table;
  table.columns = {{"verdict", true}, {"rule", true}, {"point", true}, {"n", false}, {"of", false}, {"why", true}};
  int64_t certain = 0;
  for (const WatchedVerdict& one : verdicts) {
    certain += one.verdict.has_value();
    table.rows.push_back({one.verdict ? name_of(*one.verdict) : "open", file.rules[one.rule].name, one.label,
                          fmt::to_string(one.n), fmt::to_string(one.of), one.why});
  }
  for (auto& row : table.rows)
    for (std::string& cell : row)
      std::replace_if(
          cell.begin(), cell.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return fmt::format("gate {}: {} of {} verdicts are certain\n", file.path, certain, verdicts.size()) +
         to_terminal(table);
}

}  // namespace kvsweep
