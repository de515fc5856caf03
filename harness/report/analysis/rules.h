#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "harness/report/analysis/results.h"

namespace kvsweep {

// What two points must have in common for a difference between them to be the scheme's. `samples` is the hash of all
// items' ids and prompts, in their order.
inline constexpr const char* kRuleFields[] = {"model", "weights", "task",          "task_version", "task_params",
                                              "data",  "view",    "seed",          "metric",       "device",
                                              "dtype", "torch",   "deterministic", "samples"};

// Fields that a person has allowed to differ. `samples`: only items that both have are compared.
using Allowed = std::set<std::string>;
// Throws ConfigError naming the field and those that there are.
Allowed allowed_fields(const std::vector<std::string>& names);

// A point's value of each field, in the order of kRuleFields. `samples` is "" without samples: those say nothing.
std::vector<std::string> rules_of(const Results& results, const Record& record);

struct RuleDifference {
  std::string field, a, b;
  bool allowed = false;
};

// Fields in which two points differ.
std::vector<RuleDifference> rule_differences(const std::vector<std::string>& a, const std::vector<std::string>& b,
                                             const Allowed& allowed);

// "view: exact against chunked:128; data: 1a2b3c4d against none": those that are not allowed, or with `allowed` those
// that are. "" when there is none.
std::string describe(const std::vector<RuleDifference>& differences, bool allowed);

}  // namespace kvsweep
