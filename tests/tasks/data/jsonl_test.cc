// contract: records of JSON files by key; errors name file, line, key and what came.
#include "tasks/data/jsonl.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

std::vector<JsonRecord> read(const std::string& text) {
  const testing::TemporaryDirectory folder;
  const auto file = folder.path() / "a.jsonl";
  testing::write_text(file, text);
  return read_jsonl(file);
}

}  // namespace

TEST_CASE("records give their values by key and type") {
  const auto records =
      read(R"({"t": "é", "n": 3, "x": 0.5, "l": ["a", "b"], "o": {"k": "v"}, "r": [{"q": "1"}], "z": null})"
           "\n\n{\"t\": \"u\"}\n");
  REQUIRE(records.size() == 2);
  const JsonRecord& one = records[0];
  CHECK(one.text("t") == "é");
  CHECK(one.integer("n") == 3);
  CHECK(one.number("x") == 0.5);
  CHECK(one.number("n") == 3);
  CHECK(one.texts("l") == std::vector<std::string>{"a", "b"});
  CHECK(one.texts("t") == std::vector<std::string>{"é"});
  CHECK(one.record("o").text("k") == "v");
  CHECK(one.records("r").at(0).text("q") == "1");
  CHECK(one.has("t"));
  CHECK(!one.has("z"));
  CHECK(!one.has("no"));
  CHECK(one.keys() == std::vector<std::string>{"t", "n", "x", "l", "o", "r", "z"});
  CHECK(records[1].place().ends_with("a.jsonl:3"));
}

TEST_CASE("a JSON file that cannot be right names file, line and key") {
  const auto check = [](const std::string& text, const auto& use, const std::string& message) {
    INFO(text);
    CHECK_THROWS_MATCHES(use(read(text).back()), DataError, MessageMatches(ContainsSubstring(message)));
  };
  const auto text = [](const JsonRecord& r) { r.text("t"); };
  check("{\"t\": 1}\n{\"u\": \"\"}", text, "a.jsonl:2: no 't'; it has u");
  check("{\"t\": 1}", text, "a.jsonl:1: 't' is 1: expected a text");
  check("{\"t\": \"a\"}\n{\"t\": ", text, "a.jsonl:2: not JSON");
  check("[]", text, "a.jsonl:1: [] is not a JSON object");
  check("", text, "a.jsonl: no records");
  check(
      "{\"t\": \" \\n\"}", [](const JsonRecord& r) { r.filled_text("t"); }, "must not be empty");
  check(
      "{\"t\": []}", [](const JsonRecord& r) { r.filled_texts("t"); }, "must not be empty");
  check(
      "{\"t\": [\"a\", \"\"]}", [](const JsonRecord& r) { r.filled_texts("t"); }, "has an empty text");
  check(
      "{\"t\": [1]}", [](const JsonRecord& r) { r.texts("t"); }, "expected an array of texts");
  check(
      "{\"t\": 1.5}", [](const JsonRecord& r) { r.integer("t"); }, "expected an integer");
  check(
      "{\"t\": \"1\"}", [](const JsonRecord& r) { r.number("t"); }, "expected a number");
  check(
      "{\"t\": {}}", [](const JsonRecord& r) { r.records("t"); }, "expected an array of objects");
  check(
      "{\"t\": [1]}", [](const JsonRecord& r) { r.records("t"); }, "expected an array of objects");
  check(
      "{\"t\": []}", [](const JsonRecord& r) { r.record("t"); }, "expected an object");
  check("{\"t\": \"\xff\"}", text, "is not UTF-8");
}

}  // namespace kvsweep
