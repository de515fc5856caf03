// oracle: the contrast of keys and values is a paired difference, and slopes are those of a plane through the points.
#include "harness/report/analysis/key_or_value.h"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
using testing::full_precision;
using testing::ResultsWorld;

namespace {

testing::WorldGroup group(const std::string& tokens) {
  testing::WorldGroup out;
  out.tokens = tokens;
  const auto every = [](int64_t n) { return [n](int64_t i) { return i % n == 0 ? 0.0 : 1.0; }; };
  out.points = {
      full_precision(), {2, 4, "uniform", every(2)}, {4, 2, "uniform", every(10)}, {2, 2, "uniform", every(2)}, {4, 4}};
  return out;
}

}  // namespace

TEST_CASE("low keys against low values is a paired difference") {
  const ResultsWorld world({group("512"), group("1024")});
  const Analysis analysis = analyse(read_results(world.path()));
  const Families families(analysis.results().records());
  const KeyOrValue out = key_or_value(analysis, families);
  REQUIRE(out.groups.size() == 2);
  const KeyValueContrast& one = out.groups.front();
  CHECK(one.family == "uniform");
  CHECK(one.low == 2);
  CHECK(one.high == 4);
  const Comparison& score = one.score.value();
  // Of 40: low keys miss 20, low values 4 of these.
  CHECK(score.lost == 16);
  CHECK(score.gained == 0);
  CHECK(score.loss == Approx(16.0 / 40));
  CHECK(sensitive(score) == "keys");
  CHECK(one.kl.value().loss == Approx(1.0 / 4 - 1.0 / 16));
  const auto pooled = std::find_if(out.pools.begin(), out.pools.end(),
                                   [](const KeyValueContrast& c) { return c.pool->kind == "retrieval"; });
  REQUIRE(pooled != out.pools.end());
  CHECK(pooled->score.value().n == 80);
  CHECK(pooled->score.value().loss == Approx(16.0 / 40));
  CHECK(pooled->records.size() == 4);
}

TEST_CASE("a pair of which one failed is a gap, not a contrast of the rest") {
  auto second = group("1024");
  second.points[1].status = "failed";
  const ResultsWorld world({group("512"), second});
  const Analysis analysis = analyse(read_results(world.path()));
  const KeyOrValue out = key_or_value(analysis, Families(analysis.results().records()));
  CHECK(out.groups.size() == 1);
  for (const KeyValueContrast& pooled : out.pools) {
    CHECK_FALSE(pooled.score);
    CHECK_THAT(pooled.gap, ContainsSubstring("1024 tokens: not both measured"));
  }
}

TEST_CASE("slopes need four points that vary in both") {
  const ResultsWorld world({group("512")});
  const Analysis analysis = analyse(read_results(world.path()));
  const KeyOrValue out = key_or_value(analysis, Families(analysis.results().records()));
  REQUIRE(out.costs.size() == 1);
  const KeyValueCosts& costs = out.costs.front();
  // live = values * (K + V) / 16 of 576 values in 24 tokens: 1.5 bytes a token and bit, of keys and of values
  const KeyValueSlopes& bytes = costs.bytes_per_token.value();
  CHECK(bytes.keys == Approx(1.5));
  CHECK(bytes.values == Approx(1.5));
  CHECK(bytes.difference_p == 1);
  CHECK(bytes.at_mean == Approx(1.5 * 6));
  CHECK(costs.sequences == Approx(1073741824.0 / (9.0 * 512)));
  CHECK(costs.sequences_per_key_bit == Approx(1073741824.0 / (7.5 * 512) - costs.sequences));

  auto diagonal = group("512");
  diagonal.points = {full_precision(), {2, 2}, {3, 3}, {4, 4}, {8, 8}};
  const ResultsWorld line({diagonal});
  const Analysis of_line = analyse(read_results(line.path()));
  const KeyOrValue none = key_or_value(of_line, Families(of_line.results().records()));
  CHECK_FALSE(none.costs.front().bytes_per_token);
  CHECK(none.costs.front().bytes_gap == "K and V bits never vary apart");
  CHECK(none.groups.empty());
}

TEST_CASE("a name of a configuration has what differs beyond its bits") {
  std::vector<Record> records(2, testing::example_record());
  records[0].point.scheme_params = {
      {"k_bits", "4"}, {"v_bits", "2"}, {"group", "64"}, {"window", "0"}, {"k_type", "q4"}};
  records[1].point.scheme_params = {
      {"k_bits", "8"}, {"v_bits", "2"}, {"group", "64"}, {"window", "128"}, {"k_type", "q8"}};
  records[1].nominal_k_bits = 8;
  CHECK(Families(records).configuration(records[0]) == "uniform window=0 K4 V2");
  CHECK(Families(records).configuration(records[1]) == "uniform window=128 K8 V2");
  records[1].nominal_k_bits = 4.5;  // no longer what k_bits says
  CHECK(Families(records).family(records[1]) == "uniform k_bits=8 window=128");
}

}  // namespace kvsweep
