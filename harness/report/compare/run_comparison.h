#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/report/analysis/comparison.h"
#include "harness/report/analysis/results.h"
#include "harness/report/analysis/rules.h"

namespace kvsweep {

// One point in two results.
struct PointPair {
  const Record *a = nullptr, *b = nullptr;  // nullptr: only the other has it
  std::optional<Comparison> loss;           // of b against a on a's primary metric
  bool identical = false;                   // no item's score differs
  std::string gap;                          // why there is no comparison
};

// Two results, point by point: b against a. Points are the same when model, task with version and parameters, view,
// seed, scheme and its parameters are, less what is allowed to differ.
struct RunComparison {
  std::vector<PointPair> pairs;          // in the order of records; those of b alone behind
  std::vector<std::string> differences;  // that were allowed, "view: exact against chunked:128"

  enum class Outcome { kIdentical, kNoDifference, kLoss, kGain, kNotCompared, kOnlyA, kOnlyB };
  // kLoss, kGain: p by Holm's method over all pairs is below 1 - confidence.
  Outcome outcome(const PointPair& pair) const;
  int64_t count(Outcome outcome) const;
  double level = 0.05;
};

// Throws ConfigError when a point of one has several counterparts in the other (a field is allowed to differ that tells
// points apart), DataError when there is no pair at all.
RunComparison compare_runs(const Results& a, const Results& b, const Allowed& allowed = {},
                           const CompareOptions& options = {});

// One screen: what is the same, what is not with its interval, what could have been seen, what is missing.
std::string render(const RunComparison& comparison, const Results& a, const Results& b, bool markdown);

}  // namespace kvsweep
