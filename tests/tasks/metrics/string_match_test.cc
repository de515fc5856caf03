// golden: string_match_all against RULER's own scores (numbers made by its evaluation script).
#include "tasks/metrics/string_match.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support/golden.h"

namespace kvsweep {

TEST_CASE("string match gives RULER's scores", "[golden]") {
  const auto files = testing::golden_files("(.*/)?ruler_match[^/]*[.]json");
  if (files.empty()) SKIP("no ruler_match.json in a golden root");
  for (const auto& file : files) {
    for (const auto& item : nlohmann::json::parse(testing::read_text(file))) {
      INFO(item.dump());
      const auto outputs = item["preds"].get<std::vector<std::string>>();
      double all = 0, part = 0;
      for (size_t i = 0; i < outputs.size(); ++i) {
        const auto answers = item["refs"][i].get<std::vector<std::string>>();
        all += string_match_all(outputs[i], answers);
        part += string_match_part(outputs[i], answers);
      }
      const auto rounded = [&](double sum) {
        return std::round(sum / static_cast<double>(outputs.size()) * 100 * 100) / 100;
      };
      CHECK(rounded(all) == item["string_match_all"].get<double>());
      CHECK(rounded(part) == item["string_match_part"].get<double>());
    }
  }
}

TEST_CASE("string match ignores what stands around an answer, and upper case") {
  CHECK(string_match_all("  The number is 7654321, I think.", {"7654321"}) == 1);
  CHECK(string_match_all("AMBER-Fox", {"amber-fox"}) == 1);
  CHECK(string_match_all("", {"1"}) == 0);
  CHECK(string_match_all("one two", {"one", "two", "three", "four"}) == 2.0 / 4);
  CHECK(string_match_all("na\xc3\xafve", {"na\xc3\xafve"}) == 1);
}

TEST_CASE("a score without answers is an error, not a number") {
  CHECK_THROWS_AS(string_match_all("text", {}), std::invalid_argument);
  CHECK_THROWS_AS(string_match_part("text", {}), std::invalid_argument);
}

}  // namespace kvsweep
