#include "harness/cli/figures_command.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "harness/core/error.h"
#include "harness/report/analysis/analysis_json.h"
#include "harness/report/export/figures.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

struct FiguresArguments {
  std::string directory, set = "paper", out, venue = "neurips", format = "pdf,png";
};

FigureCommand find_command() {
  const char* given = std::getenv("KVSWEEP_SOURCE");
  if (given != nullptr && *given != '\0') return figure_command(given, "$KVSWEEP_SOURCE");
  return figure_command(KVSWEEP_SOURCE_DIR, "the folder that kvsweep was built from");
}

int draw(const FiguresArguments& arguments) {
  const FigureCommand command = find_command();
  const fs::path out = arguments.out.empty() ? fs::path(arguments.directory) / "figures" : fs::path(arguments.out);
  const fs::path analysis = out / "analysis.json";
  const std::string text = analysis_json(analyse(read_results(arguments.directory)), {.kl_buckets = kFigureBuckets});
  std::error_code error;
  fs::create_directories(out, error);
  std::ofstream file(analysis, std::ios::binary | std::ios::trunc);
  if (!(file << text << '\n').flush()) throw DataError(fmt::format("{}: cannot be written", analysis.string()));
  file.close();
  return run_and_wait({command.python.string(), command.script.string(), analysis.string(), "--set", arguments.set,
                       "--out", out.string(), "--venue", arguments.venue, "--format", arguments.format});
}

}  // namespace

void add_figures(CLI::App& app, std::function<int()>& action) {
  static FiguresArguments arguments;
  CLI::App* figures = app.add_subcommand("figures", "Draw the figures of a paper from a results directory");
  figures->add_option("directory", arguments.directory, "A results directory, or a baseline")->required();
  figures->add_option("--set", arguments.set, "Which figures: paper")->check(CLI::IsMember({"paper"}));
  figures->add_option("--out", arguments.out, "Folder for the figures (default: <directory>/figures)");
  figures->add_option("--venue", arguments.venue, "Whose sizes: neurips, acl, ieee or slides")
      ->check(CLI::IsMember({"neurips", "acl", "ieee", "slides"}));
  figures->add_option("--format", arguments.format, "Of pdf, png and svg, with commas");
  figures->callback([&action] { action = [] { return draw(arguments); }; });
}

}  // namespace kvsweep
