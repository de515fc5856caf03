// contract: Params reads, defaults, ranges and names what is wrong.
#include "harness/core/params.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {
Params with(std::map<std::string, ParamValue> values) {
  return Params("uniform", "sweep.yaml", std::move(values));
}
}  // namespace

TEST_CASE("a parameter out of range names file, line, key, value and range") {
  Params params = with({{"k_bits", {"9", 12}}});
  CHECK_THROWS_MATCHES(params.integer("k_bits", 4, 1, 8, "bits of a key"), ConfigError,
                       MessageMatches(ContainsSubstring("sweep.yaml:12: uniform.k_bits = 9 is outside [1, 8]")));
}

TEST_CASE("an unread key names its nearest neighbour") {
  Params params = with({{"k_bitz", {"4", 3}}});
  params.integer("k_bits", 4, 1, 8, "");
  CHECK_THROWS_MATCHES(
      params.finish(), ConfigError,
      MessageMatches(ContainsSubstring("sweep.yaml:3: uniform.k_bitz") && ContainsSubstring("did you mean 'k_bits'?")));
}

TEST_CASE("a number with trailing characters is not a number") {
  for (const char* text : {"4x", "", " 4", "0x4", "4.0", "99999999999999999999"}) {
    INFO("'" << text << "'");
    Params params = with({{"k_bits", {text, 1}}});
    CHECK_THROWS_AS(params.integer("k_bits", 4, 1, 8, ""), ConfigError);
  }
  Params params = with({{"ratio", {"nan", 1}}});
  CHECK_THROWS_AS(params.number("ratio", 0.5, 0, 1, ""), ConfigError);
}

TEST_CASE("a choice that is not allowed lists what is") {
  Params params = with({{"axis", {"tokn", 1}}});
  CHECK_THROWS_MATCHES(
      params.choice("axis", "token", {"token", "channel"}, ""), ConfigError,
      MessageMatches(ContainsSubstring("token, channel") && ContainsSubstring("did you mean 'token'")));
}

TEST_CASE("a describing Params records declarations and never throws") {
  Params params = Params::describe("uniform");
  CHECK(params.integer("k_bits", std::nullopt, 1, 8, "bits of a key") == 1);
  params.finish();
  REQUIRE(params.declarations().size() == 1);
  CHECK(params.declarations()[0].required);
  CHECK(params.declarations()[0].allowed == "[1, 8]");
}

TEST_CASE("a value may differ from layer to layer") {
  Params params = with({{"k_bits", {"4", 7, {{0, 0, "8", 7}, {28, 29, "2", 8}}}}});
  const PerLayer<int64_t> bits = params.layer_integers("k_bits", 3, 1, 8, "bits of a key");
  params.finish();
  std::vector<int64_t> expected(30, 4);
  expected[0] = 8;
  expected[28] = expected[29] = 2;
  CHECK(bits.values(30) == expected);
  CHECK(bits.distinct() == std::set<int64_t>{2, 4, 8});
  for (const auto& [layer, value] : {std::pair{0, 8}, {1, 4}, {27, 4}, {28, 2}, {29, 2}, {1000, 4}})
    CHECK(bits.at(layer) == value);
  CHECK(mean_of(bits, 30) == (8 + 27 * 4 + 2 * 2) / 30.0);
  CHECK(params.resolved()[0].second == "{default: 4, layers: {0: 8, 28-29: 2}}");
  CHECK_THROWS_MATCHES(
      bits.values(29), ConfigError,
      MessageMatches(ContainsSubstring("sweep.yaml:7: uniform.k_bits names layer 29; the model has layers 0 to 28")));
}

TEST_CASE("one value or none is a value for every layer") {
  Params params = with({{"k_bits", {"2", 7}}});
  CHECK(params.layer_integers("k_bits", 3, 1, 8, "").values(3) == std::vector<int64_t>{2, 2, 2});
  CHECK(params.layer_integers("v_bits", 3, 1, 8, "").values(2) == std::vector<int64_t>{3, 3});
  CHECK(params.layer_choices("kind", "b", {"a", "b"}, "").values(2) == std::vector<std::string>{"b", "b"});
  CHECK(params.resolved() ==
        std::vector<std::pair<std::string, std::string>>{{"k_bits", "2"}, {"v_bits", "3"}, {"kind", "b"}});
}

TEST_CASE("two ways to write the same layers resolve to the same text") {
  const auto resolved = [](std::vector<LayerText> layers) {
    Params params = with({{"kind", {"a", 1, std::move(layers)}}});
    params.layer_choices("kind", "a", {"a", "b"}, "");
    return params.resolved()[0].second;
  };
  const std::string joined = resolved({{2, 5, "b", 1}});
  CHECK(joined == "{default: a, layers: {2-5: b}}");
  CHECK(resolved({{2, 3, "b", 1}, {4, 4, "b", 1}, {5, 5, "b", 1}}) == joined);
  CHECK(resolved({{0, 1, "a", 1}, {2, 5, "b", 1}, {7, 9, "a", 1}}) == joined);
  CHECK(resolved({{2, 3, "b", 1}, {5, 5, "b", 1}}) == "{default: a, layers: {2-3: b, 5: b}}");
  CHECK(resolved({{0, 99, "a", 1}}) == "a");
}

TEST_CASE("a value of some layers is checked like any other, and named with them") {
  Params bits = with({{"k_bits", {"4", 3, {{28, 29, "9", 4}}}}});
  CHECK_THROWS_MATCHES(
      bits.layer_integers("k_bits", 4, 1, 8, ""), ConfigError,
      MessageMatches(ContainsSubstring("sweep.yaml:3: uniform.k_bits of layers 28-29 = 9 is outside [1, 8]")));
  Params kind = with({{"kind", {"a", 3, {{4, 4, "c", 4}}}}});
  CHECK_THROWS_MATCHES(kind.layer_choices("kind", "a", {"a", "b"}, ""), ConfigError,
                       MessageMatches(ContainsSubstring("uniform.kind of layers 4 = 'c' is not one of a, b")));
  Params plain = with({{"window", {"4", 3, {{0, 0, "8", 3}}}}});
  CHECK_THROWS_MATCHES(
      plain.integer("window", 4, 0, 8, ""), ConfigError,
      MessageMatches(ContainsSubstring("uniform.window is a map of layers; it has one value for all layers")));
}

TEST_CASE("help says what may be a map, and describing needs no value") {
  Params params = Params::describe("uniform");
  CHECK(params.layer_integers("k_bits", std::nullopt, 2, 8, "").values(1) == std::vector<int64_t>{2});
  CHECK(params.layer_choices("kind", std::nullopt, {"a", "b"}, "").values(1) == std::vector<std::string>{"a"});
  CHECK(params.declarations()[0].type == "integer or map");
  CHECK(params.declarations()[1].type == "choice or map");
  CHECK(params.declarations()[1].allowed == "a|b");
}

TEST_CASE("a file is found beside the YAML and resolved by its content") {
  const testing::TemporaryDirectory directory;
  testing::write_text(directory.path() / "art.safetensors", "abc");
  const auto params_with = [&](const std::string& text) {
    return Params("uniform", (directory.path() / "sweep.yaml").string(), {{"artifact", {text, 5}}});
  };
  Params beside = params_with("art.safetensors");
  CHECK(beside.file("artifact", "") == directory.path() / "art.safetensors");
  // SHA-256 of "abc" begins with ba7816bf8f01cfea (FIPS 180-2, B.1).
  CHECK(beside.resolved()[0].second == "art.safetensors sha256:ba7816bf8f01cfea");
  std::filesystem::create_directory(directory.path() / "below");
  testing::write_text(directory.path() / "below/art.safetensors", "abc");
  Params absolute = params_with((directory.path() / "below/art.safetensors").string());
  absolute.file("artifact", "");
  CHECK(absolute.resolved() == beside.resolved());
  Params missing = params_with("none.safetensors");
  CHECK_THROWS_MATCHES(missing.file("artifact", ""), ConfigError,
                       MessageMatches(ContainsSubstring("sweep.yaml:5: uniform.artifact = 'none.safetensors' is no "
                                                        "file; looked at ") &&
                                      ContainsSubstring((directory.path() / "none.safetensors").string())));
  Params folder = params_with("below");
  CHECK_THROWS_AS(folder.file("artifact", ""), ConfigError);
  Params absent = with({});
  CHECK_THROWS_MATCHES(absent.file("artifact", "of `kvsweep calibrate`"), ConfigError,
                       MessageMatches(ContainsSubstring("uniform.artifact is required: of `kvsweep calibrate`")));
  Params described = Params::describe("uniform");
  CHECK(described.file("artifact", "").empty());
}

TEST_CASE("resolved values keep the order of declaration and include defaults") {
  Params params = with({{"b", {"2", 1}}});
  params.integer("a", 1, 0, 9, "");
  params.integer("b", 1, 0, 9, "");
  CHECK(params.resolved() == std::vector<std::pair<std::string, std::string>>{{"a", "1"}, {"b", "2"}});
}

}  // namespace kvsweep
