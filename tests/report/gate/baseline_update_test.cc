// contract: a baseline is written from whole points only, after what changes has been shown, and is a function of the
// run; one that cannot be read says how it is made again.
#include "harness/report/gate/baseline_update.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <limits>

#include "harness/core/error.h"
#include "harness/report/gate/gate.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::full_precision;
using testing::read_text;
using testing::ResultsWorld;
using testing::TemporaryDirectory;
using testing::WorldPoint;
using testing::write_text;

namespace {

WorldPoint losing(int bits, int64_t lost) {
  return {bits, bits, "uniform", [lost](int64_t i) { return i < lost ? 0.0 : 1.0; }, ""};
}

}  // namespace

TEST_CASE("a new baseline holds every point of the run, and the run is identical to it") {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "b.jsonl";
  const ResultsWorld world({{.points = {full_precision(), losing(4, 3)}}});
  const BaselineUpdate update(file, world.path());
  CHECK(update.changes().size() == 2);
  CHECK_THAT(update.table(), ContainsSubstring("0 points changed, 2 added, 0 removed, 0 the same; a new file"));
  CHECK_FALSE(std::filesystem::exists(file));  // showing writes nothing
  update.write();
  const Results baseline = read_results(file);
  CHECK(run_gate(parse_gates("- {identical: true}", "g"), read_results(world.path()), &baseline).exit_status() == 0);
  const std::string once = read_text(file);
  BaselineUpdate(file, world.path()).write();
  CHECK(read_text(file) == once);
  CHECK_THAT(BaselineUpdate(file, world.path()).table(),
             ContainsSubstring("0 points changed, 0 added, 0 removed, 2 the same\n"));
}

TEST_CASE("an update says of each point how many items change, and score and bytes before and after") {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "b.jsonl";
  const ResultsWorld before({{.points = {full_precision(), losing(4, 3), losing(2, 20)}}});
  BaselineUpdate(file, before.path()).write();
  const ResultsWorld after({{.points = {full_precision(), losing(4, 5), losing(3, 0)}}});
  const BaselineUpdate update(file, after.path());
  const std::string table = update.table();
  INFO(table);
  CHECK_THAT(table, ContainsSubstring("1 points changed, 1 added, 1 removed, 1 the same"));
  CHECK_THAT(table, ContainsSubstring("2 of 40"));
  CHECK_THAT(table, ContainsSubstring("0.925") && ContainsSubstring("0.875"));
  const auto kind = [&](BaselineChange::Kind wanted) {
    return std::count_if(update.changes().begin(), update.changes().end(),
                         [&](const BaselineChange& change) { return change.kind == wanted; });
  };
  CHECK(kind(BaselineChange::Kind::kChanged) == 1);
  CHECK(kind(BaselineChange::Kind::kRemoved) == 1);
  update.write();
  CHECK(read_results(file).records().size() == 3);
}

TEST_CASE("points that failed, were not engaged or have no numbers are no baseline") {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "b.jsonl";
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const ResultsWorld failed({{.points = {full_precision(), {4, 4, "uniform", [](int64_t) { return 1.0; }, "failed"}}}});
  CHECK_THROWS_MATCHES(BaselineUpdate(file, failed.path()), DataError,
                       MessageMatches(ContainsSubstring("1 of 2 points cannot be a baseline") &&
                                      ContainsSubstring("failed: out of memory")));
  const ResultsWorld broken({{.points = {full_precision(), {4, 4, "uniform", [=](int64_t) { return nan; }, ""}}}});
  CHECK_THROWS_MATCHES(BaselineUpdate(file, broken.path()), DataError,
                       MessageMatches(ContainsSubstring("not numbers")));
  const ResultsWorld idle({{.points = {full_precision(), losing(4, 0)}}});
  std::string text = read_text(idle.records_file());
  text.replace(text.rfind("\"ok\""), 4, "\"not_engaged\"");
  write_text(idle.records_file(), text);
  CHECK_THROWS_MATCHES(BaselineUpdate(file, idle.path()), DataError, MessageMatches(ContainsSubstring("not engaged")));
  CHECK_FALSE(std::filesystem::exists(file));
}

TEST_CASE("a baseline of another schema says how it is made again, and an update replaces it") {
  const TemporaryDirectory directory;
  const auto file = directory.path() / "b.jsonl";
  const ResultsWorld world({{.points = {full_precision(), losing(4, 3)}}});
  BaselineUpdate(file, world.path()).write();
  std::string text = read_text(file);
  const std::string now = "\"schema\":" + std::to_string(kRecordSchema);
  REQUIRE(text.find(now) != std::string::npos);
  for (size_t at = 0; (at = text.find(now, at)) != std::string::npos;) text.replace(at, now.size(), "\"schema\":2");
  write_text(file, text);
  CHECK_THROWS_MATCHES(read_results(file), StaleRecord,
                       MessageMatches(ContainsSubstring("b.jsonl:2: schema is 2, this program reads schema 3") &&
                                      ContainsSubstring("`kvsweep gate --update-baseline " + file.string()) &&
                                      !ContainsSubstring("<this directory>")));
  const BaselineUpdate update(file, world.path());
  CHECK_THAT(update.table(), ContainsSubstring("another schema"));
  update.write();
  CHECK(read_results(file).records().size() == 2);
}

TEST_CASE("an update never replaces a file that is no baseline") {
  const TemporaryDirectory directory;
  const ResultsWorld world({{.points = {full_precision(), losing(4, 3)}}});
  const auto file = directory.path() / "notes.txt";
  write_text(file, "my notes\n");
  CHECK_THROWS_MATCHES(BaselineUpdate(file, world.path()), DataError,
                       MessageMatches(ContainsSubstring("neither a results directory nor a baseline")));
  CHECK(read_text(file) == "my notes\n");
  CHECK_THROWS_AS(BaselineUpdate(directory.path(), world.path()), ConfigError);
}

}  // namespace kvsweep
