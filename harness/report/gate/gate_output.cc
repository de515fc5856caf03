#include "harness/report/gate/gate_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "harness/report/text_table.h"

namespace kvsweep {
namespace {

std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  return text;
}

// FAIL first, then INCONCLUSIVE; within each as the file has them.
std::vector<const GateVerdict*> by_weight(const GateReport& report) {
  std::vector<const GateVerdict*> verdicts;
  for (const GateVerdict& verdict : report.verdicts) verdicts.push_back(&verdict);
  const auto weight = [](Verdict verdict) {
    return verdict == Verdict::kFail ? 0 : verdict == Verdict::kInconclusive ? 1 : 2;
  };
  std::stable_sort(verdicts.begin(), verdicts.end(),
                   [&](const GateVerdict* a, const GateVerdict* b) { return weight(a->verdict) < weight(b->verdict); });
  return verdicts;
}

std::string p_text(const std::optional<double>& p) {
  if (!p) return "";
  if (*p < 1e-4) return "<0.0001";
  return fmt::format("{:.4f}", *p);
}

class Shown {
 public:
  Shown(const GateReport& report, const GateVerdict& verdict)
      : verdict_(verdict), budget_(report.rules[verdict.rule].kind == GateRule::Kind::kBudget) {}

  std::string loss() const {
    if (!verdict_.loss) return "";
    std::string text = value(*verdict_.loss, true);
    if (verdict_.low) text += fmt::format(" [{}, {}]", value(*verdict_.low, true), value(*verdict_.high, true));
    return text;
  }
  std::string margin() const { return verdict_.margin ? value(*verdict_.margin, false) : ""; }
  std::string detectable() const { return verdict_.detectable ? value(*verdict_.detectable, false) : ""; }
  std::string flips() const { return verdict_.lost ? fmt::format("{}/{}", *verdict_.lost, *verdict_.gained) : ""; }
  std::string items() const { return verdict_.n > 0 ? fmt::to_string(verdict_.n) : ""; }
  std::string needed() const {
    return verdict_.found == Verdict::kInconclusive && verdict_.items_needed > 0 ? fmt::to_string(verdict_.items_needed)
                                                                                 : "";
  }

 private:
  std::string value(double value, bool sign) const {
    if (!std::isfinite(value)) return "-";
    if (budget_) return sign ? fmt::format("{:+.2f} %", 100 * value) : fmt::format("{:g} %", 100 * value);
    if (verdict_.ratio) return fmt::format("{:.5g}", value);
    return sign ? fmt::format("{:+.4f}", value) : fmt::format("{:.4g}", value);
  }
  const GateVerdict& verdict_;
  bool budget_;
};

// The one value that all verdicts have in common; else "" and each row says its own.
std::string common(const GateReport& report, const std::function<std::string(const GateVerdict&)>& of) {
  std::set<std::string> values;
  for (const GateVerdict& verdict : report.verdicts)
    if (!verdict.model.empty()) values.insert(of(verdict));
  return values.size() == 1 ? *values.begin() : "";
}

std::string model_of(const GateVerdict& verdict) {
  return "model " + verdict.model;
}
std::string view_of(const GateVerdict& verdict) {
  return "view " + verdict.view;
}
std::string seed_of(const GateVerdict& verdict) {
  return fmt::format("seed {}", verdict.seed);
}

TextTable table_of(const GateReport& report) {
  TextTable table;
  table.columns = {{"verdict", true},       {"rule", true},    {"task", true},    {"scheme", true},
                   {"metric", true},        {"n", false},      {"loss", true},    {"margin", false},
                   {"lost/gained", false},  {"p pass", false}, {"p fail", false}, {"detectable", false},
                   {"items needed", false}, {"why", true}};
  for (const GateVerdict* verdict : by_weight(report)) {
    const Shown shown(report, *verdict);
    std::string task = verdict->task;
    for (const auto& of : {model_of, view_of, seed_of})
      if (!verdict->model.empty() && common(report, of).empty()) task += ", " + of(*verdict);
    table.rows.push_back({name_of(verdict->verdict), report.rules[verdict->rule].name, task, verdict->configuration,
                          verdict->metric, shown.items(), shown.loss(), shown.margin(), shown.flips(),
                          p_text(verdict->p_pass),
                          p_text(verdict->p_fail_adjusted ? verdict->p_fail_adjusted : verdict->p_fail),
                          shown.detectable(), shown.needed(), verdict->reason});
  }
  for (auto& row : table.rows)
    for (std::string& cell : row) cell = one_line(cell);
  return table;
}

std::string heading(const GateReport& report) {
  const int64_t fails = report.count(Verdict::kFail), open = report.count(Verdict::kInconclusive);
  return one_line(fmt::format("gate {}: {} ({} PASS, {} FAIL, {} INCONCLUSIVE)", report.gates,
                              fails > 0  ? "FAIL"
                              : open > 0 ? "INCONCLUSIVE"
                                         : "PASS",
                              report.count(Verdict::kPass), fails, open));
}

std::vector<std::string> facts(const GateReport& report) {
  std::vector<std::string> lines = {"run " + report.run};
  if (!report.baseline.empty()) lines.front() += " | baseline " + report.baseline;
  for (const auto& of : {model_of, view_of, seed_of})
    if (const std::string text = common(report, of); !text.empty()) lines.front() += " | " + text;
  for (const std::string& allowed : report.allowed) lines.push_back("allowed to differ: " + allowed);
  for (std::string& line : lines) line = one_line(line);
  return lines;
}

std::vector<std::string> legend(const GateReport& report) {
  std::set<double> confidences;
  for (const GateVerdict& verdict : report.verdicts)
    if (verdict.low) confidences.insert(100 * report.rules[verdict.rule].confidence);
  if (confidences.empty()) return {};
  return {
      fmt::format(
          "loss: of what it is held against less own, in the metric's units (of perplexity the ratio), with both "
          "one-sided bounds at {:g} %; detectable: the smallest margin that a scheme without loss passes with "
          "probability 0.8 on these items",
          fmt::join(confidences, " or ")),
      "PASS: the upper bound is below the margin; not adjusted, since a file passes only when all of its rules do",
      fmt::format("FAIL: the lower bound is above the margin; p fail is adjusted by Holm's method over the {} margin "
                  "verdicts of this file, controls apart",
                  report.family)};
}

std::string html_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '*' || c == '_' || c == '`' || c == '[' || c == '\\' || c == '~')
      out += std::string("\\") + c;
    else
      out += c;
  }
  return out;
}

std::string escaped(const std::string& text, bool property) {
  std::string out;
  for (const char c : text) {
    if (c == '%')
      out += "%25";
    else if (c == '\r')
      out += "%0D";
    else if (c == '\n')
      out += "%0A";
    else if (property && c == ':')
      out += "%3A";
    else if (property && c == ',')
      out += "%2C";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::string gate_to_terminal(const GateReport& report) {
  std::string out = heading(report) + "\n";
  for (const std::string& line : facts(report)) out += line + "\n";
  out += to_terminal(table_of(report));
  for (const std::string& line : legend(report)) out += line + "\n";
  return out;
}

std::string gate_to_markdown(const GateReport& report) {
  std::string out = "### " + html_escaped(heading(report)) + "\n\n";
  for (const std::string& line : facts(report)) out += html_escaped(line) + "\n\n";
  TextTable table = table_of(report);
  for (auto& row : table.rows)
    for (std::string& cell : row) cell = html_escaped(cell);
  out += to_markdown(table);
  for (const std::string& line : legend(report)) out += "\n" + html_escaped(line) + "\n";
  return out;
}

std::string gate_to_github(const GateReport& report) {
  std::string out;
  for (const GateVerdict* verdict : by_weight(report)) {
    if (verdict->verdict == Verdict::kPass) continue;
    const GateRule& rule = report.rules[verdict->rule];
    const Shown shown(report, *verdict);
    std::string text = fmt::format("{}: {}", verdict->label.empty() ? rule.name : verdict->label, verdict->reason);
    if (verdict->loss)
      text += fmt::format("; {} loss {}, margin {}, n {}", verdict->metric, shown.loss(), shown.margin(), verdict->n);
    out +=
        fmt::format("::{} file={},line={},title={}::{}\n", verdict->verdict == Verdict::kFail ? "error" : "warning",
                    escaped(report.gates, true), rule.line,
                    escaped(fmt::format("{}: {}", name_of(verdict->verdict), rule.name), true), escaped(text, false));
  }
  return out;
}

}  // namespace kvsweep
