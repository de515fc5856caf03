#include "harness/cli/report_command.h"

#include <fmt/format.h>

#include <map>

#include "harness/report/html/page.h"
#include "harness/report/store.h"
#include "harness/report/table.h"
#include "harness/run/runner.h"

namespace kvsweep {

void add_report(CLI::App& app, std::function<int()>& action) {
  static std::string directory, format = "terminal", html;
  static const std::map<std::string, TableFormat> formats = {
      {"terminal", TableFormat::kTerminal}, {"markdown", TableFormat::kMarkdown}, {"csv", TableFormat::kCsv}};
  CLI::App* report = app.add_subcommand("report", "Print the tables of a results directory");
  report->add_option("directory", directory, "A results directory")->required();
  report->add_option("--format", format, "terminal, markdown or csv")->check([](const std::string& given) {
    return formats.contains(given) ? std::string() : "'" + given + "' is not one of terminal, markdown, csv";
  });
  report->add_option("--html", html, "Write everything as one HTML page to this file instead");
  report->callback([&] {
    action = [] {
      if (!html.empty()) {
        write_page(html, analyse(read_results(directory)));
        return kExitOk;
      }
      fmt::print("{}", render_tables(read_records(directory), formats.at(format)));
      return kExitOk;
    };
  });
}

}  // namespace kvsweep
