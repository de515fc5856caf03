#include "harness/report/compare/run_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "harness/core/error.h"
#include "harness/report/analysis/analysis.h"
#include "harness/report/text_table.h"

namespace kvsweep {
namespace {

using Outcome = RunComparison::Outcome;

std::string key_of(const Record& record, const Allowed& allowed) {
  const Point& p = record.point;
  std::string key = fmt::format("{}\n{}", p.task, configuration_of(record));
  const auto add = [&](const char* field, const std::string& value) {
    if (!allowed.contains(field)) key += fmt::format("\n{} {}", field, value);
  };
  add("model", p.model);
  add("task_version", fmt::to_string(p.task_version));
  add("task_params", params_text(p.task_params));
  add("view", p.view);
  add("seed", fmt::to_string(p.seed));
  return key;
}

std::map<std::string, const Record*> by_key(const Results& results, const Allowed& allowed) {
  std::map<std::string, const Record*> out;
  for (const Record& record : results.records()) {
    const auto [at, fresh] = out.try_emplace(key_of(record, allowed), &record);
    if (!fresh)
      throw ConfigError(fmt::format("{}: {} and {} cannot be told apart when {} may differ", results.path().string(),
                                    at->second->point.label(), record.point.label(),
                                    join({allowed.begin(), allowed.end()}, ", ")));
  }
  return out;
}

std::string missing(const Results& results, const Record& record) {
  if (record.status == "failed")
    return fmt::format("failed in {}: {}", results.path().string(), error_line(record.error));
  if (record.status == "not_engaged") return fmt::format("not engaged in {}", results.path().string());
  if (results.samples(record.id) == nullptr) return fmt::format("no samples in {}", results.path().string());
  return "";
}

void compare_pair(PointPair& pair, const Results& a, const Results& b, const Allowed& allowed,
                  const CompareOptions& options, std::set<std::string>& differences) {
  for (const auto& [results, record] : {std::pair(&a, pair.a), std::pair(&b, pair.b)})
    if (pair.gap.empty()) pair.gap = missing(*results, *record);
  if (!pair.gap.empty()) return;
  const auto rules = rule_differences(rules_of(a, *pair.a), rules_of(b, *pair.b), allowed);
  if (const std::string refused = describe(rules, false); !refused.empty()) {
    pair.gap = "not comparable: " + refused;
    return;
  }
  for (const RuleDifference& one : rules) differences.insert(fmt::format("{}: {} against {}", one.field, one.a, one.b));
  const PairedScores scores =
      pair_scores(a, *a.samples(pair.a->id), b, *b.samples(pair.b->id), *pair.a, pair.a->primary_metric);
  pair.loss = compare(scores, options);
  pair.identical = pair.loss->lost + pair.loss->gained + pair.loss->not_numbers + pair.loss->unpaired == 0;
}

std::string number(double value, int digits, bool sign = false) {
  if (!std::isfinite(value)) return "nan";
  return sign ? fmt::format("{:+.{}f}", value, digits) : fmt::format("{:.{}f}", value, digits);
}

std::string change(double a, double b, int digits) {
  const std::string from = number(a, digits), to = number(b, digits);
  return from == to ? from : from + " > " + to;
}

std::string change(const std::optional<double>& a, const std::optional<double>& b, int digits) {
  return a && b ? change(*a, *b, digits) : "-";
}

std::string what_happened(const RunComparison& comparison, const PointPair& pair) {
  switch (comparison.outcome(pair)) {
    case Outcome::kLoss:
      return "loss";
    case Outcome::kGain:
      return "gain";
    case Outcome::kNoDifference:
      return pair.loss->not_numbers > 0 ? fmt::format("{} of {} not numbers", pair.loss->not_numbers, pair.loss->n)
                                        : fmt::format("none shown; {} would be", number(pair.loss->detectable, 4));
    default:
      return "";
  }
}

TextTable differing(const RunComparison& comparison) {
  TextTable table;
  table.columns = {
      {"task", true}, {"scheme", true},     {"n"},         {"A"},       {"B"},       {"loss [95 %]"}, {"lost/gained"},
      {"p Holm"},     {"difference", true}, {"eff. bits"}, {"B/token"}, {"ms/token"}};
  for (const PointPair& pair : comparison.pairs) {
    const Outcome outcome = comparison.outcome(pair);
    if (outcome != Outcome::kLoss && outcome != Outcome::kGain && outcome != Outcome::kNoDifference) continue;
    const Comparison& c = *pair.loss;
    const auto shown = [&](double mean) { return number(c.exponential ? std::exp(mean) : mean, 4); };
    table.rows.push_back({fmt::format("{} {} {}", pair.a->point.task, pair.a->point.tokens, pair.a->point.view),
                          configuration_of(*pair.a), fmt::to_string(c.n), shown(c.reference_mean), shown(c.own_mean),
                          fmt::format("{} [{}, {}]", number(c.loss, 4, true), number(c.interval.low, 4, true),
                                      number(c.interval.high, 4, true)),
                          fmt::format("{}/{}", c.lost, c.gained), number(c.p_adjusted, 4),
                          what_happened(comparison, pair), change(pair.a->effective_bits, pair.b->effective_bits, 3),
                          change(pair.a->bytes_per_token, pair.b->bytes_per_token, 1),
                          change(pair.a->decode_ms_per_token, pair.b->decode_ms_per_token, 2)});
  }
  return table;
}

}  // namespace

Outcome RunComparison::outcome(const PointPair& pair) const {
  if (pair.b == nullptr) return Outcome::kOnlyA;
  if (pair.a == nullptr) return Outcome::kOnlyB;
  if (!pair.loss) return Outcome::kNotCompared;
  if (pair.identical) return Outcome::kIdentical;
  if (!(pair.loss->p_adjusted < level)) return Outcome::kNoDifference;
  return pair.loss->loss > 0 ? Outcome::kLoss : Outcome::kGain;
}

int64_t RunComparison::count(Outcome wanted) const {
  return std::count_if(pairs.begin(), pairs.end(), [&](const PointPair& pair) { return outcome(pair) == wanted; });
}

RunComparison compare_runs(const Results& a, const Results& b, const Allowed& allowed, const CompareOptions& options) {
  const auto in_a = by_key(a, allowed), in_b = by_key(b, allowed);
  RunComparison out;
  out.level = 1 - options.confidence;
  for (const Record& record : a.records()) {
    PointPair& pair = out.pairs.emplace_back();
    pair.a = &record;
    if (const auto at = in_b.find(key_of(record, allowed)); at != in_b.end()) pair.b = at->second;
  }
  for (const Record& record : b.records())
    if (!in_a.contains(key_of(record, allowed))) out.pairs.emplace_back().b = &record;
  std::set<std::string> differences;
  std::vector<Comparison*> family;
  for (PointPair& pair : out.pairs)
    if (pair.a != nullptr && pair.b != nullptr) compare_pair(pair, a, b, allowed, options, differences);
  for (PointPair& pair : out.pairs)
    if (pair.loss && !pair.identical) family.push_back(&*pair.loss);
  if (out.count(Outcome::kOnlyA) + out.count(Outcome::kOnlyB) == std::ssize(out.pairs))
    throw DataError(fmt::format("{} and {} have no point in common; the first of each are {} and {}", a.path().string(),
                                b.path().string(), a.records().front().point.label(),
                                b.records().front().point.label()));
  adjust(family);
  out.differences.assign(differences.begin(), differences.end());
  return out;
}

std::string render(const RunComparison& comparison, const Results& a, const Results& b, bool markdown) {
  std::string out = fmt::format("A {}\nB {}\n", a.path().string(), b.path().string());
  const auto counted = [&](Outcome outcome, const std::string& what) {
    if (const int64_t n = comparison.count(outcome); n > 0) out += fmt::format("{} {}\n", n, what);
  };
  if (markdown) out = "```\n" + out;
  counted(Outcome::kLoss, "points with a loss in B");
  counted(Outcome::kGain, "points with a gain in B");
  counted(Outcome::kNoDifference, "points whose items differ without a difference shown");
  counted(Outcome::kIdentical, "points identical item by item");
  counted(Outcome::kNotCompared, "points not compared, reasons below");
  counted(Outcome::kOnlyA, "points in A alone");
  counted(Outcome::kOnlyB, "points in B alone");
  for (const std::string& difference : comparison.differences) out += "allowed to differ: " + difference + "\n";
  if (markdown) out += "```\n";
  if (const TextTable table = differing(comparison); !table.rows.empty())
    out += "\n" + (markdown ? to_markdown(table) : to_terminal(table));
  std::map<std::string, std::vector<std::string>> gaps;
  for (const PointPair& pair : comparison.pairs)
    if (!pair.gap.empty()) gaps[pair.gap].push_back(pair.a->point.label());
  if (!gaps.empty()) out += "\n";
  for (const auto& [gap, labels] : gaps)
    out += fmt::format("{}not compared: {}{}: {}\n", markdown ? "- " : "", labels.front(),
                       labels.size() > 1 ? fmt::format(" and {} more", labels.size() - 1) : "", gap);
  return out;
}

}  // namespace kvsweep
