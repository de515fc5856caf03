// golden: inverse frequencies and attention scaling equal transformers' (5.2.0) to 1e-6 relative.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "harness/core/error.h"
#include "models/llama_config.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::WithinRel;
using nlohmann::json;

namespace {

RopeConfig config_of(const json& facts) {
  RopeConfig rope;
  rope.type = facts["rope_type"].get<std::string>();
  rope.theta = facts["rope_theta"].get<double>();
  rope.factor = facts.value("factor", rope.factor);
  rope.low_freq_factor = facts.value("low_freq_factor", rope.low_freq_factor);
  rope.high_freq_factor = facts.value("high_freq_factor", rope.high_freq_factor);
  rope.original_max_positions = facts.value("original_max_position_embeddings", int64_t{0});
  rope.truncate = facts.value("truncate", true);
  return rope;
}

void check_close(const std::vector<float>& got, const std::vector<float>& expected) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    INFO("pair " << i);
    CHECK_THAT(static_cast<double>(got[i]), WithinRel(static_cast<double>(expected[i]), 1e-6));
  }
}

}  // namespace

TEST_CASE("rope tables equal transformers'", "[golden]") {
  const auto files = testing::golden_files("models/rope_tables[.]json");
  REQUIRE_FALSE(files.empty());
  for (const auto& path : files) {
    for (const json& facts : json::parse(testing::read_text(path))) {
      INFO(path.string() << " " << facts["name"]);
      const int64_t head_dim = facts["head_dim"].get<int64_t>();
      const RopeTable table =
          rope_table(config_of(facts["rope"]), head_dim, facts["max_position_embeddings"].get<int64_t>());
      check_close(table.inv_freq, facts["inv_freq"].get<std::vector<float>>());
      CHECK_THAT(static_cast<double>(table.attention_scaling),
                 WithinRel(facts["attention_scaling"].get<double>(), 1e-6));
    }
  }
}

TEST_CASE("the config of a checkpoint gives transformers' rope table", "[golden]") {
  const auto files = testing::golden_files("models/tiny_hf/[^/]*/expected[.]json");
  REQUIRE_FALSE(files.empty());
  for (const auto& path : files) {
    INFO(path.string());
    const json expected = json::parse(testing::read_text(path));
    const LlamaConfig config = read_hf_config(path.parent_path() / "config.json");
    CHECK(config.head_dim == expected["head_dim"].get<int64_t>());
    const RopeTable table = rope_table(config.rope, config.head_dim, config.max_positions);
    check_close(table.inv_freq, expected["inv_freq"].get<std::vector<float>>());
    CHECK_THAT(static_cast<double>(table.attention_scaling),
               WithinRel(expected["attention_scaling"].get<double>(), 1e-6));
  }
}

// A GGUF file of a llama3 model has the ratio of default to scaled frequencies instead of the type's parameters.
TEST_CASE("frequency factors are a llama3 table in another form", "[golden]") {
  for (const auto& path : testing::golden_files("models/rope_tables[.]json")) {
    for (const json& facts : json::parse(testing::read_text(path))) {
      if (facts["rope"]["rope_type"] != "llama3") continue;
      INFO(path.string() << " " << facts["name"]);
      const auto expected = facts["inv_freq"].get<std::vector<float>>();
      const int64_t head_dim = facts["head_dim"].get<int64_t>();
      RopeConfig rope;
      rope.theta = facts["rope"]["rope_theta"].get<double>();
      for (size_t i = 0; i < expected.size(); ++i)
        rope.freq_factors.push_back(
            std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)) /
            static_cast<double>(expected[i]));
      CHECK(*std::max_element(rope.freq_factors.begin(), rope.freq_factors.end()) > 7);
      check_close(rope_table(rope, head_dim, 131072).inv_freq, expected);
    }
  }
}

TEST_CASE("yarn's attention scaling follows the config where that states one") {
  RopeConfig rope;
  rope.type = "yarn";
  rope.factor = 40;
  rope.original_max_positions = 4096;
  CHECK_THAT(static_cast<double>(rope_table(rope, 64, 163840).attention_scaling),
             WithinRel(0.1 * std::log(40.0) + 1, 1e-6));
  rope.mscale = 0.5;
  CHECK_THAT(static_cast<double>(rope_table(rope, 64, 163840).attention_scaling),
             WithinRel(0.1 * std::log(40.0) + 1, 1e-6));  // both or none
  rope.mscale_all_dim = 2;
  CHECK_THAT(static_cast<double>(rope_table(rope, 64, 163840).attention_scaling),
             WithinRel((0.05 * std::log(40.0) + 1) / (0.2 * std::log(40.0) + 1), 1e-6));
  rope.attention_factor = 0.75;
  CHECK(rope_table(rope, 64, 163840).attention_scaling == 0.75f);
}

TEST_CASE("a rope type that is not known is an error") {
  RopeConfig rope;
  rope.type = "dynamic";
  CHECK_THROWS_AS(rope_table(rope, 64, 2048), DataError);
  rope.type = "default";
  rope.freq_factors = {1, 2, 3};
  CHECK_THROWS_AS(rope_table(rope, 64, 2048), DataError);
}

}  // namespace kvsweep
