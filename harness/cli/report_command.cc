#include "harness/cli/report_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <map>

#include "harness/core/error.h"
#include "harness/report/html/page.h"
#include "harness/report/tables/tables.h"
#include "harness/run/runner.h"

namespace kvsweep {
namespace {

const std::map<std::string, TableKind> kKinds = {{"main", TableKind::kMain},     {"pivot", TableKind::kPivot},
                                                 {"loss", TableKind::kLoss},     {"recommend", TableKind::kRecommend},
                                                 {"pareto", TableKind::kPareto}, {"kv", TableKind::kKeyValue},
                                                 {"grid", TableKind::kGrid}};
const std::map<std::string, TableFormat> kFormats = {{"terminal", TableFormat::kTerminal},
                                                     {"markdown", TableFormat::kMarkdown},
                                                     {"csv", TableFormat::kCsv},
                                                     {"latex", TableFormat::kLatex}};
const std::map<std::string, PivotCell> kCells = {
    {"loss", PivotCell::kLoss}, {"score", PivotCell::kScore}, {"kl", PivotCell::kKl}, {"bits", PivotCell::kBits}};

template <typename Value>
auto one_of(const std::map<std::string, Value>& values) {
  return [&values](const std::string& given) {
    if (values.contains(given)) return std::string();
    std::vector<std::string> names;
    for (const auto& [name, unused] : values) names.push_back(name);
    return "'" + given + "' is not one of " + join(names);
  };
}

}  // namespace

void add_report(CLI::App& app, std::function<int()>& action) {
  static std::string directory, table = "main", format = "terminal", cell = "loss", only, html;
  static std::vector<std::string> allow;
  static PivotRequest pivot;
  CLI::App* report = app.add_subcommand("report", "Print the tables of a results directory");
  report->add_option("directory", directory, "A results directory, or a baseline")->required();
  report->add_option("--table", table, "main, pivot, loss, recommend, pareto, kv or grid (default: main)")
      ->check(one_of(kKinds));
  report->add_option("--format", format, "terminal, markdown, csv or latex")->check(one_of(kFormats));
  report->add_option("--only", only, "Show only points whose label matches this glob, e.g. '*| uniform k_bits=2*'");
  report->add_option("--allow", allow, "A field in which compared points may differ, e.g. torch; can be repeated");
  report->add_option("--rows", pivot.rows, "Of the pivot: " + join({std::begin(kPivotKeys), std::end(kPivotKeys)}))
      ->delimiter(',');
  report->add_option("--columns", pivot.columns, "Of the pivot, as --rows")->delimiter(',');
  report->add_option("--cell", cell, "Of the pivot: loss, score, kl or bits")->check(one_of(kCells));
  report->add_option("--html", html, "Write everything as one HTML page to this file instead");
  report->callback([&] {
    action = [] {
      const Analysis analysis = analyse(read_results(directory), {}, allowed_fields(allow));
      if (!html.empty()) {
        write_page(html, analysis);
        return kExitOk;
      }
      TableRequest request;
      request.kind = kKinds.at(table);
      request.only = only;
      request.pivot = pivot;
      request.pivot.cell = kCells.at(cell);
      request.render = {kFormats.at(format), colour_wanted(STDOUT_FILENO)};
      fmt::print("{}", render_tables(analysis, request));
      return kExitOk;
    };
  });
}

}  // namespace kvsweep
