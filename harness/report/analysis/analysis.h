#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/analysis/comparison.h"
#include "harness/report/analysis/failure_mode.h"
#include "harness/report/analysis/results.h"

namespace kvsweep {

// A configuration of a scheme in a table.
struct Row {
  const Record* record = nullptr;
  std::string configuration;  // "uniform k_bits=4 v_bits=2": names the same configuration in every group
  bool is_reference = false;
  std::optional<Comparison> loss;  // to full precision on the primary metric; none: see `gap`
  std::optional<Interval> score;   // of the primary metric's own mean, in its units: Wilson for 0/1, else bootstrap
  std::string gap;                 // why there is no comparison: "failed: out of memory", "not engaged", "no samples"
  FailureModes failures;           // of items that became worse
};

// Points that were asked the same prompts under the same rules: a table.
struct Group {
  std::string title;                  // "needle v1 tokens=1024 samples=20 | 1024 tokens"
  std::vector<std::string> rules;     // rules_of(): of its first measured record
  const Record* first = nullptr;      // any record of it; `first->point` but for the scheme is the group's
  const Record* reference = nullptr;  // full precision's; nullptr: the sweep has no such point
  const PointSamples* reference_samples = nullptr;  // there also without a record; nullptr: the directory has none
  std::string reference_id;
  std::vector<Row> rows;  // in the order of Results::records()
  int64_t items = 0;

  const Row* find(const std::string& configuration) const;
};

// One configuration over several groups: the mean of the groups' losses, each of the same weight, items resampled
// within them (for a suite such as LongBench: the mean of its sets).
struct PooledRow {
  std::string configuration;
  const Record* record = nullptr;  // its first
  std::vector<const Row*> rows;    // of each group of the pool; nullptr: that group has none
  std::optional<Comparison> loss;
  std::string gap;                                 // which groups lack it, and why
  double effective_bits = 0, bytes_per_token = 0;  // means over groups
  std::optional<double> decode_ms_per_token;       // mean over the groups that timed it; none: none did
  FailureModes failures;
};

// What one model in one view was asked of one kind, or of all kinds. Scores in [0, 1] where more is better are pooled;
// perplexities stay apart, in pools of kind language_modeling with ratios instead of differences.
struct Pool {
  std::string model, view, kind;  // kind: of kTaskKinds, or "" for all kinds but language_modeling
  std::vector<const Group*> groups;
  std::vector<PooledRow> rows;  // of configurations other than full precision
};

// All that tables, figures and the report show.
class Analysis {
 public:
  const Results& results() const { return *results_; }
  const std::vector<Group>& groups() const { return groups_; }
  const std::vector<Pool>& pools() const { return pools_; }
  const CompareOptions& options() const { return options_; }
  const Allowed& allowed() const { return allowed_; }

 private:
  friend Analysis analyse(Results results, const CompareOptions& options, const Allowed& allowed);
  std::unique_ptr<Results> results_;
  std::vector<Group> groups_;
  std::vector<Pool> pools_;
  CompareOptions options_;
  Allowed allowed_;
};

// p is adjusted within each group and each pool. A row whose rules differ from its group's in a field that is not
// allowed has a gap that names it.
Analysis analyse(Results results, const CompareOptions& options = {}, const Allowed& allowed = {});

// The scores that a row's loss is of, for who asks more of them (margins). Of a row without a gap; of a pooled one each
// group is a stratum of the same weight.
PairedScores paired_scores(const Results& results, const Group& group, const Row& row);
PairedScores pooled_scores(const Results& results, const Pool& pool, const PooledRow& row);

// "uniform k_bits=4 v_bits=2": scheme and its parameters as recorded.
std::string configuration_of(const Record& record);

// What a configuration costs and loses, of those that nothing beats in both. cost and loss: NaN points are never on it.
// Returns indices of points that no other has both less or equal cost and less or equal loss of, one of them less.
std::vector<size_t> pareto_front(const std::vector<double>& cost, const std::vector<double>& loss);

}  // namespace kvsweep
