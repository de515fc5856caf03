#include "harness/cli/gate_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>

#include "harness/core/error.h"
#include "harness/report/append_file.h"
#include "harness/report/gate/baseline_update.h"
#include "harness/report/gate/gate.h"
#include "harness/report/gate/gate_output.h"
#include "harness/report/gate/gate_watch.h"
#include "harness/run/runner.h"

namespace kvsweep {
namespace {

struct GateArguments {
  std::vector<std::string> paths, allow;
  std::string baseline, junit, markdown, update;
  bool github = false, sequential = false;
};

int update_baseline(const GateArguments& given) {
  if (given.paths.size() != 1)
    throw ConfigError("kvsweep gate --update-baseline FILE RUN takes one results directory and no rules");
  const BaselineUpdate update(given.update, given.paths.front());
  fmt::print("{}", update.table());
  update.write();
  fmt::print("{}: written\n", given.update);
  return kExitOk;
}

int gate(const GateArguments& given) {
  if (!given.update.empty()) return update_baseline(given);
  if (given.paths.size() != 2) throw ConfigError("kvsweep gate takes a file of rules and a results directory");
  const Allowed allowed = allowed_fields(given.allow);
  const GateFile file = read_gates(given.paths[0]);
  std::optional<Results> baseline;
  if (!given.baseline.empty()) baseline = read_results(given.baseline);
  if (given.sequential) {
    const auto verdicts = watch_directory(file, given.paths[1], baseline ? &*baseline : nullptr);
    fmt::print("{}", watch_to_terminal(file, verdicts));
    return exit_status(verdicts);
  }
  const GateReport report = run_gate(file, read_results(given.paths[1]), baseline ? &*baseline : nullptr, allowed);
  fmt::print("{}", gate_to_terminal(report));
  if (!given.junit.empty()) replace_file(given.junit, gate_to_junit(report));
  if (!given.markdown.empty()) replace_file(given.markdown, gate_to_markdown(report));
  if (given.github) {
    fmt::print("{}", gate_to_github(report));
    if (const char* summary = std::getenv("GITHUB_STEP_SUMMARY"); summary != nullptr && *summary != 0)
      std::ofstream(summary, std::ios::app) << gate_to_markdown(report);
  }
  return report.exit_status();
}

// Looking costs at most a twentieth of the run's time.
class GateRunWatch final : public RunWatch {
 public:
  GateRunWatch(const GateFile& file, const Results* baseline) : file_(file), baseline_(baseline) {}

  void begin(const std::vector<ShardGroup>& groups) override { watch_.emplace(file_, groups, baseline_); }
  bool decided(const std::vector<SampleRecord>& samples) override {
    for (const SampleRecord& sample : samples) watch_->add(sample);
    const auto now = Clock::now();
    if (now < next_) return false;
    verdicts_ = watch_->verdicts();
    next_ = Clock::now() + 20 * (Clock::now() - now);
    decided_ = std::all_of(verdicts_.begin(), verdicts_.end(), [](const auto& one) { return one.verdict.has_value(); });
    return decided_;
  }
  bool decided() const { return decided_; }
  const std::vector<WatchedVerdict>& verdicts() const { return verdicts_; }

 private:
  using Clock = std::chrono::steady_clock;

  const GateFile& file_;
  const Results* baseline_;
  std::optional<GateWatch> watch_;
  std::vector<WatchedVerdict> verdicts_;
  Clock::time_point next_ = Clock::now();
  bool decided_ = false;
};

}  // namespace

int run_gated(const std::string& sweep, RunOptions options, const std::string& gates,
              const std::string& baseline_path) {
  const GateFile file = read_gates(gates);
  std::optional<Results> baseline;
  if (!baseline_path.empty()) baseline = read_results(baseline_path);
  require_baseline(file, baseline ? &*baseline : nullptr);
  GateRunWatch watch(file, baseline ? &*baseline : nullptr);
  options.watch = &watch;
  const int status = run_sweep(sweep, options);
  if (options.dry_run || status == kExitInterrupted) return status;
  if (watch.decided()) {
    fmt::print("{}", watch_to_terminal(file, watch.verdicts()));
    return exit_status(watch.verdicts());
  }
  const GateReport report = run_gate(file, read_results(options.out.value()), baseline ? &*baseline : nullptr);
  fmt::print("{}", gate_to_terminal(report));
  return report.exit_status();
}

void add_gate(CLI::App& app, std::function<int()>& action) {
  static GateArguments given;
  CLI::App* command = app.add_subcommand(
      "gate", "Judge a results directory by rules: exit status 0 when all pass, 1: a FAIL, 3: no FAIL, but no verdict");
  command->add_option("paths", given.paths, "GATES.yaml and a results directory; to update a baseline the directory")
      ->required();
  command->add_option("--baseline", given.baseline,
                      "What rules against a baseline compare with: a file or a directory");
  command->add_option("--junit", given.junit, "Write the verdicts as JUnit XML");
  command->add_option("--markdown", given.markdown, "Write the verdicts as Markdown");
  command->add_flag("--github", given.github,
                    "Print annotations for GitHub Actions and append the Markdown to $GITHUB_STEP_SUMMARY");
  command->add_option("--allow", given.allow, "A field in which points may differ and still be compared")
      ->type_name("FIELD");
  command->add_flag("--sequential", given.sequential,
                    "Of a run with --shard that has not ended: which verdicts are certain whatever is still to come");
  command->add_option("--update-baseline", given.update,
                      "Show what changes, then write the run's points as the new baseline FILE");
  command->callback([&action] { action = [] { return gate(given); }; });
}

}  // namespace kvsweep
