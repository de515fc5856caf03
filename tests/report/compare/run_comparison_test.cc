// contract: two runs are compared point by point under the same rules; what is missing or of other rules is said.
#include "harness/report/compare/run_comparison.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "harness/core/error.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::full_precision;
using testing::ResultsWorld;
using testing::WorldGroup;
using testing::write_text;
using Outcome = RunComparison::Outcome;

namespace {

std::function<double(int64_t)> losing(int64_t items) {
  return [items](int64_t i) { return i < items ? 0.0 : 1.0; };
}

void rewrite_records(const ResultsWorld& world, const std::function<void(Record&)>& change) {
  std::string text;
  for (Record record : world.records()) {
    change(record);
    text += to_json_line(record) + '\n';
  }
  write_text(world.records_file(), text);
}

}  // namespace

TEST_CASE("points are identical, differ without a difference shown, lose, gain, or are missing") {
  const ResultsWorld a({{.points = {full_precision(),
                                    {4, 4, "uniform", losing(3)},
                                    {2, 2, "uniform", losing(3)},
                                    {8, 8, "uniform", losing(20)},
                                    {3, 3},
                                    {5, 5}}}});
  const ResultsWorld b({{.points = {full_precision(),
                                    {4, 4, "uniform", losing(5)},
                                    {2, 2, "uniform", losing(30)},
                                    {8, 8, "uniform", losing(2)},
                                    {3, 3, "uniform", {}, "failed"},
                                    {6, 6}}}});
  const Results first = read_results(a.path()), second = read_results(b.path());
  const RunComparison comparison = compare_runs(first, second);
  CHECK(comparison.pairs.size() == 7);
  CHECK(comparison.count(Outcome::kIdentical) == 1);
  CHECK(comparison.count(Outcome::kNoDifference) == 1);
  CHECK(comparison.count(Outcome::kLoss) == 1);
  CHECK(comparison.count(Outcome::kGain) == 1);
  CHECK(comparison.count(Outcome::kNotCompared) == 1);
  CHECK(comparison.count(Outcome::kOnlyA) == 1);
  CHECK(comparison.count(Outcome::kOnlyB) == 1);
  const std::string text = render(comparison, first, second, false);
  CHECK_THAT(text, ContainsSubstring("1 points with a loss in B") && ContainsSubstring("none shown; ") &&
                       ContainsSubstring("+0.6750 [") && ContainsSubstring("27/0") &&
                       ContainsSubstring("failed in " + b.path().string() + ": out of memory"));
  CHECK_THAT(render(comparison, first, second, true), ContainsSubstring("| loss |") || ContainsSubstring("| loss"));
}

TEST_CASE("a run against itself is identical") {
  const ResultsWorld world({{.points = {full_precision(), {4, 4, "uniform", losing(3)}}}});
  const Results results = read_results(world.path());
  CHECK(compare_runs(results, results).count(Outcome::kIdentical) == 2);
}

TEST_CASE("points of other rules are not compared, unless the field may differ") {
  const WorldGroup group{.points = {full_precision(), {4, 4}}};
  const ResultsWorld a({group}), b({group});
  rewrite_records(b, [](Record& record) { record.env.weights_sha256 = std::string(64, 'f'); });
  const Results first = read_results(a.path()), second = read_results(b.path());
  const RunComparison refused = compare_runs(first, second);
  CHECK(refused.count(Outcome::kNotCompared) == 2);
  CHECK_THAT(refused.pairs[0].gap, ContainsSubstring("not comparable: weights: "));
  const RunComparison allowed = compare_runs(first, second, allowed_fields({"weights"}));
  CHECK(allowed.count(Outcome::kIdentical) == 2);
  CHECK_THAT(render(allowed, first, second, false), ContainsSubstring("allowed to differ: weights: "));
}

TEST_CASE("views may be compared when that is asked for, and only when points stay apart") {
  const WorldGroup group{.points = {full_precision(), {4, 4}}};
  const ResultsWorld a({group}), b({group});
  rewrite_records(b, [](Record& record) { record.point.view = "chunked:128"; });
  const Results first = read_results(a.path()), second = read_results(b.path());
  CHECK_THROWS_MATCHES(compare_runs(first, second), DataError, MessageMatches(ContainsSubstring("no point in common")));
  CHECK(compare_runs(first, second, {"view"}).count(Outcome::kIdentical) == 2);
  WorldGroup longer = group;
  longer.tokens = "1024";
  const ResultsWorld both({group, longer});
  CHECK_THROWS_MATCHES(compare_runs(read_results(both.path()), second, {"task_params"}), ConfigError,
                       MessageMatches(ContainsSubstring("cannot be told apart when task_params may differ")));
}

TEST_CASE("fewer items are another sample set; allowed, those that both have are compared") {
  WorldGroup group{.points = {full_precision(), {4, 4, "uniform", losing(3)}}};
  const ResultsWorld a({group});
  const ResultsWorld b({group});
  std::string samples;
  for (const SampleRecord& sample : b.samples())
    if (sample.index >= 2) samples += to_json_line(sample) + '\n';
  write_text(b.samples_file(), samples);
  const Results first = read_results(a.path()), second = read_results(b.path());
  CHECK(compare_runs(first, second).count(Outcome::kNotCompared) == 2);
  const RunComparison allowed = compare_runs(first, second, {"samples"});
  REQUIRE(allowed.pairs[1].loss);
  CHECK(allowed.pairs[1].loss->n == 38);
  CHECK(allowed.pairs[1].loss->unpaired == 2);
}

}  // namespace kvsweep
