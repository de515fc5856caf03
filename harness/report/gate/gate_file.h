#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/record.h"
#include "harness/report/statistics/margin.h"

namespace kvsweep {

// What a rule of a gate asks of the points that it matches.
struct GateRule {
  enum class Kind {
    kMargin,     // max_drop, max_ratio: the loss stays below a margin
    kIdentical,  // identical: no item has another score
    kBudget      // budget, max_rise: bytes, bits or time do not rise by more than a share
  };
  Kind kind = Kind::kMargin;
  std::string name;  // unique within the file; one that is not given says what the rule says
  int line = 0;

  std::vector<std::string> tasks = {"*"}, schemes = {"*"};  // globs, one of which matches; see matches()
  std::vector<int64_t> tokens;                              // lengths; none: every length
  bool against_baseline = false;                            // else full precision of the same run

  std::string metric = "primary";   // its name or the title that tables show; primary: of each task
  std::optional<double> max_drop;   // of metrics that are shown as a mean, in their units
  std::optional<double> max_ratio;  // of exponential ones: perplexity to perplexity
  double confidence = 0.95;         // one-sided, of each bound
  int64_t min_items = kMinItems;    // fewer are INCONCLUSIVE
  bool pooled = false;              // one verdict over all groups that match, each group of the same weight
  std::string budget;               // of kBudgets
  double max_rise = 0;              // 0.05: 5 %
  std::optional<Verdict> expect;    // a control: kPass or kFail

  static constexpr int64_t kMinItems = 30;

  // Task: its name, or "needle tokens=1024 depths=5" as tables show it. Scheme: its name ("kivi"), or name/parameters
  // ("kivi/*", "uniform/k_bits=8*"), or "uniform k_bits=8 v_bits=8 ..." as tables show it.
  bool matches(const Record& record) const;
  // The name of the metric that the rule judges of a point; "" when its task has none of that name or title.
  std::string metric_of(const Record& record) const;
  // Whether the scheme is named itself, so that "*" does not mean full precision against itself.
  bool names_scheme(const std::string& scheme_name) const;
};

inline constexpr const char* kBudgets[] = {"bytes_per_token", "effective_bits", "decode_ms_per_token"};

struct GateFile {
  std::string path;  // as given
  std::vector<GateRule> rules;
};

// A list of rules. Throws ConfigError "<place>:<line>: <rule>.<key> = <value>: <what is allowed>"; a key that nobody
// knows, or that does not go with the kind of rule, is an error too.
GateFile parse_gates(const std::string& yaml, const std::string& place);
GateFile read_gates(const std::filesystem::path& path);

}  // namespace kvsweep
