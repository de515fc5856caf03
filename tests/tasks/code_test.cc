// contract: the code task's prompts on small sources of the test's own and on the project's.
#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <memory>
#include <regex>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "tests/support/golden.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

using Values = std::map<std::string, std::string>;

std::unique_ptr<Task> code(const Values& more) {
  Values values = {{"source", KVSWEEP_SOURCE_DIR "/harness"}, {"tokens", "3000"}, {"samples", "10"}, {"depths", "5"}};
  for (const auto& [key, value] : more) values[key] = value;
  std::map<std::string, ParamValue> given;
  int line = 1;
  for (const auto& [key, value] : values) given[key] = {value, line++};
  Params params("code", "sweep.yaml", std::move(given));
  const auto& table = task_table();
  return std::find_if(table.begin(), table.end(), [](const auto& one) { return one.name == "code"; })->make(params);
}

struct Prompt {
  std::string context, query;
  Sample sample;
};

std::vector<Prompt> prompts(const Values& more = {}) {
  static const testing::PieceTokenizer tokenizer;
  const DataLocator data({});
  std::vector<Prompt> all;
  for (Sample& sample : code(more)->samples({tokenizer, data, nullptr, 17}))
    all.push_back({tokenizer.decode(sample.context, false), tokenizer.decode(sample.query, false), std::move(sample)});
  return all;
}

int64_t occurrences(const std::string& text, const std::string& part) {
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("the asked function stands once in the sources, at its depth, and the query goes up to its constant") {
  for (const Prompt& one : prompts()) {
    INFO(one.context << one.query);
    std::smatch form;
    REQUIRE(std::regex_search(one.query, form,
                              std::regex("\n\nThe function ([a-z_]+) again, with the constant that it returns:\n\nint "
                                         "\\1\\(\\) \\{\n  return$")));
    REQUIRE(one.sample.answers.size() == 1);
    CHECK(std::regex_match(one.sample.answers[0], std::regex(" [1-9][0-9]{6};")));
    const std::string definition = "int " + form[1].str() + "() {\n  return" + one.sample.answers[0] + "\n}\n";
    CHECK(occurrences(one.context + one.query, definition) == 1);
    CHECK(occurrences(one.context, form[1]) == 1);
    const std::regex any("\nint [a-z]+_[a-z]+_[a-z]+\\(\\) \\{\n  return [0-9]{7};\n\\}\n");
    const std::string whole = one.context + one.query;
    CHECK(std::distance(std::sregex_iterator(whole.begin(), whole.end(), any), std::sregex_iterator()) == 4);
    CHECK(one.sample.stop == std::vector<std::string>{"\n"});
    CHECK(std::ssize(one.sample.context) + std::ssize(one.sample.query) <= 3000);
    CHECK(std::ssize(one.sample.context) + std::ssize(one.sample.query) > 2900);
  }
}

TEST_CASE("functions are spread over the depths") {
  testing::TemporaryDirectory root;
  std::string text;
  for (int i = 0; i < 300; ++i) text += "int f" + std::to_string(i) + "(int x) {\n  return x;\n}\n\n";
  testing::write_text(root.path() / "a.cc", text);
  std::map<std::string, int> per_depth;
  for (const Prompt& one : prompts({{"tokens", "12000"}, {"source", root.path().string()}})) {
    const std::string& depth = one.sample.tags.at("depth");
    ++per_depth[depth];
    INFO(depth);
    const double at = std::stod(one.sample.tags.at("answer_token")) / 12000;
    CHECK(std::abs(at - std::stod(depth) / 100) < 0.03);
  }
  CHECK(per_depth == std::map<std::string, int>{{"0", 2}, {"25", 2}, {"50", 2}, {"75", 2}, {"100", 2}});
}

TEST_CASE("parameters can be asked for instead, in the language of the sources") {
  for (const Prompt& one : prompts({{"ask", "signature"}})) {
    std::smatch form;
    REQUIRE(std::regex_search(one.query, form,
                              std::regex("The first line of the function ([a-z_]+) again, with its "
                                         "parameters:\n\nint \\1\\($")));
    CHECK(std::regex_match(one.sample.answers[0], std::regex("int [a-z]+, int [a-z]+, int [a-z]+\\) \\{")));
    CHECK(occurrences(one.context + one.query, "int " + form[1].str() + "(" + one.sample.answers[0] + "\n  return ") ==
          1);
  }
  testing::TemporaryDirectory root;
  std::string text;
  for (int i = 0; i < 100; ++i) text += "def f" + std::to_string(i) + "(x):\n    y = x\n\n    return y\n\n\n";
  testing::write_text(root.path() / "a.py", text);
  testing::write_text(root.path() / "notes.txt", "not code");
  for (const char* ask : {"constant", "signature"}) {
    for (const Prompt& one : prompts({{"ask", ask}, {"source", root.path().string()}})) {
      INFO(one.context);
      CHECK(one.context.find("# a.py\n") != std::string::npos);
      CHECK(one.context.find("not code") == std::string::npos);
      CHECK(one.query.find(std::string(ask) == "constant" ? "():\n    return" : "(") != std::string::npos);
      // Between blocks, never within one.
      const std::regex within("\n    y = x\n\ndef [a-z]+_");
      CHECK(!std::regex_search(one.context, within));
    }
  }
}

TEST_CASE("the line that was asked for counts, and how near another one comes") {
  const auto task = code({});
  Sample sample;
  sample.answers = {" 1234567;"};
  const auto score = [&](const std::string& text) {
    Output output;
    output.text = text;
    return task->score(sample, output);
  };
  CHECK(score(" 1234567;\n}").at("exact_match") == 1);
  CHECK(score("1234567; ").at("exact_match") == 1);
  CHECK(score(" 1234567").at("exact_match") == 0);
  CHECK(score(" 1234567").at("code_sim") == Catch::Approx(0.93));  // 2 * 7 / 15, to two digits
  CHECK(score(" 1234568;").at("code_sim_levenshtein") == Catch::Approx(0.88));
  CHECK(score("").at("code_sim") == 0);
}

TEST_CASE("a folder without source files is refused") {
  testing::TemporaryDirectory root;
  testing::write_text(root.path() / "notes.txt", "no code");
  CHECK_THROWS_MATCHES(prompts({{"source", root.path().string()}}), DataError,
                       MessageMatches(ContainsSubstring(root.path().string()) && ContainsSubstring(".cc")));
}

}  // namespace kvsweep
