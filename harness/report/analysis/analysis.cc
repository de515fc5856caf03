#include "harness/report/analysis/analysis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

#include "harness/core/error.h"
#include "harness/report/statistics/bootstrap.h"
#include "harness/report/statistics/proportion.h"

namespace kvsweep {
namespace {

// What a point was asked, its scheme apart.
std::string question_of(const Record& record) {
  const Point& p = record.point;
  return fmt::format("{}\n{}\n{}\n{}\n{}\n{}", p.model, p.task, p.task_version, params_text(p.task_params), p.view,
                     p.seed);
}

bool measured(const Record& record) {
  return record.status != "failed";
}

class Analyser {
 public:
  Analyser(const Results& results, const CompareOptions& options, const Allowed& allowed)
      : results_(results), options_(options), allowed_(allowed) {}

  std::vector<Group> groups() const;
  std::vector<Pool> pools(const std::vector<Group>& groups) const;

 private:
  void fill(Group& group) const;
  void add_scores(Group& group) const;
  void compare_rows(Group& group) const;
  std::string gap_of(const Group& group, const Record& record) const;
  Pool pool_of(std::vector<const Group*> groups, const std::string& kind) const;
  void compare_pooled(Pool& pool) const;

  const Results& results_;
  const CompareOptions& options_;
  const Allowed& allowed_;
};

std::vector<Group> Analyser::groups() const {
  std::vector<Group> groups;
  std::map<std::string, size_t> at;
  for (const Record& record : results_.records()) {
    const auto [found, fresh] = at.try_emplace(question_of(record), groups.size());
    if (fresh) groups.emplace_back();
    Row& row = groups[found->second].rows.emplace_back();
    row.record = &record;
    row.configuration = configuration_of(record);
    row.is_reference = record.id == record.reference_id;
  }
  for (Group& group : groups) fill(group);
  return groups;
}

void Analyser::fill(Group& group) const {
  const auto ok =
      std::find_if(group.rows.begin(), group.rows.end(), [](const Row& row) { return measured(*row.record); });
  group.first = ok == group.rows.end() ? group.rows.front().record : ok->record;
  const Point& point = group.first->point;
  group.title =
      fmt::format("{} | {} tokens",
                  with_params(fmt::format("{} v{}", point.task, point.task_version), point.task_params), point.tokens);
  group.reference_id = group.first->reference_id;
  group.reference_samples = results_.samples(group.reference_id);
  for (const Row& row : group.rows)
    if (row.is_reference && measured(*row.record)) group.reference = row.record;
  group.rules = rules_of(results_, group.reference != nullptr ? *group.reference : *group.first);
  if (group.reference_samples != nullptr) group.items = static_cast<int64_t>(group.reference_samples->size());
  for (Row& row : group.rows) row.gap = gap_of(group, *row.record);
  add_scores(group);
  compare_rows(group);
}

std::string Analyser::gap_of(const Group& group, const Record& record) const {
  if (record.status == "failed") return "failed: " + error_line(record.error);
  if (record.status == "not_engaged") return "not engaged";
  if (results_.samples(record.id) == nullptr) return "no samples";
  if (record.id == group.reference_id) return "reference";
  if (group.reference_samples == nullptr) return "no samples of full precision";
  const auto differences = rule_differences(group.rules, rules_of(results_, record), allowed_);
  const std::string refused = describe(differences, false);
  return refused.empty() ? "" : "not comparable: " + refused;
}

// Wilson's interval of a 0/1 score; else the mean's bootstrap over the same strata and clusters.
void Analyser::add_scores(Group& group) const {
  std::vector<Row*> graded;
  std::vector<PairedScores> columns;
  for (Row& row : group.rows) {
    const PointSamples* samples = results_.samples(row.record->id);
    if (samples == nullptr || !measured(*row.record)) continue;
    PairedScores scores = pair_scores(results_, *samples, results_, *samples, *row.record, row.record->primary_metric);
    const auto not_finite = [](double value) { return !std::isfinite(value); };
    if (std::any_of(scores.own.begin(), scores.own.end(), not_finite)) continue;
    if (scores.binary() && scores.design.cluster.empty()) {
      const double right = std::accumulate(scores.own.begin(), scores.own.end(), 0.0);
      row.score = wilson(static_cast<int64_t>(right), std::ssize(scores.own), options_.confidence);
      continue;
    }
    graded.push_back(&row);
    columns.push_back(std::move(scores));
  }
  // Rows that read other items than the first (a sweep that grew) are drawn on their own.
  for (size_t begin = 0; begin < columns.size();) {
    size_t end = begin + 1;
    while (end < columns.size() && columns[end].item == columns[begin].item) ++end;
    const size_t n = columns[begin].item.size(), m = end - begin;
    std::vector<double> values(n * m);
    for (size_t j = 0; j < m; ++j)
      for (size_t i = 0; i < n; ++i) values[i * m + j] = columns[begin + j].own[i];
    const auto drawn = bootstrap_columns(columns[begin].design, values, static_cast<int64_t>(m),
                                         {.resamples = options_.resamples,
                                          .confidence = options_.confidence,
                                          .seed = options_.seed,
                                          .threads = options_.threads});
    for (size_t j = 0; j < m; ++j) graded[begin + j]->score = drawn[j].percentile;
    begin = end;
  }
}

void Analyser::compare_rows(Group& group) const {
  std::vector<Row*> rows;
  std::vector<PairedScores> columns;
  for (Row& row : group.rows) {
    if (!row.gap.empty()) continue;
    rows.push_back(&row);
    columns.push_back(paired_scores(results_, group, row));
    row.failures =
        failure_modes(columns.back(), *group.reference_samples, *results_.samples(row.record->id), *row.record);
  }
  for (size_t begin = 0; begin < columns.size();) {
    size_t end = begin + 1;
    while (end < columns.size() && columns[end].item == columns[begin].item) ++end;
    const std::vector<PairedScores> same(columns.begin() + static_cast<std::ptrdiff_t>(begin),
                                         columns.begin() + static_cast<std::ptrdiff_t>(end));
    std::vector<Comparison> compared = compare_all(same, options_);
    for (size_t j = 0; j < compared.size(); ++j) rows[begin + j]->loss = std::move(compared[j]);
    begin = end;
  }
  std::vector<Comparison*> family;
  for (Row* row : rows) family.push_back(&*row->loss);
  adjust(family);
}

// Scores that can be averaged with one another.
bool poolable(const Group& group) {
  const auto info = group.first->metric_info.find(group.first->primary_metric);
  return info != group.first->metric_info.end() && !info->second.exponential && info->second.higher_is_better;
}

std::vector<Pool> Analyser::pools(const std::vector<Group>& groups) const {
  using Key = std::tuple<std::string, std::string, std::string>;
  std::map<Key, std::vector<const Group*>> members;
  for (const Group& group : groups) {
    if (group.reference_samples == nullptr) continue;
    const Point& point = group.first->point;
    const std::string& kind = group.first->task_kind;
    if (poolable(group)) members[{point.model, point.view, ""}].push_back(&group);
    members[{point.model, point.view, kind}].push_back(&group);
  }
  std::vector<Pool> pools;
  for (auto& [key, of] : members) {
    // Of one kind only, its pool and that of all kinds are the same.
    const auto same = std::find_if(pools.begin(), pools.end(), [&](const Pool& pool) { return pool.groups == of; });
    Pool pool = same == pools.end() ? pool_of(std::move(of), std::get<2>(key)) : *same;
    pool.kind = std::get<2>(key);
    pools.push_back(std::move(pool));
  }
  return pools;
}

Pool Analyser::pool_of(std::vector<const Group*> groups, const std::string& kind) const {
  Pool pool;
  pool.model = groups.front()->first->point.model;
  pool.view = groups.front()->first->point.view;
  pool.kind = kind;
  pool.groups = std::move(groups);
  std::vector<std::string> configurations;
  for (const Group* group : pool.groups)
    for (const Row& row : group->rows)
      if (!row.is_reference &&
          std::find(configurations.begin(), configurations.end(), row.configuration) == configurations.end())
        configurations.push_back(row.configuration);
  for (const std::string& configuration : configurations) {
    PooledRow& pooled = pool.rows.emplace_back();
    pooled.configuration = configuration;
    std::vector<std::string> gaps;
    std::vector<const FailureModes*> failures;
    double timed = 0, milliseconds = 0, counted = 0;
    for (const Group* group : pool.groups) {
      const Row* row = group->find(configuration);
      pooled.rows.push_back(row);
      if (row == nullptr || !row->loss) {
        gaps.push_back(fmt::format("{}: {}", group->title, row == nullptr ? "not run" : row->gap));
        if (row != nullptr && pooled.record == nullptr) pooled.record = row->record;
        continue;
      }
      if (row->loss->not_numbers > 0)
        gaps.push_back(
            fmt::format("{}: {} of {} scores are not numbers", group->title, row->loss->not_numbers, row->loss->n));
      if (pooled.record == nullptr || !measured(*pooled.record)) pooled.record = row->record;
      failures.push_back(&row->failures);
      ++counted;
      pooled.effective_bits += row->record->effective_bits;
      pooled.bytes_per_token += row->record->bytes_per_token;
      if (row->record->decode_ms_per_token) {
        ++timed;
        milliseconds += *row->record->decode_ms_per_token;
      }
    }
    pooled.gap = join(gaps, "; ");
    pooled.failures = sum(failures);
    if (counted > 0) {
      pooled.effective_bits /= counted;
      pooled.bytes_per_token /= counted;
    }
    if (timed > 0) pooled.decode_ms_per_token = milliseconds / timed;
  }
  compare_pooled(pool);
  return pool;
}

void Analyser::compare_pooled(Pool& pool) const {
  std::vector<PooledRow*> rows;
  std::vector<PairedScores> columns;
  for (PooledRow& row : pool.rows) {
    if (!row.gap.empty()) continue;
    rows.push_back(&row);
    columns.push_back(pooled_scores(results_, pool, row));
  }
  if (rows.empty()) return;
  std::vector<Comparison> compared = compare_all(columns, options_);
  std::vector<Comparison*> family;
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i]->loss = std::move(compared[i]);
    family.push_back(&*rows[i]->loss);
  }
  adjust(family);
}

}  // namespace

const Row* Group::find(const std::string& configuration) const {
  const auto at =
      std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.configuration == configuration; });
  return at == rows.end() ? nullptr : &*at;
}

PairedScores paired_scores(const Results& results, const Group& group, const Row& row) {
  return pair_scores(results, *group.reference_samples, results, *results.samples(row.record->id), *row.record,
                     row.record->primary_metric);
}

PairedScores pooled_scores(const Results& results, const Pool& pool, const PooledRow& row) {
  std::vector<PairedScores> parts;
  for (size_t g = 0; g < pool.groups.size(); ++g)
    parts.push_back(paired_scores(results, *pool.groups[g], *row.rows[g]));
  return stack(parts);
}

std::string configuration_of(const Record& record) {
  return with_params(record.point.scheme, record.point.scheme_params);
}

Analysis analyse(Results results, const CompareOptions& options, const Allowed& allowed) {
  Analysis out;
  out.options_ = options;
  out.allowed_ = allowed;
  out.results_ = std::make_unique<Results>(std::move(results));
  const Analyser analyser(*out.results_, out.options_, out.allowed_);
  out.groups_ = analyser.groups();
  out.pools_ = analyser.pools(out.groups_);
  return out;
}

std::vector<size_t> pareto_front(const std::vector<double>& cost, const std::vector<double>& loss) {
  std::vector<size_t> front;
  for (size_t i = 0; i < cost.size(); ++i) {
    if (std::isnan(cost[i]) || std::isnan(loss[i])) continue;
    bool beaten = false;
    for (size_t j = 0; j < cost.size() && !beaten; ++j)
      beaten = cost[j] <= cost[i] && loss[j] <= loss[i] && (cost[j] < cost[i] || loss[j] < loss[i]);
    if (!beaten) front.push_back(i);
  }
  return front;
}

}  // namespace kvsweep
