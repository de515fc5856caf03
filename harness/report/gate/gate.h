#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "harness/report/analysis/comparison.h"
#include "harness/report/analysis/results.h"
#include "harness/report/analysis/rules.h"
#include "harness/report/gate/gate_file.h"
#include "harness/report/statistics/margin.h"

namespace kvsweep {

// What one rule found of one point, or of one configuration over several groups.
struct GateVerdict {
  size_t rule = 0;                               // index into GateReport::rules
  std::string model, task, configuration, view;  // as short as tells them apart within the run
  uint64_t seed = 0;
  std::string label;  // whole: Point::label(); "" when a rule matches nothing
  Verdict found = Verdict::kFail;
  Verdict verdict = Verdict::kFail;  // what counts: `found`, or of a control whether it did as expected
  std::string reason;                // one line, never empty
  // Whether `found` comes from measured numbers. A point that failed or is missing is a FAIL too, but not the one that
  // a control is there for.
  bool measured = false;

  std::string metric, method;  // method: "Gaffke", "Student", "" without a test
  int64_t n = 0;
  bool ratio = false;  // numbers below are ratios: 1.02; else differences, of a budget shares (0.05)
  std::optional<double> loss, low, high, margin;
  std::optional<double> detectable;  // the smallest margin that a scheme without loss would pass with power 0.8
  int64_t items_needed = 0;          // 0: not known
  std::optional<int64_t> lost, gained;
  std::optional<double> p_pass, p_fail, p_fail_adjusted;
};

// What became of a file of rules.
struct GateReport {
  std::string gates, run, baseline;  // paths; baseline "": none
  std::vector<GateRule> rules;
  std::vector<GateVerdict> verdicts;  // by rule, then in the order of Results::records()
  std::set<std::string> allowed;      // differences that --allow let pass: "torch: 2.11.0 against 2.12.0"
  int64_t family = 0;                 // verdicts over which p of a FAIL is adjusted

  int64_t count(Verdict verdict) const;
  // 1: a FAIL; else 3: an INCONCLUSIVE; else 0.
  int exit_status() const;
};

// Judges every rule on every point that it matches. Order of records, samples and shards does not matter.
//
// A margin: margin.h, on the task's strata and clusters; scores in [0, 1] by Gaffke's bound, others by Student's t.
// PASS is not adjusted for the number of rules: a file passes only when all of its rules do. FAIL claims a proven loss:
// their p are adjusted by Holm's method over all margin verdicts of the file that are no controls; what is FAIL only
// without that is INCONCLUSIVE. identical: every score of every item is the same number, NaN being one of its own. A
// budget compares means over the point's samples; times of other processors are INCONCLUSIVE.
//
// FAIL with a reason: a rule that matches nothing, points that failed, were not engaged, have no samples, scores that
// are not numbers, points that differ in a field of rules.h which is not allowed, points that only the baseline has.
// INCONCLUSIVE with a reason: fewer than min_items. Of a control (`expect`) anything but what it expects, found by
// measurement, is a FAIL.
//
// baseline: nullptr when no rule needs it, else ConfigError.
GateReport run_gate(const GateFile& file, const Results& run, const Results* baseline, const Allowed& allowed = {});

// Throws ConfigError that names the first rule which needs a baseline when there is none.
void require_baseline(const GateFile& file, const Results* baseline);

const char* name_of(Verdict verdict);  // "PASS", "FAIL", "INCONCLUSIVE"

}  // namespace kvsweep
