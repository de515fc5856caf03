// contract: what a gate prints survives hostile names: XML is well-formed, Markdown shows HTML instead of rendering it,
// no name is a line or a command of its own.
#include "harness/report/gate/gate_output.h"

#include <boost/property_tree/xml_parser.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdio>
#include <sstream>

#include "tests/report/results_world.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using testing::read_text;

namespace {

const std::string kHostile =
    "a<b>&\"'|`*]]>\n::error::no\r\n\x01\x1f\xff\xed\xa0\x80\xef\xbf\xbf</testcase>, 100 %: \xe2\x82\xac";

GateReport hostile_report() {
  GateReport report;
  report.gates = "gates/" + kHostile;
  report.run = kHostile;
  report.baseline = kHostile;
  report.allowed = {kHostile};
  GateRule rule;
  rule.name = kHostile;
  rule.line = 3;
  report.rules = {rule};
  for (const Verdict found : {Verdict::kPass, Verdict::kInconclusive, Verdict::kFail}) {
    GateVerdict verdict;
    verdict.model = verdict.task = verdict.configuration = verdict.view = verdict.label = verdict.metric = kHostile;
    verdict.reason = kHostile;
    verdict.found = verdict.verdict = found;
    verdict.n = 40;
    verdict.loss = 0.25;
    report.verdicts.push_back(verdict);
  }
  return report;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// By Python's expat, which refuses what XML 1.0 forbids.
int parsed_by_expat(const std::string& xml) {
  const testing::TemporaryDirectory directory;
  testing::write_text(directory.path() / "a.xml", xml);
  const std::string command = "python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' " +
                              (directory.path() / "a.xml").string() + " 2>/dev/null";
  return std::system(command.c_str());  // NOLINT
}

}  // namespace

TEST_CASE("JUnit XML is well-formed whatever names hold") {
  const std::string xml = gate_to_junit(hostile_report());
  CHECK(parsed_by_expat(xml) == 0);
  CHECK(parsed_by_expat(xml.substr(0, xml.size() - 5)) != 0);  // the check itself
  boost::property_tree::ptree tree;
  std::istringstream stream(xml);
  boost::property_tree::read_xml(stream, tree);
  const auto& suite = tree.get_child("testsuites.testsuite");
  CHECK(suite.get<int>("<xmlattr>.tests") == 3);
  CHECK(suite.get<int>("<xmlattr>.failures") == 1);
  CHECK(suite.get<int>("<xmlattr>.skipped") == 1);
  CHECK(suite.count("testcase") == 3);
  int skipped = 0, failures = 0;
  for (const auto& [name, node] : suite) {
    if (name != "testcase") continue;
    skipped += static_cast<int>(node.count("skipped"));
    failures += static_cast<int>(node.count("failure"));
  }
  CHECK(skipped == 1);
  CHECK(failures == 1);
  CHECK_THAT(xml, ContainsSubstring("\xe2\x82\xac"));
  CHECK_THAT(xml, ContainsSubstring("a&lt;b&gt;&amp;&quot;"));
}

TEST_CASE("no name is a line of its own on a terminal or in Markdown") {
  const GateReport report = hostile_report();
  for (const std::string& text : {gate_to_terminal(report), gate_to_markdown(report)})
    for (const std::string& line : lines_of(text)) {
      INFO(line);
      CHECK_FALSE(line.starts_with("::"));
      CHECK(line.find('\r') == std::string::npos);
      CHECK(line.find('\x01') == std::string::npos);
    }
  CHECK(gate_to_markdown(report).find("<b>") == std::string::npos);
  CHECK_THAT(gate_to_markdown(report), ContainsSubstring("a&lt;b&gt;&amp;"));
}

TEST_CASE("annotations are one line each, FAIL as error and INCONCLUSIVE as warning") {
  const std::vector<std::string> lines = lines_of(gate_to_github(hostile_report()));
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].starts_with("::error file=gates/a<b>&"));
  CHECK(lines[1].starts_with("::warning file="));
  CHECK_THAT(lines[0], ContainsSubstring(",line=3,title=FAIL%3A a<b>"));
  CHECK_THAT(lines[0], ContainsSubstring("%0A::error%3A%3Ano") || ContainsSubstring("%0A%3A%3Aerror%3A%3Ano"));
  CHECK_THAT(lines[0], ContainsSubstring("100 %25: "));
  GateReport passed = hostile_report();
  for (GateVerdict& verdict : passed.verdicts) verdict.verdict = Verdict::kPass;
  CHECK(gate_to_github(passed).empty());
}

TEST_CASE("a table has what a verdict rests on, FAIL first, and says what cannot be seen") {
  const auto half = [](int64_t i) { return i < 20 ? 0.0 : 1.0; };
  const testing::ResultsWorld world(
      {{.points = {testing::full_precision(), {2, 2, "uniform", half, ""}, {4, 4}, {8, 8, "uniform", [](int64_t i) {
                                                                                      return i < 3 ? 0.0 : 1.0;
                                                                                    }}}}});
  const GateReport report =
      run_gate(parse_gates("- {name: small loss, max_drop: 0.1}", "g.yaml"), read_results(world.path()), nullptr);
  const std::string text = gate_to_terminal(report);
  const std::vector<std::string> lines = lines_of(text);
  REQUIRE(lines.size() == 9);  // heading, facts, titles, three verdicts, three of legend
  CHECK(lines[0] == "gate g.yaml: FAIL (1 PASS, 1 FAIL, 1 INCONCLUSIVE)");
  CHECK_THAT(lines[1], ContainsSubstring("model smollm2-135m | view exact | seed 17"));
  CHECK(
      lines[3].starts_with("FAIL          small loss  needle  uniform k_bits=2 v_bits=2  exact_match  40  +0.5000 ["));
  CHECK(lines[4].starts_with("INCONCLUSIVE"));
  CHECK(lines[5].starts_with("PASS"));
  CHECK_THAT(lines[3], ContainsSubstring("20/0"));
  CHECK_THAT(lines[6], ContainsSubstring("one-sided bounds at 95 %"));
  CHECK_THAT(lines[8], ContainsSubstring("Holm's method over the 3 margin verdicts"));
  CHECK_THAT(lines[6], ContainsSubstring("detectable"));
  CHECK_THAT(gate_to_markdown(report), ContainsSubstring("### gate g.yaml: FAIL"));
  CHECK_THAT(gate_to_markdown(report), ContainsSubstring("| FAIL | small loss |"));
}

}  // namespace kvsweep
