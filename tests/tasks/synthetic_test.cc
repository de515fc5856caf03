// contract: the tasks that need no data: what is asked can be found in the text, lengths are met, scores are exact.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <memory>
#include <regex>
#include <set>
#include <sstream>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

using Values = std::map<std::string, std::string>;

std::unique_ptr<Task> make(const std::string& name, const Values& values) {
  std::map<std::string, ParamValue> given = {{"tokens", {"900", 1}}, {"samples", {"12", 1}}};
  for (const auto& [key, value] : values) given[key] = {value, 2};
  Params params(name, "sweep.yaml", std::move(given));
  const auto& table = task_table();
  return std::find_if(table.begin(), table.end(), [&](const auto& one) { return one.name == name; })->make(params);
}

struct Made {
  Sample sample;
  std::string context, query;
};

std::vector<Made> made(const std::string& name, const Values& values) {
  const testing::PieceTokenizer tokenizer;
  const DataLocator data({});
  std::vector<Made> out;
  for (Sample& sample : make(name, values)->samples({tokenizer, data, nullptr, 17})) {
    CHECK(std::ssize(sample.context) + std::ssize(sample.query) == 900);
    const std::string context = tokenizer.decode(sample.context, false), query = tokenizer.decode(sample.query, false);
    out.push_back({std::move(sample), context, query});
  }
  return out;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

double match(const std::string& name, const Sample& sample, const std::string& text,
             const std::string& metric = "exact_match") {
  Output output;
  output.text = text;
  return make(name, {})->score(sample, output).at(metric);
}

}  // namespace

TEST_CASE("a list holds the asked pair once, at its depth, and the lines that are repeated") {
  const std::string key = GENERATE("word", "number");
  const Values values = {{"key", key}, {"depths", "3"}, {"shots", "2"}, {"digits", "5"}};
  for (const Made& one : made("kv_retrieval", values)) {
    INFO(one.sample.id << "\n" << one.context << one.query);
    const std::vector<std::string> list = lines_of(one.context), asked = lines_of(one.query);
    REQUIRE(asked.size() >= 4);
    const std::string answer = asked.back() + " " + one.sample.answers.front();
    CHECK(std::regex_match(answer,
                           std::regex(key == "word" ? "[a-z]+-[a-z]+: [1-9][0-9]{4}" : "[0-9]{8}: [1-9][0-9]{4}")));
    CHECK(std::count(list.begin(), list.end(), answer) == 1);
    for (size_t shot = asked.size() - 3; shot + 1 < asked.size(); ++shot)
      CHECK(std::count(list.begin(), list.end(), asked[shot]) == 1);
    const auto at = static_cast<double>(std::find(list.begin(), list.end(), answer) - list.begin());
    CHECK(std::abs(100 * at / static_cast<double>(list.size()) - std::stod(one.sample.tags.at("depth"))) < 8);
    std::set<std::string> keys;
    for (const std::string& line : list)
      if (line.find(": ") != std::string::npos) CHECK(keys.insert(line.substr(0, line.find(':'))).second);
  }
}

TEST_CASE("a passage stands at the beginning and its first items are repeated") {
  const std::string kind = GENERATE("number", "word");
  for (const Made& one : made("passage_copy", {{"kind", kind}, {"items", "7"}, {"cue", "2"}})) {
    INFO(one.sample.id << "\n" << one.context << "|" << one.query);
    const size_t line = one.query.find('\n') + 1;  // behind the line break, which may share a token with a full stop
    REQUIRE((line == 1 || line == 2));
    const std::string passage = one.query.substr(line) + " " + one.sample.answers.front() + ".\n";
    CHECK(one.context.starts_with(passage));
    CHECK(std::count(passage.begin(), passage.end(), ' ') == 3 + 7);  // "The secret words are:" and the items
    CHECK(one.context.find("The secret", 5) == std::string::npos);
  }
}

TEST_CASE("a chain's lines are right and each begins with the last result") {
  for (const Made& one : made("arithmetic_chain", {{"largest", "4"}, {"top", "30"}})) {
    INFO(one.sample.id << "\n" << one.context << "|" << one.query);
    std::vector<std::string> lines = lines_of(one.context + one.query + " " + one.sample.answers.front());
    lines.erase(lines.begin());  // the filler
    REQUIRE(lines.size() > 50);
    std::string last = lines.front().substr(0, lines.front().find(' '));
    for (const std::string& line : lines) {
      std::istringstream in(line);
      int64_t left = 0, right = 0, result = 0;
      std::string sign, equal;
      in >> left >> sign >> right >> equal >> result;
      CHECK(line == last + " " + sign + " " + std::to_string(right) + " = " + std::to_string(result));
      CHECK(result == (sign == "+" ? left + right : left - right));
      CHECK((right >= 1 && right <= 4 && result >= 0 && result <= 30));
      last = std::to_string(result);
    }
    const auto seen = std::count(lines.begin(), lines.end() - 1, lines.back());
    CHECK(one.sample.tags.at("seen") == std::to_string(seen));
  }
}

TEST_CASE("the reference scores 1, nothing scores 0, and near misses score what they are") {
  for (const std::string name : {"kv_retrieval", "passage_copy", "arithmetic_chain"}) {
    INFO(name);
    const Sample sample = made(name, {}).front().sample;
    const std::string& answer = sample.answers.front();
    CHECK(match(name, sample, " " + answer + " ") == 1);
    CHECK(match(name, sample, "") == 0);
    CHECK(match(name, sample, answer + "0") == 0);
    CHECK(match(name, sample, "x" + answer) == 0);
  }
  Sample copy;
  copy.answers = {"171 244 872 728"};
  CHECK(match("passage_copy", copy, " 171 244 872 728. 999 111") == 1);  // what comes behind it is not asked
  CHECK(match("passage_copy", copy, " 171 244 999 728") == 0);
  CHECK(match("passage_copy", copy, " 171 244 999 728", "copied") == 0.5);
  CHECK(match("passage_copy", copy, "244 872 728", "copied") == 0);
}

TEST_CASE("parameters of the synthetic tasks that contradict each other are refused") {
  CHECK_THROWS_MATCHES(make("passage_copy", {{"items", "3"}, {"cue", "3"}}), ConfigError,
                       MessageMatches(ContainsSubstring("sweep.yaml:2: passage_copy.cue")));
  CHECK_THROWS_MATCHES(make("arithmetic_chain", {{"largest", "5"}, {"top", "4"}}), ConfigError,
                       MessageMatches(ContainsSubstring("sweep.yaml:2: arithmetic_chain.largest")));
  CHECK_THROWS_MATCHES(made("kv_retrieval", {{"max_new_tokens", "2"}}), ConfigError,
                       MessageMatches(ContainsSubstring("kv_retrieval.max_new_tokens = 2 is too few")));
  CHECK_THROWS_MATCHES(made("passage_copy", {{"tokens", "40"}}), ConfigError,
                       MessageMatches(ContainsSubstring("passage_copy.tokens = 40 is too short")));
}

}  // namespace kvsweep
