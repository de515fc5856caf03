// oracle and contract: a verdict that is called certain is that of the whole set, whatever comes: checked against the
// gate over completions of it; what cannot be certain is open.
#include "harness/report/gate/gate_watch.h"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <random>

#include "harness/core/error.h"
#include "harness/report/gate/gate.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::full_precision;
using testing::ResultsWorld;
using testing::WorldPoint;

namespace {

constexpr int64_t kItems = 40;

std::vector<ShardGroup> groups_of(const ResultsWorld& world) {
  ShardGroup group;
  group.reference_id = world.records().front().reference_id;
  for (const SampleRecord& sample : world.samples())
    if (sample.point_id == group.reference_id) group.samples.push_back(sample.sample_id);
  for (const Record& record : world.records()) group.points.push_back({0, false, record});
  return {group};
}

// What is certain when `count` samples of each point are there.
std::vector<WatchedVerdict> watched(const ResultsWorld& world, const std::string& yaml, int64_t count,
                                    const Results* baseline = nullptr) {
  GateWatch watch(parse_gates(yaml, "g.yaml"), groups_of(world), baseline);
  for (const SampleRecord& sample : world.samples())
    if (sample.index < count) watch.add(sample);
  return watch.verdicts();
}

WorldPoint losing(int bits, int64_t lost) {
  return {bits, bits, "uniform", [lost](int64_t i) { return i < lost ? 0.0 : 1.0; }, ""};
}

}  // namespace

TEST_CASE("certain verdicts are those of every completion, and the whole set's verdict is certain") {
  std::mt19937 random(3);
  const int wrong_percent = GENERATE(0, 5, 20, 60, 100);
  std::vector<double> own;
  for (int64_t i = 0; i < kItems; ++i) own.push_back(static_cast<int>(random() % 100) < wrong_percent ? 0 : 1);
  const std::string yaml = "- {max_drop: 0.1}";
  const auto world_after = [&](int64_t count, double rest_full, double rest_own) {
    return std::make_unique<ResultsWorld>(std::vector<testing::WorldGroup>{
        {.items = kItems,
         .points = {
             full_precision([=](int64_t i) { return i < count ? 1.0 : rest_full; }),
             {4, 4, "uniform", [=](int64_t i) { return i < count ? own[static_cast<size_t>(i)] : rest_own; }, ""}}}});
  };
  for (int64_t count = 0; count <= kItems; count += 5) {
    const auto worst = world_after(count, 1, 0), best = world_after(count, 0, 1);
    const auto certain = watched(*worst, yaml, count).front().verdict;
    CHECK(certain == watched(*best, yaml, count).front().verdict);  // nothing is known of the rest
    const Verdict at_worst = run_gate(parse_gates(yaml, "g"), read_results(worst->path()), nullptr).verdicts[0].verdict;
    const Verdict at_best = run_gate(parse_gates(yaml, "g"), read_results(best->path()), nullptr).verdicts[0].verdict;
    INFO(wrong_percent << " % wrong, after " << count);
    CHECK(certain.has_value() == (at_worst == at_best));
    if (certain) CHECK(*certain == at_worst);
  }
}

TEST_CASE("a FAIL is certain before the end only at Bonferroni's level") {
  // 11 of 40 lost: p = 0.0214 alone; certain of two verdicts, not of four (0.086).
  const auto verdicts = [](int64_t points) {
    std::vector<WorldPoint> all = {full_precision()};
    for (int64_t j = 0; j < points; ++j) all.push_back(losing(2 + static_cast<int>(j), 11));
    const ResultsWorld world({{.items = kItems, .points = all}});
    return watched(world, "- {max_drop: 0.1}", kItems);
  };
  CHECK(verdicts(2).front().verdict == Verdict::kFail);
  CHECK(verdicts(4).front().verdict == std::nullopt);
}

TEST_CASE("against a baseline a broken scheme is certain sooner: what it can still gain is known") {
  const ResultsWorld broken({{.items = 200, .points = {full_precision(), losing(4, 200)}}});
  const ResultsWorld before({{.items = 200, .points = {full_precision(), losing(4, 0)}}});
  const Results baseline = read_results(before.path());
  const auto first_certain = [&](const std::string& yaml) {
    for (int64_t count = 0; count <= 200; count += 5)
      if (watched(broken, yaml, count, &baseline).back().verdict == Verdict::kFail) return count;
    return int64_t{-1};
  };
  CHECK(first_certain("- {scheme: uniform, max_drop: 0.1, against: baseline}") == 30);  // P(X >= 30 | 200, 0.1) = 0.017
  CHECK(first_certain("- {scheme: uniform, max_drop: 0.1}") > 100);
  CHECK(first_certain("- {scheme: uniform, identical: true}") == 5);
}

TEST_CASE("what only the end tells is open, and what can never be told is known at once") {
  const ResultsWorld world({{.items = kItems, .points = {full_precision(), losing(4, 0)}}});
  CHECK(watched(world, "- {max_drop: 0.1, pooled: true}", 40).front().why == "known at the end");
  CHECK(watched(world, "- {budget: effective_bits, max_rise: 5 %, against: full}", 40).front().verdict == std::nullopt);
  CHECK(watched(world, "- {identical: true, against: full}", 40).front().verdict == std::nullopt);
  CHECK(watched(world, "- {max_drop: 0.1, min_items: 41}", 0).front().verdict == Verdict::kInconclusive);
  CHECK(watched(world, "- {max_drop: 0.1, expect: fail}", 40).front().verdict == Verdict::kFail);
  CHECK(watched(world, "- {max_drop: 0.1, expect: pass}", 40).front().verdict == Verdict::kPass);
  CHECK_THROWS_AS(watched(world, "- {identical: true}", 40), ConfigError);
}

TEST_CASE(
    "a rule that matches nothing, or only a point of the baseline, is no pass: a FAIL where all points are known") {
  const ResultsWorld world({{.items = kItems, .points = {full_precision(), losing(4, 0)}}});
  const ResultsWorld more({{.items = kItems, .points = {full_precision(), losing(4, 0), losing(3, 0)}}});
  const Results baseline = read_results(more.path());
  const auto verdicts = [&](const std::string& yaml, GateWatch::Groups known) {
    GateWatch watch(parse_gates(yaml, "g.yaml"), groups_of(world), &baseline, known);
    for (const SampleRecord& sample : world.samples()) watch.add(sample);
    return watch.verdicts();
  };
  for (const char* yaml : {"- {scheme: kivi, max_drop: 0.1}\n- {scheme: uniform, max_drop: 0.1}",
                           "- {scheme: uniform, max_drop: 0.1, against: baseline}"}) {
    const auto all = verdicts(yaml, GateWatch::Groups::kAll), so_far = verdicts(yaml, GateWatch::Groups::kSoFar);
    REQUIRE(all.size() == 2);
    CHECK(all[0].verdict == Verdict::kPass);
    CHECK(all[1].verdict == Verdict::kFail);
    CHECK(exit_status(all) == 1);
    CHECK(so_far[1].verdict == std::nullopt);
    CHECK_THAT(so_far[1].why, ContainsSubstring(" so far"));
    CHECK(exit_status(so_far) == 3);
  }
}

TEST_CASE("a directory of shards is watched as it is") {
  const ResultsWorld world({{.items = kItems, .points = {full_precision(), losing(4, 40)}}});
  const testing::TemporaryDirectory directory;
  std::map<std::string, std::string> ids;
  for (const Record& record : world.records()) ids[record.id] = record.point.label();
  {
    Store store(directory.path() / "r", ids, Shard{1, 1});
    for (const ShardGroup& group : groups_of(world)) store.append(group);
    for (const SampleRecord& sample : world.samples())
      if (sample.index < 30) store.append(std::vector{sample});
  }
  const GateFile file = parse_gates("- {name: r, max_drop: 0.1}", "g.yaml");
  const auto verdicts = watch_directory(file, directory.path() / "r", nullptr);
  REQUIRE(verdicts.size() == 1);
  CHECK(verdicts[0].verdict == Verdict::kFail);
  CHECK(verdicts[0].n == 30);
  CHECK(verdicts[0].of == 40);
  CHECK(exit_status(verdicts) == 1);
  CHECK_THAT(watch_to_terminal(file, verdicts), ContainsSubstring("1 of 1 verdicts are certain"));
  CHECK_THROWS_MATCHES(watch_directory(file, world.path(), nullptr), DataError,
                       MessageMatches(ContainsSubstring("started with --shard 1/1")));
}

TEST_CASE("the status of a watched gate is 1 with a certain FAIL, 3 while anything is open") {
  const auto one = [](std::optional<Verdict> verdict) { return WatchedVerdict{0, "", 0, 0, verdict, ""}; };
  CHECK(exit_status({one(Verdict::kPass), one(std::nullopt)}) == 3);
  CHECK(exit_status({one(Verdict::kPass), one(Verdict::kInconclusive)}) == 3);
  CHECK(exit_status({one(Verdict::kFail), one(std::nullopt)}) == 1);
  CHECK(exit_status({one(Verdict::kPass)}) == 0);
}

}  // namespace kvsweep
