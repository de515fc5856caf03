#include "harness/cli/compare_command.h"

#include <fmt/format.h>

#include "harness/core/error.h"
#include "harness/report/compare/run_comparison.h"
#include "harness/run/runner.h"

namespace kvsweep {
namespace {

using Outcome = RunComparison::Outcome;

bool fails(const RunComparison& comparison, const std::string& on) {
  const int64_t lost = comparison.count(Outcome::kLoss);
  const int64_t missing =
      comparison.count(Outcome::kNotCompared) + comparison.count(Outcome::kOnlyA) + comparison.count(Outcome::kOnlyB);
  if (on == "loss") return lost > 0;
  if (on == "gap") return missing > 0;
  return comparison.count(Outcome::kIdentical) + missing < std::ssize(comparison.pairs);
}

}  // namespace

void add_compare(CLI::App& app, std::function<int()>& action) {
  static std::string a, b, format = "terminal";
  static std::vector<std::string> allow, fail_on;
  CLI::App* compare = app.add_subcommand("compare", "Compare two results directories, or baselines, point by point");
  compare->add_option("a", a, "Results directory or baseline that is compared with")->required();
  compare->add_option("b", b, "Results directory or baseline that is compared")->required();
  compare->add_option("--format", format, "terminal or markdown")->check(CLI::IsMember({"terminal", "markdown"}));
  compare->add_option("--allow", allow, "A field in which compared points may differ, e.g. view");
  compare
      ->add_option("--fail-on", fail_on,
                   "Exit 1 when: loss (a significant one in B), change (any item differs), gap (a point is missing or "
                   "not compared)")
      ->check(CLI::IsMember({"loss", "change", "gap"}));
  compare->callback([&action] {
    action = [] {
      const Allowed allowed = allowed_fields(allow);
      const Results first = read_results(a), second = read_results(b);
      const RunComparison comparison = compare_runs(first, second, allowed);
      fmt::print("{}", render(comparison, first, second, format == "markdown"));
      for (const std::string& on : fail_on)
        if (fails(comparison, on)) return kExitFailedPoints;
      return kExitOk;
    };
  });
}

}  // namespace kvsweep
