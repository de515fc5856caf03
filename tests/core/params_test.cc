// contract: Params reads, defaults, ranges and names what is wrong.
#include "harness/core/params.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"

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

TEST_CASE("resolved values keep the order of declaration and include defaults") {
  Params params = with({{"b", {"2", 1}}});
  params.integer("a", 1, 0, 9, "");
  params.integer("b", 1, 0, 9, "");
  CHECK(params.resolved() == std::vector<std::pair<std::string, std::string>>{{"a", "1"}, {"b", "2"}});
}

}  // namespace kvsweep
