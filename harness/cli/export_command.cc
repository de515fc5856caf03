#include "harness/cli/export_command.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iostream>

#include "harness/core/error.h"
#include "harness/core/log.h"
#include "harness/report/analysis/analysis_json.h"
#include "harness/report/export/figures.h"
#include "harness/report/export/lm_eval.h"
#include "harness/report/export/long_csv.h"
#include "harness/run/runner.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

void write_text(const std::string& out, const std::function<void(std::ostream&)>& write) {
  if (out.empty()) return write(std::cout);
  std::ofstream file(out, std::ios::binary | std::ios::trunc);
  if (!file) throw DataError(fmt::format("{}: cannot be written", out));
  write(file);
  if (!file.flush()) throw DataError(fmt::format("{}: cannot be written", out));
}

void export_lm_eval(const Results& results, const fs::path& out) {
  const LmEvalExport counts = write_lm_eval(results, out);
  for (const std::string& gap : counts.gaps) log(fmt::format("without results: {}", gap));
  fmt::print("{}: {} configurations, {} tasks, {} samples, {} points without results\n", out.string(), counts.folders,
             counts.tasks, counts.samples, counts.gaps.size());
}

}  // namespace

void add_export(CLI::App& app, std::function<int()>& action) {
  static std::string directory, format, out;
  CLI::App* command = app.add_subcommand("export", "Write results in a form that other tools read");
  command->add_option("directory", directory, "A results directory, or a baseline")->required();
  command
      ->add_option(
          "--format", format,
          "analysis (JSON of all comparisons), lm-eval (layout of lm-evaluation-harness) or long (CSV, a row a "
          "sample and metric)")
      ->required()
      ->check(CLI::IsMember({"analysis", "lm-eval", "long"}));
  command->add_option("--out", out, "File, of lm-eval a folder (default: standard output; <directory>/lm-eval)");
  command->callback([&action] {
    action = [] {
      if (format == "lm-eval")
        export_lm_eval(read_results(directory), out.empty() ? fs::path(directory) / "lm-eval" : fs::path(out));
      else if (format == "long")
        write_text(out, [](std::ostream& to) { write_long_csv(read_results(directory), to); });
      else
        write_text(out, [](std::ostream& to) {
          to << analysis_json(analyse(read_results(directory)), {.kl_buckets = kFigureBuckets}) << '\n';
        });
      return kExitOk;
    };
  });
}

}  // namespace kvsweep
