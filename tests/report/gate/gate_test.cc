// oracle and contract: each verdict from arithmetic of the binomial distribution; what cannot be judged is a FAIL with
// its reason; neither order of lines nor other rules change a verdict, Holm's adjustment apart.
#include "harness/report/gate/gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <sstream>

#include "harness/core/error.h"
#include "harness/report/baseline.h"
#include "harness/report/gate/gate_output.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::full_precision;
using testing::read_text;
using testing::ResultsWorld;
using testing::WorldGroup;
using testing::WorldPoint;
using testing::write_text;

namespace {

// Wrong on the first `lost` items.
WorldPoint losing(int k_bits, int64_t lost) {
  return {k_bits, 4, "uniform", [lost](int64_t i) { return i < lost ? 0.0 : 1.0; }, ""};
}

// P(X >= k), X ~ Bin(n, p).
double at_least(int64_t k, int64_t n, double p) {
  if (k == 0) return 1;
  return boost::math::cdf(
      boost::math::complement(boost::math::binomial(static_cast<double>(n), p), static_cast<double>(k - 1)));
}

// Gaffke's p of "the loss is at most `margin`" when k of n items are lost, none gained: P((1 - m) A <= m B + (1 + m) C)
// of gamma variables A, B of shapes k and n - k and an exponential C (one more item at the best end, a gain). The
// right side is a chain of n - k stages of rate 1/m and one of rate 1/(1 + m); p is the probability that k arrivals of
// rate 1/(1 - m) come before it has ended.
double p_of_fail(int64_t k, int64_t n, double margin) {
  std::vector<double> rates(static_cast<size_t>(n - k), 1 / margin), at(rates.size() + 2);
  rates.push_back(1 / (1 + margin));
  at[0] = 1;
  for (int64_t arrival = 0; arrival < k; ++arrival) {
    double moving = 0;
    for (size_t stage = 0; stage < rates.size(); ++stage) {
      moving += at[stage];
      const double goes_on = rates[stage] / (rates[stage] + 1 / (1 - margin));
      at[stage] = moving * (1 - goes_on);
      moving *= goes_on;
    }
    at.back() += moving;
  }
  return 1 - at.back();
}

GateReport judge(const std::string& yaml, const std::filesystem::path& run, const std::filesystem::path& baseline = {},
                 const Allowed& allowed = {}) {
  std::optional<Results> base;
  if (!baseline.empty()) base = read_results(baseline);
  return run_gate(parse_gates(yaml, "g.yaml"), read_results(run), base ? &*base : nullptr, allowed);
}

GateReport judge(const std::string& yaml, const ResultsWorld& world) {
  return judge(yaml, world.path());
}

// Lines of a file in another order.
void shuffle_lines(const std::filesystem::path& path, uint32_t seed) {
  std::vector<std::string> lines;
  std::istringstream text(read_text(path));
  for (std::string line; std::getline(text, line);) lines.push_back(line + "\n");
  std::shuffle(lines.begin(), lines.end(), std::mt19937(seed));
  write_text(path, join(lines, ""));
}

void replace_in(const std::filesystem::path& path, const std::string& from, const std::string& to) {
  std::string text = read_text(path);
  size_t count = 0;
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size(), ++count)
    text.replace(at, from.size(), to);
  REQUIRE(count > 0);
  write_text(path, text);
}

}  // namespace

TEST_CASE("a loss passes, fails or stays open by the exact binomial bounds") {
  struct Case {
    int64_t lost;
    Verdict verdict;
    int status;
  };
  const auto [lost, verdict, status] =
      GENERATE(Case{0, Verdict::kPass, 0}, Case{1, Verdict::kInconclusive, 3}, Case{9, Verdict::kInconclusive, 3},
               Case{10, Verdict::kFail, 1}, Case{40, Verdict::kFail, 1});
  INFO(lost);
  const ResultsWorld world({{.points = {full_precision(), losing(4, lost)}}});
  const GateReport report = judge("- {max_drop: 0.1}", world);
  REQUIRE(report.verdicts.size() == 1);
  const GateVerdict& one = report.verdicts[0];
  CHECK(one.verdict == verdict);
  CHECK(report.exit_status() == status);
  CHECK(one.n == 40);
  CHECK(*one.loss == Approx(static_cast<double>(lost) / 40));
  CHECK(*one.lost == lost);
  CHECK(*one.gained == 0);
  CHECK(one.method == "Gaffke");
  CHECK(*one.p_pass == Approx(1 - at_least(lost + 1, 40, 0.1)).margin(1e-9));  // P(X <= lost)
  CHECK(*one.p_fail == Approx(p_of_fail(lost, 40, 0.1)).margin(1e-9));
  CHECK_FALSE(one.reason.empty());
  CHECK(*one.detectable > 0);
  if (verdict == Verdict::kInconclusive) CHECK_THAT(one.reason, ContainsSubstring("items would tell"));
}

TEST_CASE("a FAIL among many verdicts needs the p that Holm asks for, a PASS does not") {
  // 10 of 40 lost: p = 0.041 alone, 0.124 of three; 0 of 40: p of PASS 0.9^40 = 0.015 however many there are.
  const ResultsWorld world({{.points = {full_precision(), losing(4, 10), losing(2, 0), losing(3, 0)}}});
  const GateReport alone = judge("- {max_drop: 0.1, scheme: 'uniform/k_bits=4*'}", world);
  CHECK(alone.verdicts[0].verdict == Verdict::kFail);
  CHECK(alone.family == 1);
  const GateReport all = judge("- {max_drop: 0.1}", world);
  REQUIRE(all.verdicts.size() == 3);
  CHECK(all.family == 3);
  int64_t passed = 0;
  for (const GateVerdict& one : all.verdicts) {
    if (*one.lost == 0) {
      CHECK(one.verdict == Verdict::kPass);
      CHECK(*one.p_pass == Approx(std::pow(0.9, 40)));
      ++passed;
      continue;
    }
    CHECK(one.verdict == Verdict::kInconclusive);
    CHECK(*one.p_fail_adjusted == Approx(3 * p_of_fail(10, 40, 0.1)));
    CHECK_THAT(one.reason, ContainsSubstring("not among 3 verdicts"));
  }
  CHECK(passed == 2);
  CHECK(all.exit_status() == 3);
  // Controls are no claims: the family is the other rule's alone.
  const GateReport controlled = judge(
      "- {max_drop: 0.1, scheme: 'uniform/k_bits=4*'}\n- {max_drop: 0.1, scheme: 'uniform/k_bits=2*', expect: pass}",
      world);
  CHECK(controlled.family == 1);
  CHECK(controlled.verdicts[0].verdict == Verdict::kFail);
}

TEST_CASE("what cannot be judged is a FAIL that says why") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  ResultsWorld world({{.points = {full_precision(),
                                  {2, 2, "uniform", [](int64_t) { return 1.0; }, "failed"},
                                  {3, 3, "uniform", [=](int64_t i) { return i == 5 ? nan : 1.0; }, ""},
                                  losing(4, 0)}}});
  struct Case {
    std::string rule, reason;
  };
  const auto [rule, reason] =
      GENERATE(Case{"scheme: 'uniform/k_bits=2*', max_drop: 0.1", "failed: out of memory"},
               Case{"scheme: 'uniform/k_bits=3*', max_drop: 0.1", "1 of 40 scores of exact_match are not numbers"},
               Case{"scheme: 'uniform/k_bits=3*', identical: true, against: full", "are not numbers"},
               Case{"scheme: kivi, max_drop: 0.1",
                    "matches no point: the run has the tasks needle, the schemes full, "
                    "uniform and the lengths 512"},
               Case{"tokens: 1024, max_drop: 0.1", "matches no point"},
               Case{"task: needel, budget: effective_bits, max_rise: 5 %, against: full", "matches no point"},
               Case{"metric: f1, max_drop: 0.1", "judged by exact_match, the rule asks for f1"},
               Case{"max_ratio: 1.1", "max_drop judges all but exponential metrics"},
               Case{"scheme: 'uniform/k_bits=4*', max_drop: 2", "two points are 0.02"});
  INFO(rule);
  const GateReport report = judge("- {" + rule + "}", world);
  REQUIRE(report.verdicts.size() == 1);
  CHECK(report.verdicts[0].verdict == Verdict::kFail);
  CHECK_FALSE(report.verdicts[0].measured);
  CHECK_THAT(report.verdicts[0].reason, ContainsSubstring(reason));
  CHECK(report.exit_status() == 1);
  // None of it is the failure that a control is there for.
  const GateReport control = judge("- {" + rule + ", expect: fail}", world);
  CHECK(control.verdicts[0].verdict == Verdict::kFail);
  CHECK_THAT(control.verdicts[0].reason, ContainsSubstring("control missed"));
}

TEST_CASE("a point that read nothing compressed is a FAIL") {
  const ResultsWorld world({{.points = {full_precision(), losing(4, 0)}}});
  replace_in(world.records_file(), "\"ok\"", "\"not_engaged\"");
  CHECK_THAT(judge("- {max_drop: 0.1, scheme: uniform}", world).verdicts[0].reason, ContainsSubstring("not engaged"));
}

TEST_CASE("fewer items than a rule asks for leave it open") {
  const ResultsWorld world({{.points = {full_precision(), losing(4, 40), losing(2, 0)}}});
  const GateReport report = judge("- {max_drop: 0.1, min_items: 41}", world);
  for (const GateVerdict& one : report.verdicts) {
    CHECK(one.verdict == Verdict::kInconclusive);
    CHECK(one.reason == "40 items, min_items is 41");
    CHECK(one.loss.has_value());
  }
  CHECK(report.family == 0);
  CHECK(report.exit_status() == 3);
  CHECK(judge("- {max_drop: 0.1, min_items: 40, scheme: 'uniform/k_bits=2*'}", world).exit_status() == 0);
}

TEST_CASE("a control turns its verdict, and one that is missed is a FAIL") {
  const ResultsWorld world({{.points = {full_precision(), losing(2, 40), losing(3, 4), losing(4, 0)}}});
  struct Case {
    std::string scheme, expect;
    bool as_expected;
  };
  const auto [scheme, expect, as_expected] =
      GENERATE(Case{"uniform/k_bits=2*", "fail", true}, Case{"uniform/k_bits=3*", "fail", false},
               Case{"uniform/k_bits=4*", "fail", false}, Case{"uniform/k_bits=2*", "pass", false},
               Case{"uniform/k_bits=3*", "pass", false}, Case{"uniform/k_bits=4*", "pass", true},
               Case{"full", "pass", true}, Case{"full", "fail", false});
  INFO(scheme << " " << expect);
  const GateReport report = judge("- {max_drop: 0.1, scheme: '" + scheme + "', expect: " + expect + "}", world);
  CHECK(report.verdicts[0].verdict == (as_expected ? Verdict::kPass : Verdict::kFail));
  CHECK(report.exit_status() == (as_expected ? 0 : 1));
  CHECK_THAT(report.verdicts[0].reason, ContainsSubstring(as_expected ? "as expected" : "control missed"));
}

TEST_CASE("full precision is held against itself only where a rule names it") {
  const ResultsWorld world({{.points = {full_precision(), losing(4, 0)}}});
  CHECK(judge("- {max_drop: 0.1, scheme: '*'}", world).verdicts.size() == 1);
  const GateReport itself = judge("- {identical: true, scheme: full, against: full}", world);
  REQUIRE(itself.verdicts.size() == 1);
  CHECK(itself.verdicts[0].verdict == Verdict::kPass);
}

TEST_CASE("an exponential metric is judged by the ratio of its means, by Student's t") {
  // Log losses of 32 windows: own is the reference's times 1.02 on average, spread 0.01.
  const auto nll = [](int64_t i) { return 2.0 + 0.1 * static_cast<double>(i % 7); };
  const auto own = [=](int64_t i) { return nll(i) + std::log(1.02) + (i % 2 == 0 ? 0.01 : -0.01); };
  const ResultsWorld world({{.task = "perplexity",
                             .metric = "nll",
                             .kind = "language_modeling",
                             .items = 32,
                             .exponential = true,
                             .higher_is_better = false,
                             .points = {full_precision(nll), {4, 4, "uniform", own, ""}}}});
  const GateReport wide = judge("- {max_ratio: 1.03}", world);
  CHECK(wide.verdicts[0].verdict == Verdict::kPass);
  CHECK(wide.verdicts[0].method == "Student");
  CHECK(*wide.verdicts[0].loss == Approx(1.02));
  CHECK(*wide.verdicts[0].margin == Approx(1.03));
  const double half = 1.6955 * 0.01 * std::sqrt(32.0 / 31) / std::sqrt(32.0);  // t(0.95, 31) * SE
  CHECK(*wide.verdicts[0].high == Approx(1.02 * std::exp(half)).epsilon(1e-5));
  CHECK(judge("- {max_ratio: 1.01}", world).verdicts[0].verdict == Verdict::kFail);
  CHECK(judge("- {max_ratio: 1.021}", world).verdicts[0].verdict == Verdict::kInconclusive);
  CHECK_THAT(judge("- {max_drop: 0.1}", world).verdicts[0].reason, ContainsSubstring("max_ratio judges exponential"));
}

TEST_CASE("pooled, the groups of a configuration have one verdict, each group of the same weight") {
  // 40 items without a loss are too few for a margin of 5 % (0.95^40 = 0.13), 80 are not.
  const auto group = [](const std::string& tokens, int64_t items, int64_t lost) {
    return WorldGroup{.tokens = tokens, .items = items, .points = {full_precision(), losing(4, lost)}};
  };
  const ResultsWorld world({group("512", 40, 0), group("1024", 40, 0)});
  CHECK(judge("- {max_drop: 0.05}", world).exit_status() == 3);
  const GateReport pooled = judge("- {max_drop: 0.05, pooled: true}", world);
  REQUIRE(pooled.verdicts.size() == 1);
  CHECK(pooled.verdicts[0].verdict == Verdict::kPass);
  CHECK(pooled.verdicts[0].n == 80);
  CHECK(pooled.verdicts[0].task == "2 groups pooled");
  // (10/40 + 0/200) / 2, not 10/240
  const ResultsWorld uneven({group("512", 40, 10), group("1024", 200, 0)});
  CHECK(*judge("- {max_drop: 0.05, pooled: true}", uneven).verdicts[0].loss == Approx(0.125));
}

TEST_CASE("one pooled group that failed fails the pool") {
  const ResultsWorld world(
      {{.points = {full_precision(), losing(4, 0)}},
       {.tokens = "1024", .points = {full_precision(), {4, 4, "uniform", [](int64_t) { return 1.0; }, "failed"}}}});
  const GateReport report = judge("- {max_drop: 0.1, pooled: true}", world);
  CHECK(report.verdicts[0].verdict == Verdict::kFail);
  CHECK_THAT(report.verdicts[0].reason, ContainsSubstring("out of memory"));
}

namespace {

// A run, and the baseline of an earlier one.
struct Twice {
  explicit Twice(std::vector<WorldPoint> now, std::vector<WorldPoint> before)
      : run({{.points = std::move(now)}}), earlier({{.points = std::move(before)}}) {
    write_baseline(file(), earlier.records(), earlier.samples());
  }
  std::filesystem::path file() const { return earlier.path().parent_path() / "baseline.jsonl"; }
  GateReport judge(const std::string& rule, const Allowed& allowed = {}) const {
    return kvsweep::judge("- {against: baseline, " + rule + "}", run.path(), file(), allowed);
  }
  ResultsWorld run, earlier;
};

}  // namespace

TEST_CASE("against a baseline every point is held, full precision too") {
  const Twice same({full_precision(), losing(4, 3)}, {full_precision(), losing(4, 3)});
  const GateReport report = same.judge("identical: true");
  REQUIRE(report.verdicts.size() == 2);
  CHECK(report.exit_status() == 0);
  CHECK(report.verdicts[0].n == 40);
  CHECK(same.judge("max_drop: 0.1").exit_status() == 0);
  const Twice worse({full_precision(), losing(4, 5)}, {full_precision(), losing(4, 3)});
  const GateReport changed = worse.judge("identical: true, scheme: uniform");
  CHECK(changed.verdicts[0].verdict == Verdict::kFail);
  CHECK(changed.verdicts[0].measured);
  CHECK(changed.verdicts[0].reason == "2 of 40 items differ, first s3: exact_match 1 -> 0");
  CHECK(*changed.verdicts[0].lost == 2);
  CHECK(worse.judge("identical: true, expect: fail, scheme: uniform").exit_status() == 0);
}

TEST_CASE("a gain is a difference too") {
  const Twice better({full_precision(), losing(4, 3)}, {full_precision(), losing(4, 5)});
  CHECK(better.judge("identical: true, scheme: uniform").exit_status() == 1);
  CHECK(better.judge("max_drop: 0.1, scheme: uniform").exit_status() == 0);
}

TEST_CASE("a point that only one of run and baseline has is a FAIL") {
  const Twice less({full_precision(), losing(4, 0)}, {full_precision(), losing(4, 0), losing(2, 0)});
  const GateReport lost = less.judge("identical: true");
  REQUIRE(lost.verdicts.size() == 3);
  CHECK(lost.exit_status() == 1);
  CHECK(lost.verdicts.back().reason == "the baseline has this point, the run has not");
  CHECK(less.judge("identical: true, scheme: '*k_bits=4*'").exit_status() == 0);
  const Twice more({full_precision(), losing(4, 0), losing(2, 0)}, {full_precision(), losing(4, 0)});
  const GateReport fresh = more.judge("max_drop: 0.1, scheme: 'uniform/k_bits=2*'");
  CHECK(fresh.exit_status() == 1);
  CHECK_THAT(fresh.verdicts[0].reason,
             ContainsSubstring("the baseline has no such point; `kvsweep gate --update-baseline`"));
}

TEST_CASE("points of other rules are not compared unless the field is allowed to differ") {
  const Twice pair({full_precision(), losing(4, 0)}, {full_precision(), losing(4, 0)});
  replace_in(pair.run.records_file(), "\"torch\":\"2.11.0\"", "\"torch\":\"2.12.0\"");
  const GateReport refused = pair.judge("max_drop: 0.1, scheme: uniform");
  CHECK(refused.verdicts[0].verdict == Verdict::kFail);
  CHECK(refused.verdicts[0].reason == "not comparable: torch: 2.11.0 against 2.12.0");
  CHECK(refused.allowed.empty());
  const GateReport allowed = pair.judge("max_drop: 0.1, scheme: uniform", {"torch"});
  CHECK(allowed.verdicts[0].verdict == Verdict::kPass);
  CHECK(allowed.allowed == std::set<std::string>{"torch: 2.11.0 against 2.12.0"});
  CHECK_THAT(gate_to_terminal(allowed), ContainsSubstring("allowed to differ: torch: 2.11.0 against 2.12.0"));
  CHECK_THAT(gate_to_markdown(allowed), ContainsSubstring("allowed to differ: torch: 2.11.0 against 2.12.0"));
  CHECK_THAT(gate_to_junit(allowed), ContainsSubstring("value=\"torch: 2.11.0 against 2.12.0\""));
}

TEST_CASE("a point whose task has other parameters is told apart from one that is missing") {
  const ResultsWorld run({{.tokens = "1024", .points = {full_precision(), losing(4, 0)}}});
  const ResultsWorld earlier({{.points = {full_precision(), losing(4, 0)}}});
  const GateReport report = judge("- {against: baseline, max_drop: 0.1}", run.path(), earlier.path());
  CHECK(report.verdicts.size() == 2);  // the baseline's points have their counterparts
  for (const GateVerdict& one : report.verdicts)
    CHECK_THAT(one.reason, ContainsSubstring("not comparable: task_params: tokens=512 samples=40 against tokens=1024"));
}

TEST_CASE("budgets compare bytes, bits and times with the baseline or full precision") {
  const Twice pair({full_precision(), losing(4, 0)}, {full_precision(), losing(4, 0)});
  CHECK(pair.judge("budget: bytes_per_token, max_rise: 0 %").exit_status() == 0);
  CHECK(pair.judge("budget: effective_bits, max_rise: 0 %").exit_status() == 0);
  const GateReport times = pair.judge("budget: decode_ms_per_token, max_rise: 0 %");
  CHECK(times.exit_status() == 0);
  CHECK(times.verdicts[0].n == 1);
  std::string text = read_text(pair.run.records_file());
  const std::string key = "\"bytes_per_token\":";
  for (size_t at = 0; (at = text.find(key, at)) != std::string::npos; at += key.size())
    text.replace(at + key.size(), text.find(',', at) - at - key.size(), "1e6");
  write_text(pair.run.records_file(), text);
  const GateReport rise = pair.judge("budget: bytes_per_token, max_rise: 5 %, scheme: uniform");
  CHECK(rise.verdicts[0].verdict == Verdict::kFail);
  CHECK(rise.verdicts[0].measured);
  CHECK(rise.exit_status() == 1);
  CHECK(rise.family == 0);
  CHECK(judge("- {budget: effective_bits, max_rise: 0 %, against: full}", pair.run).exit_status() == 0);
  // 40 times fewer bytes than allowed by a rise of nothing
  CHECK(*judge("- {budget: effective_bits, max_rise: 0 %, against: full}", pair.run).verdicts[0].loss == Approx(-0.75));
}

TEST_CASE("times of another machine leave a budget open, and no time at all fails it") {
  const Twice pair({full_precision(), losing(4, 0)}, {full_precision(), losing(4, 0)});
  replace_in(pair.run.records_file(), "\"a cpu\"", "\"another cpu\"");
  const GateReport other = pair.judge("budget: decode_ms_per_token, max_rise: 25 %, scheme: uniform");
  CHECK(other.verdicts[0].verdict == Verdict::kInconclusive);
  CHECK_THAT(other.verdicts[0].reason,
             ContainsSubstring("timed on another machine: a cpu, 2 threads against another cpu"));
  CHECK(pair.judge("budget: bytes_per_token, max_rise: 25 %, scheme: uniform").exit_status() == 0);
  std::string text = read_text(pair.run.records_file());
  const std::string key = "\"decode_ms_per_token\":";
  for (size_t at = 0; (at = text.find(key, at)) != std::string::npos; at += key.size())
    text.replace(at + key.size(), text.find(',', at) - at - key.size(), "null");
  write_text(pair.run.records_file(), text);
  CHECK(pair.judge("budget: decode_ms_per_token, max_rise: 25 %, scheme: uniform").verdicts[0].reason == "not timed");
}

TEST_CASE("a rule against a baseline without one is refused") {
  const ResultsWorld world({{.points = {full_precision(), losing(4, 0)}}});
  CHECK_THROWS_MATCHES(judge("- {max_drop: 0.1}\n- {identical: true}", world), ConfigError,
                       MessageMatches(ContainsSubstring("g.yaml:2: rule '* *: identical against baseline'")));
}

TEST_CASE("the order of records and samples never changes an output") {
  const WorldGroup group{.points = {full_precision(), losing(2, 9), losing(3, 1), losing(4, 0)}};
  const ResultsWorld world({group, WorldGroup{.tokens = "1024", .points = group.points}});
  const std::string yaml =
      "- {max_drop: 0.1}\n- {max_drop: 0.05, pooled: true}\n- {identical: true, against: full}\n"
      "- {budget: effective_bits, max_rise: 0 %, against: full}";
  const GateReport first = judge(yaml, world);
  const auto outputs = [](const GateReport& report) {
    return gate_to_terminal(report) + gate_to_markdown(report) + gate_to_junit(report) + gate_to_github(report);
  };
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    shuffle_lines(world.records_file(), seed);
    shuffle_lines(world.samples_file(), seed + 100);
    CHECK(outputs(judge(yaml, world)) == outputs(first));
  }
}

TEST_CASE("a scheme that loses exactly the margin passes at most one time in twenty", "[slow]") {
  // 4000 made-up schemes of 40 items each, every item lost with the margin's probability, in one run of the gate.
  std::mt19937_64 random(7);
  const double margin = GENERATE(0.05, 0.1, 0.3);
  const int64_t items = GENERATE(30, 60);
  std::bernoulli_distribution loses(margin);
  std::vector<WorldGroup> groups;
  const int64_t draws = 4000;
  for (int64_t begin = 0; begin < draws; begin += 50) {
    WorldGroup group{.tokens = std::to_string(512 + begin), .items = items, .points = {full_precision()}};
    for (int64_t j = 0; j < 50; ++j) {
      std::vector<double> scores;
      for (int64_t i = 0; i < items; ++i) scores.push_back(loses(random) ? 0 : 1);
      group.points.push_back(
          {4, 4, "scheme" + std::to_string(j), [scores](int64_t i) { return scores[static_cast<size_t>(i)]; }, ""});
    }
    groups.push_back(std::move(group));
  }
  const ResultsWorld world(groups);
  const GateReport report = judge(fmt::format("- {{max_drop: {}}}", margin), world);
  REQUIRE(std::ssize(report.verdicts) == draws);
  const auto share = static_cast<double>(report.count(Verdict::kPass)) / static_cast<double>(draws);
  INFO("margin " << margin << ", items " << items << ": " << share);
  CHECK(share <= 0.05 + 2.33 * std::sqrt(0.05 * 0.95 / static_cast<double>(draws)));
  // A proven loss among 4000 true losses of the margin: not one in twenty such files.
  CHECK(report.count(Verdict::kFail) <= 1);
}

}  // namespace kvsweep
