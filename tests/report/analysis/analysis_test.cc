// oracle and contract: losses are paired by item, a table never averages over what is missing, and what may not be
// compared is not.
#include "harness/report/analysis/analysis.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "harness/core/error.h"
#include "harness/report/analysis/analysis_json.h"
#include "harness/report/analysis/tag_means.h"
#include "harness/report/statistics/proportion.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::full_precision;
using testing::ResultsWorld;
using testing::write_text;

namespace {

const Row& row_of(const Analysis& analysis, size_t group, const std::string& configuration) {
  const Row* row = analysis.groups().at(group).find(configuration);
  REQUIRE(row != nullptr);
  return *row;
}

constexpr const char* k4 = "uniform k_bits=4 v_bits=4";
constexpr const char* k2 = "uniform k_bits=2 v_bits=2";

}  // namespace

TEST_CASE("a 0/1 score is compared by its lost and gained items") {
  // Full precision misses every tenth, 2 bits every fourth: of 40 items 0, 20 are wrong in both.
  const ResultsWorld world({{.points = {full_precision([](int64_t i) { return i % 10 != 0; }),
                                        {2, 2, "uniform", [](int64_t i) { return i % 4 != 0; }}}}});
  const Analysis analysis = analyse(read_results(world.path()));
  REQUIRE(analysis.groups().size() == 1);
  const Row& row = row_of(analysis, 0, k2);
  CHECK(row.gap.empty());
  const Comparison& c = row.loss.value();
  CHECK(c.n == 40);
  CHECK(c.binary);
  CHECK(c.lost == 8);    // 4, 8, 12, 16, 24, 28, 32, 36
  CHECK(c.gained == 2);  // 10, 30
  CHECK(c.loss == Approx(6.0 / 40));
  CHECK(c.reference_mean == Approx(36.0 / 40));
  CHECK(c.own_mean == Approx(30.0 / 40));
  CHECK(c.method == "Newcombe");
  CHECK(c.interval == newcombe_paired({28, 8, 2, 2}));
  CHECK(c.p == mcnemar(8, 2).two_sided);
  CHECK(c.p_adjusted == c.p);
  CHECK(c.detectable > 0);
  CHECK(row.score == wilson(30, 40));
  CHECK(row.failures.items == 8);
  CHECK(*row.failures.dominant() == "other answer");
}

TEST_CASE("where less is better a loss is what was added, and perplexities are compared as ratios") {
  const ResultsWorld world(
      {{.metric = "nll",
        .kind = "language_modeling",
        .exponential = true,
        .higher_is_better = false,
        .points = {full_precision([](int64_t i) { return 2.0 + 0.01 * static_cast<double>(i); }),
                   {4, 4, "uniform", [](int64_t i) { return 2.1 + 0.01 * static_cast<double>(i); }}}}});
  const Analysis analysis = analyse(read_results(world.path()));
  const Comparison& c = row_of(analysis, 0, k4).loss.value();
  CHECK(c.loss == Approx(0.1));
  CHECK(c.lost == 40);
  CHECK(c.ratio_value.value() == Approx(std::exp(0.1)));
  CHECK(c.interval.low == Approx(0.1).margin(1e-9));  // every item lost the same
  CHECK(*row_of(analysis, 0, k4).failures.dominant() == "other answer");
}

TEST_CASE("items of one document are one draw") {
  const auto score = [](int64_t i) { return i < 20 ? 0.5 : 1.0; };
  testing::WorldGroup group{.metric = "f1", .points = {full_precision(), {4, 4, "uniform", score}}};
  const double apart = analyse(read_results(ResultsWorld({group}).path())).groups()[0].rows[1].loss->standard_error;
  group.tags = [](int64_t i) { return std::map<std::string, std::string>{{"document", std::to_string(i / 10)}}; };
  const ResultsWorld world({group});
  const Comparison clustered = analyse(read_results(world.path())).groups()[0].rows[1].loss.value();
  CHECK(clustered.clusters == 4);
  CHECK(clustered.standard_error > 2 * apart);
}

TEST_CASE("a score that is not a number leaves no loss and says so") {
  const ResultsWorld world(
      {{.points = {full_precision(), {4, 4, "uniform", [](int64_t i) { return i == 7 ? NAN : 1.0; }}, {2, 2}}}});
  const Analysis analysis = analyse(read_results(world.path()));
  const Comparison& c = row_of(analysis, 0, k4).loss.value();
  CHECK(c.not_numbers == 1);
  CHECK(std::isnan(c.loss));
  CHECK(std::isnan(c.interval.low));
  CHECK(!row_of(analysis, 0, k4).score);
  CHECK(row_of(analysis, 0, k2).loss->p_adjusted == 1);
  REQUIRE(analysis.pools().size() == 2);
  for (const Pool& pool : analysis.pools())
    for (const PooledRow& row : pool.rows) CHECK(row.loss.has_value() == (row.configuration == k2));
}

TEST_CASE("what failed, was not run or is not comparable is a gap with its reason, never part of an average") {
  ResultsWorld world({{.points = {full_precision(), {4, 4}, {2, 2, "uniform", [](int64_t) { return 0.0; }}}},
                      {.tokens = "1024", .points = {full_precision(), {4, 4, "uniform", {}, "failed"}, {2, 2}}},
                      {.tokens = "2048", .points = {full_precision(), {2, 2}}}});
  const Analysis analysis = analyse(read_results(world.path()));
  REQUIRE(analysis.groups().size() == 3);
  CHECK(row_of(analysis, 1, k4).gap == "failed: out of memory");
  CHECK(!row_of(analysis, 1, k4).loss);
  for (const Pool& pool : analysis.pools()) {
    REQUIRE(pool.rows.size() == 2);
    const PooledRow& gap = pool.rows[0].configuration == k4 ? pool.rows[0] : pool.rows[1];
    CHECK(!gap.loss);
    CHECK_THAT(gap.gap,
               ContainsSubstring("1024 tokens: failed: out of memory") && ContainsSubstring("2048 tokens: not run"));
    const PooledRow& whole = pool.rows[0].configuration == k4 ? pool.rows[1] : pool.rows[0];
    CHECK(whole.loss->loss == Approx(1.0 / 3));  // of three groups one lost everything
    CHECK(whole.loss->n == 120);
  }
}

TEST_CASE("a row that was measured under other rules is not compared unless that is allowed") {
  ResultsWorld world({{.points = {full_precision(), {4, 4}}}});
  std::string text;
  for (Record record : world.records()) {
    if (record.nominal_k_bits == 4) record.env.dtype = "bfloat16";
    text += to_json_line(record) + '\n';
  }
  write_text(world.records_file(), text);
  const Analysis refused = analyse(read_results(world.path()));
  CHECK(row_of(refused, 0, k4).gap == "not comparable: dtype: float32 against bfloat16");
  const Analysis allowed = analyse(read_results(world.path()), {}, allowed_fields({"dtype"}));
  CHECK(row_of(allowed, 0, k4).loss.has_value());
  CHECK(analysis_json(allowed).find(R"("allowed":["dtype"])") != std::string::npos);
  CHECK_THROWS_MATCHES(allowed_fields({"colour"}), ConfigError,
                       MessageMatches(ContainsSubstring("allowed: model, weights")));
}

TEST_CASE("p is adjusted within a table") {
  const auto lose = [](int64_t items) { return [items](int64_t i) { return i < items ? 0.0 : 1.0; }; };
  const ResultsWorld world(
      {{.points = {
            full_precision(), {4, 4, "uniform", lose(6)}, {2, 2, "uniform", lose(20)}, {3, 3, "uniform", lose(0)}}}});
  const Analysis analysis = analyse(read_results(world.path()));
  const Comparison& c = row_of(analysis, 0, k4).loss.value();
  CHECK(c.p == 0.03125);
  CHECK(c.p_adjusted == 0.0625);  // second of three
  CHECK(!c.significant());
  CHECK(row_of(analysis, 0, k2).loss->significant());
}

TEST_CASE("scores by tag are means of their items") {
  const ResultsWorld world(
      {{.points = {full_precision(), {2, 2, "uniform", [](int64_t i) { return i % 5 == 4 ? 0.0 : 1.0; }}}}});
  const Results results = read_results(world.path());
  const auto means = tag_means(results, *results.samples(results.records()[1].id), "exact_match");
  REQUIRE(means.size() == 1);
  CHECK(means[0].tag == "depth");
  REQUIRE(means[0].means.size() == 5);
  CHECK(means[0].means[1].value == "25");
  CHECK(means[0].means[1].mean == 1);
  CHECK(means[0].means[4].value == "100");
  CHECK(means[0].means[4].mean == 0);
  CHECK(means[0].means[4].n == 8);
}

TEST_CASE("the Pareto front holds what nothing beats in both") {
  CHECK(pareto_front({2, 3, 4, 4, 8, 1}, {0.5, 0.3, 0.3, 0.1, 0.2, NAN}) == std::vector<size_t>{0, 1, 3});
  CHECK(pareto_front({2, 2}, {0.5, 0.5}) == std::vector<size_t>{0, 1});
}

TEST_CASE("the JSON of an analysis is whole and has null where there is no number") {
  const ResultsWorld world({{.points = {full_precision(),
                                        {4, 4, "uniform", [](int64_t i) { return i == 7 ? NAN : 1.0; }},
                                        {2, 2, "uniform", {}, "failed"}}}});
  const auto json = nlohmann::json::parse(analysis_json(analyse(read_results(world.path())), {.kl_buckets = 2}));
  CHECK(json.at("kvsweep_analysis") == 1);
  const auto& rows = json.at("groups").at(0).at("rows");
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].at("is_reference") == true);
  CHECK(rows[1].at("status") == "failed");
  CHECK(rows[1].at("score").is_null());
  CHECK(rows[1].at("effective_bits").is_null());
  CHECK(rows[2].at("loss").at("loss").is_null());
  CHECK(rows[2].at("loss").at("not_numbers") == 1);
  CHECK(rows[2].at("kl_by_position").size() == 2);
  CHECK(rows[2].at("kl_by_position").at(0).at("n") == 80);  // 2 of 3 positions of 40 samples
  CHECK(rows[2].at("by_tag").at("depth").size() == 5);
  CHECK(json.at("pools").at(0).at("groups") == nlohmann::json::array({0}));
}

}  // namespace kvsweep
