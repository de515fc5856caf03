#include <fmt/format.h>

#include <string_view>

#include "harness/report/gate/gate_output.h"

namespace kvsweep {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

// Bytes of the valid UTF-8 sequence at the start of `text` that XML 1.0 allows; 0: there is none.
size_t xml_character(std::string_view text) {
  const auto byte = [&](size_t i) -> uint32_t { return static_cast<unsigned char>(text[i]); };
  const uint32_t first = byte(0);
  if (first < 0x80) return first >= 0x20 || first == '\t' || first == '\n' || first == '\r' ? 1 : 0;
  const size_t length = first >= 0xF0 && first <= 0xF4 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (length == 0 || first > 0xF4 || text.size() < length) return 0;
  uint32_t code = first & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code < least[length] || code > 0x10FFFF || surrogate || code == 0xFFFE || code == 0xFFFF ? 0 : length;
}

// For an attribute in double quotes, and for text.
std::string xml(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = xml_character(text);
    const std::string_view character = text.substr(0, std::max<size_t>(1, length));
    text.remove_prefix(character.size());
    if (length == 0)
      out += kReplacement;
    else if (character == "&")
      out += "&amp;";
    else if (character == "<")
      out += "&lt;";
    else if (character == ">")
      out += "&gt;";
    else if (character == "\"")
      out += "&quot;";
    else if (length == 1 && static_cast<unsigned char>(character[0]) < 0x20)
      out += fmt::format("&#{};", static_cast<int>(character[0]));
    else
      out += character;
  }
  return out;
}

std::string number(const std::optional<double>& value) {
  return value ? fmt::format("{:.6g}", *value) : "none";
}

std::string details(const GateVerdict& verdict) {
  std::string text = fmt::format("found {}: {}", name_of(verdict.found), verdict.reason);
  if (verdict.n > 0) text += fmt::format("\nmetric {}, n {}", verdict.metric, verdict.n);
  if (verdict.loss)
    text += fmt::format("\n{} {}, bounds {} to {}, margin {}", verdict.ratio ? "ratio" : "loss", number(verdict.loss),
                        number(verdict.low), number(verdict.high), number(verdict.margin));
  if (verdict.lost) text += fmt::format("\nitems lost {}, gained {}", *verdict.lost, *verdict.gained);
  if (verdict.p_pass)
    text += fmt::format("\np of PASS {}, of FAIL {}, adjusted {}", number(verdict.p_pass), number(verdict.p_fail),
                        number(verdict.p_fail_adjusted));
  if (verdict.detectable)
    text += fmt::format("\ndetectable {}, items needed {}", number(verdict.detectable),
                        verdict.items_needed > 0 ? fmt::to_string(verdict.items_needed) : "unknown");
  return text;
}

}  // namespace

std::string gate_to_junit(const GateReport& report) {
  std::string out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  out += fmt::format(
      "<testsuites>\n  <testsuite name=\"kvsweep gate {}\" tests=\"{}\" failures=\"{}\" errors=\"0\" "
      "skipped=\"{}\">\n    <properties>\n",
      xml(report.gates), report.verdicts.size(), report.count(Verdict::kFail), report.count(Verdict::kInconclusive));
  const auto property = [&](const char* name, const std::string& value) {
    out += fmt::format("      <property name=\"{}\" value=\"{}\"/>\n", name, xml(value));
  };
  property("run", report.run);
  if (!report.baseline.empty()) property("baseline", report.baseline);
  for (const std::string& allowed : report.allowed) property("allowed to differ", allowed);
  out += "    </properties>\n";
  for (const GateVerdict& verdict : report.verdicts) {
    const GateRule& rule = report.rules[verdict.rule];
    out += fmt::format("    <testcase classname=\"{}\" name=\"{}\">\n", xml(rule.name),
                       xml(verdict.label.empty() ? "no point" : verdict.label));
    if (verdict.verdict == Verdict::kFail)
      out += fmt::format("      <failure type=\"{}\" message=\"{}\">{}</failure>\n",
                         verdict.measured ? "measured" : "not measured", xml(verdict.reason), xml(details(verdict)));
    else if (verdict.verdict == Verdict::kInconclusive)
      out += fmt::format("      <skipped message=\"{}\"/>\n", xml("INCONCLUSIVE: " + verdict.reason));
    if (verdict.verdict != Verdict::kFail)
      out += fmt::format("      <system-out>{}</system-out>\n", xml(details(verdict)));
    out += "    </testcase>\n";
  }
  out += "  </testsuite>\n</testsuites>\n";
  return out;
}

}  // namespace kvsweep
