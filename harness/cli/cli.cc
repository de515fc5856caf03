#include "harness/cli/cli.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <thread>

#include "harness/cli/attention_bench.h"
#include "harness/cli/bench_command.h"
#include "harness/cli/calibrate_command.h"
#include "harness/cli/compare_command.h"
#include "harness/cli/data_command.h"
#include "harness/cli/export_command.h"
#include "harness/cli/figures_command.h"
#include "harness/cli/gate_command.h"
#include "harness/cli/list_command.h"
#include "harness/cli/merge_command.h"
#include "harness/cli/model_command.h"
#include "harness/cli/report_command.h"
#include "harness/core/error.h"
#include "harness/core/log.h"
#include "harness/run/provenance.h"
#include "harness/run/runner.h"

namespace kvsweep {
namespace {

constexpr int kExitUnexpected = 1;

std::string command_line(int argc, char** argv) {
  return join(std::vector<std::string>(argv, argv + argc), " ");
}

void add_run(CLI::App& app, RunOptions& options, std::function<int()>& action) {
  CLI::App* run = app.add_subcommand("run", "Run a sweep, or go on with one that was stopped");
  static std::string sweep, out, data, only, shard, gate, baseline;
  static int64_t limit = 0;
  static uint64_t memory = 0;
  run->add_option("sweep", sweep, "The sweep's YAML file")->required();
  run->add_option("--out", out, "Results directory (default: results/<sweep name>)");
  CLI::Option* limited =
      run->add_option("--limit", limit, "At most this many samples a point")->check(CLI::Range(1, 1000000000));
  run->add_option("--only", only, "Run only points whose label matches this glob, e.g. '*| uniform k_bits=2*'");
  run->add_option("--data", data, "Where data sets lie, before $KVSWEEP_DATA, ../shared/data and the user's cache");
  run->add_option("--shard", shard,
                  "i/n: only the i-th of n shares of the prompts, beside other processes in one directory; "
                  "`kvsweep merge` makes the records");
  CLI::Option* gated =
      run->add_option("--gate", gate, "Rules as of `kvsweep gate`: stop when every verdict is certain, then judge")
          ->needs("--out")
          ->excludes("--shard");
  run->add_option("--baseline", baseline, "What rules of --gate against a baseline compare with")->needs(gated);
  run->add_flag("--dry-run", options.dry_run, "Print the plan and stop");
  CLI::Option* memory_given =
      run->add_option("--memory", memory,
                      "Memory to keep within, weights included, e.g. 2GiB (default: most of what "
                      "is free)")
          ->transform(CLI::AsSizeValue(false));
  run->add_flag("!--no-greedy-reuse", options.greedy_reuse,
                "Decode every token instead of checking full precision's in chunks; the results are the same");
  run->add_flag(
      "--alone", options.alone,
      "Share nothing: every configuration of every sample with a prefill, a continuation of full precision to "
      "compare with and a batch of its own, as a run of that configuration alone would have it; for timing");
  run->callback([&, limited, memory_given] {
    if (!out.empty()) options.out = out;
    if (!data.empty()) options.data = data;
    if (!only.empty()) options.only = only;
    if (limited->count() > 0) options.limit = limit;
    if (memory_given->count() > 0) options.memory = static_cast<int64_t>(memory);
    action = [&] {
      if (!shard.empty()) options.shard = Shard::parse(shard);
      if (!gate.empty()) return run_gated(sweep, options, gate, baseline);
      return run_sweep(sweep, options);
    };
  });
}

}  // namespace

int run_cli(int argc, char** argv) {
  CLI::App app("Measures what KV-cache compression schemes cost and buy", "kvsweep");
  app.require_subcommand(1);
  app.set_version_flag("--version", program_version());
  int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  app.add_option("--threads", threads, "CPU threads (default: all)")->check(CLI::Range(1, 1024));
  RunOptions options;
  options.command = command_line(argc, argv);
  std::function<int()> action;
  add_run(app, options, action);
  add_calibrate(app, action);
  add_merge(app, action);
  add_report(app, action);
  add_compare(app, action);
  add_export(app, action);
  add_figures(app, action);
  add_gate(app, action);
  add_bench(app, action);
  add_attention_bench(app, action);
  add_list(app, action);
  add_data(app, action);
  add_model(app, action);
  app.fallthrough();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitBadInput;
  }
  at::set_num_threads(threads);
  try {
    return action();
  } catch (const ConfigError& error) {
    log(fmt::format("error: {}", error.what()));
    return kExitBadInput;
  } catch (const DataError& error) {
    log(fmt::format("error: {}", error.what()));
    return kExitBadInput;
  } catch (const c10::Error& error) {
    log(fmt::format("unexpected error: {}", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    log(fmt::format("unexpected error: {}", error.what()));
  }
  return kExitUnexpected;
}

}  // namespace kvsweep
