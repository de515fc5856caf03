#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/analysis/results.h"
#include "harness/report/gate/gate_file.h"
#include "harness/report/shard.h"

namespace kvsweep {

// What is certain of a verdict while samples are still to come.
struct WatchedVerdict {
  size_t rule = 0;
  std::string label;               // Point::label()
  int64_t n = 0, of = 0;           // items that are there, of all
  std::optional<Verdict> verdict;  // of the rule, its control turned as in GateVerdict; none: still open
  std::string why;                 // why it is certain or open
};

// Says of the rules of a gate which verdicts of the whole set are certain whatever is still to come (certain_verdict of
// margin.h): nothing is spent on looking early. Certain can be margins of single points whose scores are in [0, 1] (and
// are taken to stay there), and that something is not identical; pooled rules, ratios, budgets and items that share
// documents are open until the end. A FAIL counts as certain when it holds at Bonferroni's level over all margin
// verdicts, which Holm's never is below.
class GateWatch {
 public:
  // groups: what the run is about to measure, with all of its samples. Whether others may come decides on rules that
  // match nothing, and on points that only the baseline has: a FAIL, or open. baseline as for run_gate(); its points
  // are taken to be comparable, which run_gate() checks. Throws ConfigError as run_gate() does.
  enum class Groups { kAll, kSoFar };
  GateWatch(GateFile file, const std::vector<ShardGroup>& groups, const Results* baseline, Groups known = Groups::kAll);

  void add(const SampleRecord& sample);  // a sample that is there already is left out
  std::vector<WatchedVerdict> verdicts() const;

 private:
  struct Planned {
    size_t rule = 0;
    Record record;
    std::vector<std::string> samples;
    const Record* before = nullptr;  // in the baseline
  };
  using Scores = std::map<std::string, double>;

  void plan(size_t index, const std::vector<ShardGroup>& groups, const std::map<std::string, const Record*>& before);
  void plan_missing(size_t index, std::string label, std::string why);
  WatchedVerdict judge(const Planned& planned) const;
  void judge_margin(const Planned& planned, WatchedVerdict& out) const;
  void judge_identical(const Planned& planned, WatchedVerdict& out) const;
  std::map<std::string, Scores> reference_of(const Planned& planned) const;
  double bonferroni() const { return static_cast<double>(std::max<int64_t>(1, family_)); }

  GateFile file_;
  const Results* baseline_;
  Groups known_;
  std::vector<Planned> planned_;
  std::vector<WatchedVerdict> missing_;
  int64_t family_ = 0;
  std::map<std::string, std::map<std::string, Scores>> scores_;  // by point and sample
  std::map<std::string, std::map<std::string, std::string>> documents_;
};

// What the shards of a directory were about to run. Throws DataError when it has none.
std::vector<ShardGroup> planned_groups(const std::filesystem::path& directory);
// Watches a directory as it is.
std::vector<WatchedVerdict> watch_directory(const GateFile& file, const std::filesystem::path& directory,
                                            const Results* baseline);

// 1: a FAIL is certain; else 3: something is open or INCONCLUSIVE; else 0.
int exit_status(const std::vector<WatchedVerdict>& verdicts);
std::string watch_to_terminal(const GateFile& file, const std::vector<WatchedVerdict>& verdicts);

}  // namespace kvsweep
