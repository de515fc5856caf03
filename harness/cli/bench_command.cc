#include "harness/cli/bench_command.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include "harness/core/error.h"
#include "harness/report/text_table.h"
#include "harness/run/interrupt.h"
#include "harness/run/progress.h"
#include "harness/run/provenance.h"
#include "harness/run/runner.h"
#include "harness/run/scheme_bench.h"
#include "harness/run/sweep.h"
#include "models/load_model.h"

namespace kvsweep {
namespace {

struct BenchArguments {
  std::string sweep;
  std::vector<int64_t> tokens = {4096};
  int repeats = 3;
};

std::string parameters(const Point& point) {
  std::string text;
  for (const auto& [key, value] : point.scheme_params)
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", key, value);
  return text;
}

void print(const BenchResult& result, const std::vector<SweepPoint>& points) {
  TextTable table{{{"scheme", true},
                   {"encode ms"},
                   {"of prefill %"},
                   {"ns/value"},
                   {"decode ms"},
                   {"ns/value"},
                   {"eff. bits"},
                   {"shared MiB"},
                   {"parameters", true}},
                  {}};
  const auto values = static_cast<double>(result.values);
  for (size_t i = 0; i < points.size(); ++i) {
    const SchemeCost& cost = result.costs[i];
    table.rows.push_back({points[i].point.scheme, fmt::format("{:.2f}", cost.encode_ms),
                          fmt::format("{:.1f}", 100 * cost.encode_ms / result.prefill_ms),
                          fmt::format("{:.2f}", 1e6 * cost.encode_ms / values), fmt::format("{:.2f}", cost.decode_ms),
                          fmt::format("{:.2f}", 1e6 * cost.decode_ms / values),
                          fmt::format("{:.3f}", cost.effective_bits),
                          fmt::format("{:.2f}", cost.shared_bytes / (1 << 20)), parameters(points[i].point)});
  }
  fmt::print("{} tokens, prefill {:.1f} ms\n{}\n", result.tokens, result.prefill_ms, to_terminal(table));
}

int bench(const BenchArguments& arguments) {
  const c10::InferenceMode no_autograd;
  watch_interrupts();
  const SweepTables tables{scheme_table(), task_table(),
                           [](const std::string& argument) { return resolve_model(argument).name; }};
  const Sweep sweep = load_sweep(arguments.sweep, tables);
  std::string before;
  for (const SweepGroup& group : sweep.groups) {
    if (group.model == before) continue;  // models vary slowest; every group of one has the same schemes
    before = group.model;
    const LoadedModel model = load_model(resolve_model(group.model));
    std::vector<const Scheme*> schemes;
    for (const SweepPoint& point : group.points) schemes.push_back(point.scheme.get());
    fmt::print("{}, {}, {} threads, kvsweep {}, median of {}\n\n", model.spec.name, model.llama->options().device.str(),
               at::get_num_threads(), program_version(), arguments.repeats);
    for (const int64_t tokens : arguments.tokens)
      print(bench_schemes(*model.llama, schemes, tokens, arguments.repeats), group.points);
  }
  return kExitOk;
}

}  // namespace

void add_bench(CLI::App& app, std::function<int()>& action) {
  static BenchArguments arguments;
  CLI::App* command = app.add_subcommand("bench", "Time and bytes of each scheme of a sweep, alone");
  command->add_option("sweep", arguments.sweep, "A sweep's YAML file: its models and schemes are used")->required();
  command->add_option("--tokens", arguments.tokens, "Lengths of the context (default: 4096)")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 24));
  command->add_option("--repeats", arguments.repeats, "Turns to take the median of (default: 3)")
      ->check(CLI::Range(1, 1000));
  command->callback([&] {
    action = [] {
      try {
        return bench(arguments);
      } catch (const Interrupted&) {
        return kExitInterrupted;
      }
    };
  });
}

}  // namespace kvsweep
