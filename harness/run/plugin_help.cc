#include "harness/run/plugin_help.h"

#include <fmt/format.h>

#include "harness/report/text_table.h"

namespace kvsweep {
namespace {

std::string default_text(const ParamDeclaration& parameter) {
  if (parameter.required) return "required";
  return parameter.default_value.empty() ? "\"\"" : parameter.default_value;
}

template <class Entry>
std::string help(const std::vector<Entry>& table) {
  std::string out;
  for (const Entry& entry : table) {
    Params params = Params::describe(entry.name);
    entry.make(params);
    TextTable parameters{{{"  parameter", true}, {"type", true}, {"default", true}, {"allowed", true}, {"", true}}, {}};
    for (const ParamDeclaration& p : params.declarations())
      parameters.rows.push_back({"  " + p.name, p.type, default_text(p), p.allowed, p.help});
    out += fmt::format("{}{}: {}\n", out.empty() ? "" : "\n", entry.name, entry.summary);
    out += parameters.rows.empty() ? "  no parameters\n" : to_terminal(parameters);
  }
  return out;
}

}  // namespace

std::string scheme_help(const std::vector<SchemeEntry>& table) {
  return help(table);
}

std::string task_help(const std::vector<TaskEntry>& table) {
  return help(table);
}

}  // namespace kvsweep
