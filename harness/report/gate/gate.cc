#include "harness/report/gate/gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <thread>
#include <tuple>

#include "harness/core/error.h"
#include "harness/report/analysis/analysis.h"
#include "harness/report/statistics/multiplicity.h"

namespace kvsweep {
namespace {

using Kind = GateRule::Kind;

// What a verdict cannot be found for; the message is its reason.
struct NoNumbers {
  std::string reason;
  Verdict verdict = Verdict::kFail;
};

// Names with those parameters alone that differ within a run.
class ShortNames {
 public:
  explicit ShortNames(const std::vector<const Record*>& records) {
    for (const Record* record : records) {
      add(tasks_[record->point.task], record->point.task_params);
      add(schemes_[record->point.scheme], record->point.scheme_params);
    }
  }
  std::string task(const Point& point) const { return text(point.task, point.task_params, tasks_.at(point.task)); }
  std::string scheme(const Point& point) const {
    return text(point.scheme, point.scheme_params, schemes_.at(point.scheme));
  }

 private:
  using Seen = std::map<std::string, std::set<std::string>>;
  static void add(Seen& seen, const Fields& params) {
    for (const auto& [key, value] : params) seen[key].insert(value);
  }
  static std::string text(std::string name, const Fields& params, const Seen& seen) {
    for (const auto& [key, value] : params)
      if (seen.at(key).size() > 1) name += fmt::format(" {}={}", key, value);
    return name;
  }
  std::map<std::string, Seen> tasks_, schemes_;
};

// A point and what it is held against.
struct Pairing {
  const Results* other = nullptr;
  const Record* record = nullptr;  // nullptr: the directory has samples of full precision, but no record
  const PointSamples* samples = nullptr;
};

class Gate {
 public:
  Gate(const GateFile& file, const Results& run, const Results* baseline, const Allowed& allowed);
  GateReport judge();

 private:
  struct Job {
    size_t rule = 0;
    std::vector<const Record*> records;  // more than one: pooled
    std::string reason;                  // not empty: the verdict is FAIL without looking
    GateVerdict verdict;
    std::set<std::string> allowed;
  };

  void plan(size_t index);
  void plan_missing(size_t index, const std::set<const Record*>& found);
  std::string nothing_matches(const GateRule& rule, const std::set<std::string>& metrics) const;
  bool suits(const GateRule& rule, const Record& record, const std::string& metric) const;
  void run(Job& job) const;
  void name(Job& job) const;
  Pairing pairing(const GateRule& rule, const Record& record, Job& job) const;
  void require_measured(const Record& record) const;
  const Record* baseline_record(const Record& record) const;
  PairedScores paired(const GateRule& rule, const Record& record, const std::string& metric, Job& job) const;
  PairedScores pooled(const GateRule& rule, Job& job) const;
  void judge_margin(const GateRule& rule, Job& job) const;
  void judge_identical(const GateRule& rule, Job& job) const;
  void judge_budget(const GateRule& rule, Job& job) const;
  void adjust_failures();
  void apply_expectations();

  const GateFile& file_;
  const Results& run_;
  const Results* baseline_;
  const Allowed& allowed_;
  std::map<const Record*, std::vector<std::string>> rules_;
  std::map<std::string, const Record*> references_;   // by id; the record that speaks for a reference's rules
  std::map<std::string, const Record*> in_baseline_;  // by id
  std::optional<ShortNames> names_;
  std::vector<Job> jobs_;
  int64_t family_ = 0;
};

bool measured(const Record& record) {
  return record.status != "failed";
}

Gate::Gate(const GateFile& file, const Results& run, const Results* baseline, const Allowed& allowed)
    : file_(file), run_(run), baseline_(baseline), allowed_(allowed) {
  std::vector<const Record*> all;
  for (const Record& record : run.records()) {
    rules_[&record] = rules_of(run, record);
    all.push_back(&record);
    if (!measured(record)) continue;
    const auto [at, fresh] = references_.try_emplace(record.reference_id, &record);
    if (record.id == record.reference_id) at->second = &record;
  }
  if (baseline != nullptr)
    for (const Record& record : baseline->records()) {
      rules_[&record] = rules_of(*baseline, record);
      in_baseline_[record.id] = &record;
      all.push_back(&record);
    }
  names_.emplace(all);
}

bool Gate::suits(const GateRule& rule, const Record& record, const std::string& metric) const {
  if (rule.kind == Kind::kBudget || (rule.kind == Kind::kIdentical && rule.metric == "primary")) return true;
  if (metric.empty()) return false;
  if (rule.kind == Kind::kIdentical) return true;
  const auto info = record.metric_info.find(metric);
  const bool exponential = info != record.metric_info.end() && info->second.exponential;
  return exponential ? rule.max_ratio.has_value() : rule.max_drop.has_value();
}

std::string known_names(const std::set<std::string>& names) {
  return join({names.begin(), names.end()});
}

std::string Gate::nothing_matches(const GateRule& rule, const std::set<std::string>& metrics) const {
  if (!metrics.empty())
    return fmt::format("matches no point: the points of this task and scheme are judged by {}, the rule asks for {}{}",
                       known_names(metrics), rule.metric == "primary" ? "the primary metric" : rule.metric,
                       rule.max_drop && rule.max_ratio ? ""
                       : rule.max_drop                 ? " and max_drop (max_ratio judges exponential metrics)"
                                       : " and max_ratio (max_drop judges all but exponential metrics)");
  std::set<std::string> tasks, schemes, lengths;
  for (const Record& record : run_.records()) {
    tasks.insert(record.point.task);
    schemes.insert(record.point.scheme);
    lengths.insert(fmt::to_string(record.point.tokens));
  }
  return fmt::format("matches no point: the run has the tasks {}, the schemes {} and the lengths {}",
                     known_names(tasks), known_names(schemes), known_names(lengths));
}

void Gate::plan(size_t index) {
  const GateRule& rule = file_.rules[index];
  std::vector<Job> own;
  std::set<std::string> metrics;
  std::set<const Record*> found;
  std::map<std::tuple<std::string, std::string, std::string>, size_t> pools;
  for (const Record& record : run_.records()) {
    if (!rule.matches(record)) continue;
    const bool itself = !rule.against_baseline && record.id == record.reference_id;
    if (itself && !rule.names_scheme(record.point.scheme)) continue;
    const std::string metric = rule.metric_of(record);
    if (!suits(rule, record, metric)) {
      for (const auto& [name, info] : record.metric_info) metrics.insert(name);
      continue;
    }
    if (rule.against_baseline)
      if (const Record* base = baseline_record(record)) found.insert(base);
    if (rule.pooled) {
      const auto key = std::tuple(record.point.model, record.point.view, configuration_of(record));
      const auto [at, fresh] = pools.try_emplace(key, own.size());
      if (!fresh) {
        own[at->second].records.push_back(&record);
        continue;
      }
    }
    own.push_back({index, {&record}, "", {}, {}});
  }
  if (own.empty()) own.push_back({index, {}, nothing_matches(rule, metrics), {}, {}});
  std::move(own.begin(), own.end(), std::back_inserter(jobs_));
  if (rule.against_baseline) plan_missing(index, found);
}

// A point that a sweep has lost is not a point that passes.
void Gate::plan_missing(size_t index, const std::set<const Record*>& found) {
  const GateRule& rule = file_.rules[index];
  for (const Record& record : baseline_->records())
    if (rule.matches(record) && !found.contains(&record) && suits(rule, record, rule.metric_of(record)))
      jobs_.push_back({index, {&record}, "the baseline has this point, the run has not", {}, {}});
}

GateReport Gate::judge() {
  for (size_t i = 0; i < file_.rules.size(); ++i) plan(i);
  std::vector<std::exception_ptr> errors(2);
  std::vector<std::thread> workers;
  for (size_t t = 0; t < errors.size(); ++t)
    workers.emplace_back([this, t, &errors] {
      try {
        for (size_t i = t; i < jobs_.size(); i += errors.size()) run(jobs_[i]);
      } catch (...) {
        errors[t] = std::current_exception();
      }
    });
  for (std::thread& worker : workers) worker.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  adjust_failures();
  apply_expectations();
  GateReport report{
      file_.path, run_.path().string(), baseline_ == nullptr ? "" : baseline_->path().string(), file_.rules, {}, {},
      family_};
  for (Job& job : jobs_) {
    report.verdicts.push_back(std::move(job.verdict));
    report.allowed.insert(job.allowed.begin(), job.allowed.end());
  }
  return report;
}

void Gate::name(Job& job) const {
  const GateRule& rule = file_.rules[job.rule];
  GateVerdict& verdict = job.verdict;
  verdict.rule = job.rule;
  if (job.records.empty()) {
    verdict.task = join(rule.tasks);
    verdict.configuration = join(rule.schemes);
    return;
  }
  const Point& point = job.records.front()->point;
  verdict.model = point.model;
  verdict.view = point.view;
  verdict.seed = point.seed;
  verdict.configuration = names_->scheme(point);
  if (!rule.pooled) {
    verdict.task = names_->task(point);
    verdict.label = point.label();
    return;
  }
  verdict.task = fmt::format("{} groups pooled", job.records.size());
  verdict.label =
      fmt::format("{} | {} | {} | {}", point.model, verdict.task, configuration_of(*job.records.front()), point.view);
}

void Gate::run(Job& job) const {
  const GateRule& rule = file_.rules[job.rule];
  name(job);
  GateVerdict& verdict = job.verdict;
  verdict.reason = job.reason;
  if (!job.reason.empty()) return;
  try {
    for (const Record* record : job.records) require_measured(*record);
    if (rule.kind == Kind::kMargin) judge_margin(rule, job);
    if (rule.kind == Kind::kIdentical) judge_identical(rule, job);
    if (rule.kind == Kind::kBudget) judge_budget(rule, job);
  } catch (const NoNumbers& none) {
    verdict.found = none.verdict;
    verdict.reason = none.reason;
  } catch (const DataError& error) {
    verdict.found = Verdict::kFail;
    verdict.reason = error_line(error.what());
  }
}

void Gate::require_measured(const Record& record) const {
  if (record.status == "failed") throw NoNumbers{"failed: " + error_line(record.error)};
  if (record.status == "not_engaged") throw NoNumbers{"not engaged: no scored token read a compressed entry"};
  if (run_.samples(record.id) == nullptr) throw NoNumbers{"no samples"};
}

// The same point; else, of those of its configuration, the one that differs in the fewest fields.
const Record* Gate::baseline_record(const Record& record) const {
  if (const auto same = in_baseline_.find(record.id); same != in_baseline_.end()) return same->second;
  const Record* best = nullptr;
  std::tuple<size_t, size_t> fewest;
  for (const Record& candidate : baseline_->records()) {
    if (candidate.point.task != record.point.task || configuration_of(candidate) != configuration_of(record)) continue;
    const auto differences = rule_differences(rules_.at(&candidate), rules_.at(&record), allowed_);
    const auto refused = static_cast<size_t>(
        std::count_if(differences.begin(), differences.end(), [](const RuleDifference& one) { return !one.allowed; }));
    const std::tuple key(refused, differences.size());
    if (best == nullptr || key < fewest) {
      best = &candidate;
      fewest = key;
    }
  }
  return best;
}

Pairing Gate::pairing(const GateRule& rule, const Record& record, Job& job) const {
  Pairing with;
  if (rule.against_baseline) {
    with.other = baseline_;
    with.record = baseline_record(record);
    if (with.record == nullptr)
      throw NoNumbers{"the baseline has no such point; `kvsweep gate --update-baseline` adds those of a run"};
    with.samples = baseline_->samples(with.record->id);
    if (with.samples == nullptr) throw NoNumbers{"the baseline has no samples of this point"};
  } else {
    with.other = &run_;
    with.record = references_.at(record.reference_id);
    with.samples = run_.samples(record.reference_id);
    if (with.samples == nullptr) throw NoNumbers{"no samples of full precision"};
  }
  const auto differences = rule_differences(rules_.at(with.record), rules_.at(&record), allowed_);
  const std::string refused = describe(differences, false);
  if (!refused.empty()) throw NoNumbers{"not comparable: " + refused};
  for (const RuleDifference& one : differences) job.allowed.insert(describe({one}, true));
  return with;
}

PairedScores Gate::paired(const GateRule& rule, const Record& record, const std::string& metric, Job& job) const {
  const Pairing with = pairing(rule, record, job);
  PairedScores scores = pair_scores(*with.other, *with.samples, run_, *run_.samples(record.id), record, metric);
  const auto bad = std::count_if(scores.loss.begin(), scores.loss.end(), [](double d) { return !std::isfinite(d); });
  if (bad > 0) throw NoNumbers{fmt::format("{} of {} scores of {} are not numbers", bad, scores.loss.size(), metric)};
  return scores;
}

PairedScores Gate::pooled(const GateRule& rule, Job& job) const {
  std::vector<PairedScores> parts;
  for (const Record* record : job.records) {
    require_measured(*record);
    parts.push_back(paired(rule, *record, rule.metric_of(*record), job));
    const PairedScores &first = parts.front(), &one = parts.back();
    if (one.exponential != first.exponential || one.unit_range != first.unit_range)
      throw NoNumbers{fmt::format("{} and {} cannot be averaged; write a rule for each", first.metric, one.metric)};
  }
  return stack(parts);
}

// Strata of one cluster have no spread of their own; as one stratum the mean is the same.
void merge_lone_strata(Design& design, size_t items) {
  if (design.weighting == Weighting::kItems && lay_out(design, static_cast<int64_t>(items)).has_lone_cluster())
    design.stratum.clear();
}

void set_flips(GateVerdict& verdict, const PairedScores& scores) {
  verdict.n = std::ssize(scores.loss);
  verdict.lost = std::count_if(scores.loss.begin(), scores.loss.end(), [](double d) { return d > 0; });
  verdict.gained = std::count_if(scores.loss.begin(), scores.loss.end(), [](double d) { return d < 0; });
}

void Gate::judge_margin(const GateRule& rule, Job& job) const {
  GateVerdict& verdict = job.verdict;
  PairedScores scores =
      rule.pooled ? pooled(rule, job) : paired(rule, *job.records.front(), rule.metric_of(*job.records.front()), job);
  merge_lone_strata(scores.design, scores.item.size());
  verdict.metric = scores.metric;
  verdict.ratio = scores.exponential;
  set_flips(verdict, scores);
  Margin margin;
  margin.confidence = rule.confidence;
  margin.range = scores.unit_range ? std::optional(Interval{-1, 1}) : std::nullopt;
  if (scores.exponential) {
    margin.max_loss = std::log(*rule.max_ratio);
  } else {
    margin.max_loss = *rule.max_drop;
    if (margin.range && margin.max_loss >= 1)
      throw NoNumbers{fmt::format("max_drop {} says nothing of {}, whose values are in [0, 1]; two points are 0.02",
                                  margin.max_loss, scores.metric)};
  }
  const NonInferiority test = non_inferiority(scores.design, scores.loss, margin);
  const auto shown = [&](double value) { return scores.exponential ? std::exp(value) : value; };
  verdict.measured = true;
  verdict.method = margin.range ? "Gaffke" : "Student";
  verdict.loss = shown(test.loss);
  verdict.low = shown(test.bounds.low);
  verdict.high = shown(test.bounds.high);
  verdict.margin = shown(margin.max_loss);
  verdict.detectable = shown(test.detectable);
  verdict.items_needed = test.items_needed;
  verdict.p_pass = test.p_pass;
  verdict.p_fail = test.p_fail;
  verdict.found = test.verdict;
  if (verdict.n < rule.min_items) {
    verdict.measured = false;
    verdict.found = Verdict::kInconclusive;
    verdict.reason = fmt::format("{} items, min_items is {}", verdict.n, rule.min_items);
  } else if (std::isnan(test.p_pass)) {
    verdict.measured = false;
    verdict.found = Verdict::kInconclusive;
    verdict.reason = "one item or document has no spread";
  }
}

void Gate::judge_identical(const GateRule& rule, Job& job) const {
  const Record& record = *job.records.front();
  GateVerdict& verdict = job.verdict;
  const Pairing with = pairing(rule, record, job);
  const PointSamples& own = *run_.samples(record.id);
  std::vector<std::string> metrics = own.metrics;
  if (rule.metric != "primary") metrics = {rule.metric_of(record)};
  if (rule.metric == "primary" && with.samples->metrics != own.metrics)
    throw NoNumbers{fmt::format("the scores are {}; what they are held against has {}", join(own.metrics),
                                join(with.samples->metrics))};
  std::map<uint32_t, std::string> differ;  // item of what it is held against -> what
  for (const std::string& metric : metrics) {
    const PairedScores scores = paired(rule, record, metric, job);
    if (metric == record.primary_metric || metrics.size() == 1) set_flips(verdict, scores);
    for (size_t i = 0; i < scores.item.size(); ++i)
      if (scores.own[i] != scores.reference[i])
        differ.try_emplace(scores.item[i], fmt::format("{} {} -> {}", metric, scores.reference[i], scores.own[i]));
  }
  verdict.metric = metrics.size() == 1 ? metrics.front() : fmt::format("{} scores", metrics.size());
  verdict.measured = true;
  verdict.found = differ.empty() ? Verdict::kPass : Verdict::kFail;
  verdict.reason = differ.empty() ? "every score is the same" : "";
  if (differ.empty()) return;
  // The first in the task's order, in which samples stand.
  for (const uint32_t item : with.samples->item)
    if (const auto at = differ.find(item); at != differ.end()) {
      verdict.reason = fmt::format("{} of {} items differ, first {}: {}", differ.size(), verdict.n,
                                   with.other->items()[item].sample_id, at->second);
      return;
    }
}

std::optional<double> spent(const Record& record, const std::string& budget) {
  if (budget == "bytes_per_token") return record.bytes_per_token;
  if (budget == "effective_bits") return record.effective_bits;
  return record.decode_ms_per_token;
}

void Gate::judge_budget(const GateRule& rule, Job& job) const {
  const Record& record = *job.records.front();
  GateVerdict& verdict = job.verdict;
  const Pairing with = pairing(rule, record, job);
  verdict.metric = rule.budget;
  verdict.margin = rule.max_rise;
  if (!rule.against_baseline && with.record->id != record.reference_id)
    throw NoNumbers{"the run has no record of full precision"};
  const std::optional<double> before = spent(*with.record, rule.budget), now = spent(record, rule.budget);
  if (!before || !now) throw NoNumbers{fmt::format("not timed{}", now ? " in what it is held against" : "")};
  if (!std::isfinite(*before) || !std::isfinite(*now) || *before <= 0)
    throw NoNumbers{fmt::format("{} and {} have no ratio", *before, *now)};
  verdict.n = record.n;
  verdict.loss = *now / *before - 1;
  if (rule.budget == "decode_ms_per_token") {
    verdict.n = 1;
    const auto machine = [](const Record& of) { return fmt::format("{}, {} threads", of.env.cpu, of.env.threads); };
    if (machine(record) != machine(*with.record))
      throw NoNumbers{fmt::format("timed on another machine: {} against {}", machine(*with.record), machine(record)),
                      Verdict::kInconclusive};
  }
  verdict.measured = true;
  verdict.found = *verdict.loss <= rule.max_rise ? Verdict::kPass : Verdict::kFail;
  verdict.reason = fmt::format("{:.6g} -> {:.6g}", *before, *now);
}

// FAIL only where the loss is proven also in view of how many were looked at.
void Gate::adjust_failures() {
  std::vector<GateVerdict*> family;
  std::vector<double> p;
  for (Job& job : jobs_) {
    if (!job.verdict.measured || !job.verdict.p_fail || file_.rules[job.rule].expect) continue;
    family.push_back(&job.verdict);
    p.push_back(*job.verdict.p_fail);
  }
  family_ = std::ssize(family);
  const std::vector<double> adjusted = holm(p);
  for (size_t i = 0; i < family.size(); ++i) {
    GateVerdict& verdict = *family[i];
    verdict.p_fail_adjusted = adjusted[i];
    if (verdict.found == Verdict::kFail && adjusted[i] >= 1 - file_.rules[verdict.rule].confidence) {
      verdict.found = Verdict::kInconclusive;
      verdict.reason = fmt::format("a loss beyond the margin is proven alone, not among {} verdicts", family_);
    }
  }
  for (Job& job : jobs_) {
    GateVerdict& verdict = job.verdict;
    if (!verdict.reason.empty()) continue;
    if (verdict.found == Verdict::kPass) verdict.reason = "the loss is below the margin";
    if (verdict.found == Verdict::kFail) verdict.reason = "the loss is beyond the margin";
    if (verdict.found == Verdict::kInconclusive)
      verdict.reason =
          verdict.items_needed > 0
              ? fmt::format("the margin is within the bounds; about {} items would tell", verdict.items_needed)
              : "the margin is within the bounds";
  }
}

void Gate::apply_expectations() {
  for (Job& job : jobs_) {
    GateVerdict& verdict = job.verdict;
    verdict.verdict = verdict.found;
    const auto& expect = file_.rules[job.rule].expect;
    if (!expect) continue;
    const bool as_expected = verdict.measured && verdict.found == *expect;
    verdict.verdict = as_expected ? Verdict::kPass : Verdict::kFail;
    verdict.reason = fmt::format("control: {} as expected; {}", name_of(*expect), verdict.reason);
    if (!as_expected)
      verdict.reason = fmt::format("control missed: expected {}, found {}; {}", name_of(*expect),
                                   name_of(verdict.found), verdict.reason.substr(verdict.reason.find("; ") + 2));
  }
}

}  // namespace

int64_t GateReport::count(Verdict verdict) const {
  return std::count_if(verdicts.begin(), verdicts.end(),
                       [&](const GateVerdict& one) { return one.verdict == verdict; });
}

int GateReport::exit_status() const {
  if (count(Verdict::kFail) > 0) return 1;
  return count(Verdict::kInconclusive) > 0 ? 3 : 0;
}

void require_baseline(const GateFile& file, const Results* baseline) {
  if (baseline != nullptr) return;
  for (const GateRule& rule : file.rules)
    if (rule.against_baseline)
      throw ConfigError(fmt::format("{}:{}: rule '{}' is against a baseline; name one with --baseline FILE", file.path,
                                    rule.line, rule.name));
}

GateReport run_gate(const GateFile& file, const Results& run, const Results* baseline, const Allowed& allowed) {
  require_baseline(file, baseline);
  return Gate(file, run, baseline, allowed).judge();
}

const char* name_of(Verdict verdict) {
  if (verdict == Verdict::kPass) return "PASS";
  return verdict == Verdict::kFail ? "FAIL" : "INCONCLUSIVE";
}

}  // namespace kvsweep
