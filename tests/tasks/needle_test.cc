// contract: the needle task's prompts against the protocol's form and its own parameters.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "tasks/data/haystack.h"
#include "tests/support/golden.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

using Values = std::map<std::string, std::string>;

std::unique_ptr<Task> needle(const Values& values) {
  std::map<std::string, ParamValue> given = {{"tokens", {"900", 1}}};
  int line = 2;
  for (const auto& [key, value] : values) given[key] = {value, line++};
  Params params("needle", "sweep.yaml", std::move(given));
  const auto& table = task_table();
  return std::find_if(table.begin(), table.end(), [](const auto& one) { return one.name == "needle"; })->make(params);
}

std::vector<Sample> samples_of(const Values& values, const Tokenizer& tokenizer, const DataLocator& data) {
  return needle(values)->samples({tokenizer, data, nullptr, 17});
}

std::vector<Sample> samples_of(const Values& values, const Tokenizer& tokenizer) {
  return samples_of(values, tokenizer, DataLocator({}));
}

std::string text_of(const Sample& sample, const Tokenizer& tokenizer) {
  return tokenizer.decode(sample.context, false) + tokenizer.decode(sample.query, false);
}

std::vector<std::string> matches(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at) found.push_back((*at)[0]);
  return found;
}

int64_t occurrences(const std::string& text, const std::string& part) {
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("one needle is asked for in the protocol's singular words") {
  const testing::PieceTokenizer tokenizer;
  for (const Sample& sample : samples_of({}, tokenizer)) {
    INFO(sample.id);
    const std::string text = text_of(sample, tokenizer);
    REQUIRE(sample.answers.size() == 1);
    const std::string& value = sample.answers[0];
    CHECK(std::regex_match(value, std::regex("[1-9][0-9]{6}")));
    const auto needles = matches(text, "One of the special magic numbers for [a-z]+-[a-z]+ is: [0-9]{7}\\.");
    REQUIRE(needles.size() == 1);
    const std::string key = needles[0].substr(37, needles[0].find(" is: ") - 37);
    CHECK(
        text.starts_with("A special magic number is hidden within the following text. Make sure to memorize it. I "
                         "will quiz you about the number afterwards.\n"));
    CHECK(text.ends_with("\nWhat is the special magic number for " + key +
                         " mentioned in the provided text? The special magic number for " + key +
                         " mentioned in the provided text is"));
    CHECK(occurrences(text, value) == 1);
    CHECK(sample.stop.empty());
    CHECK(sample.max_new_tokens == 32);
  }
}

TEST_CASE("several keys or values are asked for in the protocol's plural words") {
  const testing::PieceTokenizer tokenizer;
  const Values values = {{"keys", "5"},   {"queries", "3"},         {"values", "2"},  {"needle", "word"},
                         {"key", "uuid"}, {"max_new_tokens", "64"}, {"samples", "12"}};
  for (const Sample& sample : samples_of(values, tokenizer)) {
    const std::string text = text_of(sample, tokenizer);
    INFO(text);
    CHECK(
        text.starts_with("Some special magic words are hidden within the following text. Make sure to memorize it. "
                         "I will quiz you about the words afterwards.\n"));
    const std::string uuid = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
    const auto needles = matches(text, "One of the special magic words for " + uuid + " is: [a-z]+-[a-z]+\\.");
    CHECK(needles.size() == 5 * 2);
    CHECK(std::set<std::string>(needles.begin(), needles.end()).size() == 5 * 2);
    const auto questions =
        matches(text, "\nWhat are all the special magic words for (" + uuid + "), (" + uuid + "), and (" + uuid +
                          ") mentioned in the provided text\\? The special magic words for \\1, \\2, and \\3 "
                          "mentioned in the provided text are$");
    REQUIRE(questions.size() == 1);
    REQUIRE(sample.answers.size() == 3 * 2);
    const auto keys = matches(questions[0].substr(0, questions[0].find('?')), uuid);
    for (size_t i = 0; i < sample.answers.size(); ++i)
      CHECK(occurrences(text, "for " + keys[i / 2] + " is: " + sample.answers[i] + ".") == 1);
  }
}

TEST_CASE("samples are spread over the depths and stand there") {
  const testing::PieceTokenizer tokenizer;
  const std::vector<Sample> samples = samples_of({{"tokens", "4000"}, {"depths", "5"}, {"samples", "15"}}, tokenizer);
  std::map<std::string, int> per_depth;
  std::set<std::string> answers;
  for (const Sample& sample : samples) {
    INFO(sample.id);
    const std::string depth = sample.tags.at("depth");
    ++per_depth[depth];
    CHECK(answers.insert(sample.answers[0]).second);
    const auto at = static_cast<size_t>(std::stoll(sample.tags.at("answer_token")));
    const std::vector<int32_t> rest(sample.context.begin() + static_cast<int64_t>(at), sample.context.end());
    const std::string after = tokenizer.decode(rest, false);
    CHECK(after.find(sample.answers[0]) <= 1);  // the space may belong to the first digit's token
    CHECK(std::abs(static_cast<double>(at) / 4000 - std::stod(depth) / 100) < 0.03);
  }
  CHECK(per_depth == std::map<std::string, int>{{"0", 3}, {"25", 3}, {"50", 3}, {"75", 3}, {"100", 3}});
  CHECK(samples.front().id == "d000-s00");
  CHECK(samples.back().id == "d100-s02");
}

TEST_CASE("lengths are exact for any tokenizer and haystack") {
  const std::string haystack = GENERATE("generated", "noise", "needles");
  const testing::PieceTokenizer pieces;
  const testing::ByteTokenizer bytes(true);
  for (const Tokenizer* tokenizer : std::vector<const Tokenizer*>{&pieces, &bytes}) {
    for (const char* tokens : {"700", "701", "1023", "2048"}) {
      for (const Sample& sample :
           samples_of({{"tokens", tokens}, {"haystack", haystack}, {"needle", "uuid"}, {"max_new_tokens", "64"}},
                      *tokenizer)) {
        REQUIRE(std::ssize(sample.context) + std::ssize(sample.query) == std::stoll(tokens));
        REQUIRE(encode_with_bos(*tokenizer, text_of(sample, *tokenizer), false).size() ==
                sample.context.size() + sample.query.size());
      }
    }
  }
}

TEST_CASE("a noise haystack is the protocol's line, line by line") {
  const testing::PieceTokenizer tokenizer;
  const std::string text = text_of(samples_of({{"haystack", "noise"}}, tokenizer).front(), tokenizer);
  CHECK(occurrences(text,
                    "\nThe grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
                    "\n") > 10);
}

TEST_CASE("a needle haystack holds no second needle of the asked key") {
  const testing::PieceTokenizer tokenizer;
  const Values values = {{"haystack", "needles"}, {"needle", "uuid"}, {"key", "uuid"}, {"max_new_tokens", "64"}};
  for (const Sample& sample : samples_of(values, tokenizer)) {
    const std::string context = tokenizer.decode(sample.context, false);
    const auto lines = matches(context, "One of the special magic uuids for [0-9a-f-]{36} is: [0-9a-f-]{36}\\.");
    std::set<std::string> keys;
    for (const std::string& line : lines) keys.insert(line.substr(35, 36));
    CHECK(lines.size() > 5);
    CHECK(keys.size() == lines.size());
  }
}

TEST_CASE("lengths share keys and values, so that they can be compared sample by sample") {
  const testing::PieceTokenizer tokenizer;
  const auto shorter = samples_of({{"tokens", "500"}}, tokenizer), longer = samples_of({{"tokens", "1500"}}, tokenizer);
  for (size_t i = 0; i < shorter.size(); ++i) {
    CHECK(shorter[i].id == longer[i].id);
    CHECK(shorter[i].answers == longer[i].answers);
  }
}

TEST_CASE("a haystack can be the user's text, and words the protocol's lists") {
  testing::TemporaryDirectory root;
  testing::write_text(root.path() / "story.txt", "It was late.\nNobody came! Then it rained.");
  testing::write_text(root.path() / "adjectivelist.txt", "");
  std::filesystem::create_directories(root.path() / "wonderwords");
  testing::write_text(root.path() / "wonderwords/adjectivelist.txt", "zany\r\nyare\n");
  testing::write_text(root.path() / "wonderwords/nounlist.txt", "ATM\nyak\n");
  const testing::PieceTokenizer tokenizer;
  const Values values = {{"haystack", "story.txt"}, {"words", "wonderwords"}};
  CHECK(needle(values)->data() ==
        std::vector<std::string>{"story.txt", "wonderwords/adjectivelist.txt", "wonderwords/nounlist.txt"});
  const auto samples = samples_of(values, tokenizer, DataLocator({root.path()}));
  const std::string text = text_of(samples[1], tokenizer);
  INFO(text);
  CHECK(occurrences(text, " It was late. Nobody came! Then it rained. It was late.") > 5);
  CHECK(std::regex_search(text, std::regex("for (zany|yare)-(ATM|yak) is: ")));
}

TEST_CASE("missing essays say where they were looked for and how to get them") {
  const testing::PieceTokenizer tokenizer;
  CHECK_THROWS_MATCHES(
      samples_of({{"haystack", "essays"}}, tokenizer, DataLocator({"/nowhere"})), DataError,
      MessageMatches(ContainsSubstring("/nowhere/paul_graham_essays") && ContainsSubstring("gkamradt")));
}

TEST_CASE("parameters that cannot go together are refused by name") {
  CHECK_THROWS_MATCHES(
      needle({{"queries", "2"}}), ConfigError,
      MessageMatches(ContainsSubstring("sweep.yaml:2: needle.queries = 2") && ContainsSubstring("keys = 1")));
  CHECK_THROWS_MATCHES(needle({{"keys", "20"}, {"values", "3"}}), ConfigError,
                       MessageMatches(ContainsSubstring("60 needles; at most 40")));
  CHECK_THROWS_MATCHES(needle({{"haystack", "generatd"}}), ConfigError,
                       MessageMatches(ContainsSubstring("did you mean 'generated'?")));
}

TEST_CASE("an answer that does not fit into the generation is refused before anything runs") {
  const testing::ByteTokenizer tokenizer(false);
  CHECK_THROWS_MATCHES(samples_of({{"needle", "uuid"}, {"max_new_tokens", "36"}}, tokenizer), ConfigError,
                       MessageMatches(ContainsSubstring("needle.max_new_tokens = 36") &&
                                      ContainsSubstring("takes 37 tokens")));  // a space and 36 characters
}

TEST_CASE("uuid prompts have the form of the protocol's own", "[golden]") {
  std::vector<std::string> forms;
  for (const auto& root : testing::data_roots()) {
    const auto file = root / "ruler_niah_multikey_3_4096/niah_multikey_3.jsonl";
    if (!std::filesystem::exists(file)) continue;
    const std::string records = testing::read_text(file);
    forms.push_back(nlohmann::json::parse(records.substr(0, records.find('\n')))["input"]);
  }
  if (forms.empty()) SKIP("no ruler_niah_multikey_3_4096 in a data root");
  const testing::PieceTokenizer tokenizer;
  const Values values = {{"haystack", "needles"}, {"needle", "uuid"}, {"key", "uuid"}, {"max_new_tokens", "64"}};
  const std::string ours = text_of(samples_of(values, tokenizer).front(), tokenizer);
  const auto lines = [](const std::string& text) {
    std::set<std::string> set;
    const std::string masked = std::regex_replace(text, std::regex("[0-9a-f-]{36}"), "UUID");
    std::istringstream in(std::regex_replace(masked, std::regex("\n[a-z ]+\\.\n"), "\n"));  // without the filler
    for (std::string line; std::getline(in, line);) set.insert(line);
    return set;
  };
  for (const std::string& form : forms) CHECK(lines(ours) == lines(form));
}

}  // namespace kvsweep
