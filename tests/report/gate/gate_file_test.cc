// contract: gates are read as they are documented; whatever else stands in one is an error that names file, line, value
// and what is allowed.
#include "harness/report/gate/gate_file.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

Record point_of(const std::string& task, const Fields& task_params, int64_t tokens, const std::string& scheme,
                const Fields& scheme_params) {
  Record record;
  record.point.task = task;
  record.point.task_params = task_params;
  record.point.tokens = tokens;
  record.point.scheme = scheme;
  record.point.scheme_params = scheme_params;
  return record;
}

}  // namespace

TEST_CASE("a file of gates holds margins, identity and budgets") {
  const GateFile file = parse_gates(
      "- {name: small, metric: exact_match, task: needle, scheme: kivi/*, tokens: [512, 1024], max_drop: 0.02,\n"
      "   against: baseline, confidence: 0.9, min_items: 200, pooled: true, expect: pass}\n"
      "- {scheme: uniform/k_bits=8*, max_ratio: 1.02}\n"
      "- {identical: true, expect: fail}\n"
      "- {budget: bytes_per_token, max_rise: 5 %}\n"
      "- {budget: decode_ms_per_token, max_rise: 12.5%, against: full}\n",
      "g.yaml");
  REQUIRE(file.rules.size() == 5);
  const GateRule& first = file.rules[0];
  CHECK(first.kind == GateRule::Kind::kMargin);
  CHECK(first.name == "small");
  CHECK(first.line == 1);
  CHECK(first.metric == "exact_match");
  CHECK(first.tokens == std::vector<int64_t>{512, 1024});
  CHECK(first.max_drop == 0.02);
  CHECK(first.against_baseline);
  CHECK(first.confidence == 0.9);
  CHECK(first.min_items == 200);
  CHECK(first.pooled);
  CHECK(first.expect == Verdict::kPass);
  const GateRule& second = file.rules[1];
  CHECK(second.name == "* uniform/k_bits=8*: max_ratio 1.02 against full");
  CHECK(second.max_ratio == 1.02);
  CHECK_FALSE(second.against_baseline);
  CHECK(second.confidence == 0.95);
  CHECK(second.min_items == 30);
  CHECK(file.rules[2].kind == GateRule::Kind::kIdentical);
  CHECK(file.rules[2].against_baseline);
  CHECK(file.rules[2].expect == Verdict::kFail);
  CHECK(file.rules[3].kind == GateRule::Kind::kBudget);
  CHECK(file.rules[3].against_baseline);
  CHECK(file.rules[3].max_rise == 0.05);
  CHECK(file.rules[4].max_rise == 0.125);
  CHECK_FALSE(file.rules[4].against_baseline);
}

TEST_CASE("a rule matches tasks and schemes by name, by name and parameters, and as tables show them") {
  const Record kivi =
      point_of("needle", {{"tokens", "1024"}, {"depths", "5"}}, 1024, "kivi", {{"k_bits", "2"}, {"v_bits", "4"}});
  const Record fp8 = point_of("ruler", {{"tokens", "512"}}, 512, "fp8", {});
  struct Case {
    std::string rule;
    bool kivi, fp8;
  };
  const auto [rule, is_kivi, is_fp8] = GENERATE(
      Case{"scheme: kivi", true, false}, Case{"scheme: kivi/*", true, false}, Case{"scheme: fp8/*", false, true},
      Case{"scheme: '*'", true, true}, Case{"scheme: 'kivi/k_bits=2*'", true, false},
      Case{"scheme: 'kivi k_bits=2 v_bits=4'", true, false}, Case{"scheme: 'kivi/k_bits=4*'", false, false},
      Case{"scheme: '*v_bits=4'", true, false}, Case{"task: needle", true, false}, Case{"task: 'needle*'", true, false},
      Case{"task: '*depths=5'", true, false}, Case{"task: need", false, false}, Case{"tokens: 512", false, true},
      Case{"tokens: [512, 1024]", true, true}, Case{"scheme: '[kf]*'", true, true},
      Case{"scheme: [kivi, fp8]", true, true}, Case{"scheme: [kivi, uniform], task: [needle, ruler]", true, false});
  INFO(rule);
  const GateFile file = parse_gates("- {max_drop: 0.1, " + rule + "}", "g.yaml");
  CHECK(file.rules[0].matches(kivi) == is_kivi);
  CHECK(file.rules[0].matches(fp8) == is_fp8);
}

TEST_CASE("what is wrong in a file of gates is named with line, value and what is allowed") {
  struct Case {
    std::string yaml, message;
  };
  const auto [yaml, message] = GENERATE(
      Case{"", "g.yaml: gates are a list"}, Case{"rules: []", "g.yaml: gates are a list"},
      Case{"[]", "g.yaml: gates are a list"}, Case{"- max_drop", "g.yaml:1: a rule is a map"},
      Case{"- {max_drop: 0.1\n", "g.yaml:2: not YAML"},
      Case{"- {max_drop: 0.1}\n- {max_dorp: 0.1}",
           "g.yaml:2: max_dorp is not a key of a rule; did you mean 'max_drop'"},
      Case{"- {max_drop: 0.1, max_drop: 0.2}", "g.yaml:1: max_drop stands twice"},
      Case{"- {max_drop: }", "g.yaml:1: max_drop has no value"},
      Case{"- {[a]: 1}", "g.yaml:1: a key of a rule is a text"},
      Case{"- {scheme: kivi}", "a rule has max_drop or max_ratio"},
      Case{"- {max_drop: two}", "g.yaml:1: max_drop = two: a number above 0"},
      Case{"- {max_drop: 0}", "max_drop = 0: a number above 0"}, Case{"- {max_drop: nan}", "max_drop = nan"},
      Case{"- {max_drop: 0.1x}", "max_drop = 0.1x"}, Case{"- {max_drop: [0.1]}", "max_drop = [0.1]"},
      Case{"- {max_ratio: 1}", "max_ratio = 1: a number above 1"},
      Case{"- {max_drop: 0.1, confidence: 1}", "confidence = 1: a number above 0.5 and below 1"},
      Case{"- {max_drop: 0.1, confidence: 95}", "confidence = 95: a number above 0.5 and below 1"},
      Case{"- {max_drop: 0.1,\n min_items: 1.5}", "g.yaml:2: min_items = 1.5: a whole number from 1"},
      Case{"- {max_drop: 0.1, min_items: 0}", "min_items = 0"},
      Case{"- {max_drop: 0.1, tokens: []}", "tokens = []: a length in tokens or a list"},
      Case{"- {max_drop: 0.1, tokens: [a]}", "tokens = a: a whole number"},
      Case{"- {max_drop: 0.1, against: basline}", "against = basline: one of full, baseline; did you mean 'baseline'"},
      Case{"- {max_drop: 0.1, expect: maybe}", "expect = maybe: one of pass, fail"},
      Case{"- {max_drop: 0.1, pooled: 1}", "pooled = 1: one of true, false"},
      Case{"- {max_drop: 0.1, scheme: ''}", "scheme = : a text"},
      Case{"- {max_drop: 0.1, scheme: [a, '']}", "scheme = : a text"},
      Case{"- {max_drop: 0.1, task: []}", "task = []: a text or a list"},
      Case{"- {max_drop: 0.1, scheme: {a: b}}", "scheme = {a: b}: a text"},
      Case{"- {max_drop: 0.1, max_rise: 5 %}", "max_drop does not go with a budget"},
      Case{"- {identical: true, max_drop: 0.1}", "max_drop does not go with identical"},
      Case{"- {identical: false}", "identical = false: leave it out, or write true"},
      Case{"- {identical: true, pooled: true}", "pooled does not go with identical"},
      Case{"- {budget: bytes_per_token}", "budget and max_rise go together"},
      Case{"- {max_rise: 5 %}", "budget and max_rise go together"},
      Case{"- {budget: bytes, max_rise: 5 %}", "budget = bytes: one of bytes_per_token, effective_bits"},
      Case{"- {budget: bytes_per_token, max_rise: 5}", "max_rise = 5: a share in percent"},
      Case{"- {budget: bytes_per_token, max_rise: -5 %}", "max_rise = -5 %: a share in percent"},
      Case{"- {budget: bytes_per_token, max_rise: 5 %, metric: f1}", "metric does not go with a budget"},
      Case{"- {name: a, max_drop: 0.1}\n- {name: a, max_drop: 0.2}", "g.yaml:2: a rule on line 1 is called 'a' too"});
  INFO(yaml);
  CHECK_THROWS_MATCHES(parse_gates(yaml, "g.yaml"), ConfigError, MessageMatches(ContainsSubstring(message)));
}

TEST_CASE("a file of gates that is not there is named") {
  const testing::TemporaryDirectory directory;
  CHECK_THROWS_MATCHES(read_gates(directory.path() / "none.yaml"), ConfigError,
                       MessageMatches(ContainsSubstring("none.yaml: cannot be read")));
  CHECK_THROWS_MATCHES(read_gates(directory.path()), ConfigError, MessageMatches(ContainsSubstring("cannot be read")));
}

TEST_CASE("every file of gates in configs/gates is one") {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(KVSWEEP_SOURCE_DIR) / "configs/gates")) {
    INFO(entry.path().string());
    CHECK_FALSE(read_gates(entry.path()).rules.empty());
    ++files;
  }
  CHECK(files > 0);
}

}  // namespace kvsweep
