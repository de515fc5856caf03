// contract: the prompts of RULER's 13 tasks against the protocol's form. golden: scores, and the form of real samples.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
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
using nlohmann::json;

namespace {

using Values = std::map<std::string, std::string>;

std::unique_ptr<Task> ruler(const std::string& task, const Values& more = {}) {
  Values values = {{"task", task}, {"tokens", "4000"}, {"samples", "6"}, {"words", "generated"}};
  for (const auto& [key, value] : more) values[key] = value;
  std::map<std::string, ParamValue> given;
  int line = 1;
  for (const auto& [key, value] : values) given[key] = {value, line++};
  Params params("ruler", "sweep.yaml", std::move(given));
  const auto& table = task_table();
  return std::find_if(table.begin(), table.end(), [](const auto& one) { return one.name == "ruler"; })->make(params);
}

// A data root with an essay and two question sets of the test's own.
class Root {
 public:
  Root() {
    std::string essay;
    for (int i = 0; i < 60; ++i) essay += "Sentence number " + std::to_string(i) + " says\n nothing of use. ";
    testing::write_text(path() / "essay.txt", essay);
    json squad = {{"version", "v2.0"}, {"data", json::array()}};
    json hotpot = json::array();
    for (int article = 0; article < 8; ++article) {
      json paragraphs = json::array();
      for (int i = 0; i < 3; ++i) {
        const std::string name = "Thing" + std::to_string(article) + std::to_string(i);
        const json answers = {{{"text", "blue"}, {"answer_start", 0}}, {{"text", "dark " + name}, {"answer_start", 0}}};
        paragraphs.push_back(
            {{"context", name + " is dark " + name + ". It stands in a garden."},
             {"qas",
              {{{"question", "How is " + name + "?"}, {"is_impossible", false}, {"answers", answers}},
               {{"question", "Why is " + name + "?"}, {"is_impossible", true}, {"answers", json::array()}}}}});
      }
      squad["data"].push_back({{"title", "T"}, {"paragraphs", paragraphs}});
      json context = json::array();
      for (int i = 0; i < 2; ++i)
        context.push_back(json::array(
            {"Title" + std::to_string(article) + std::to_string(i), json::array({"One sentence.", " Another one."})}));
      hotpot.push_back(
          {{"question", "Which?"}, {"answer", "Title" + std::to_string(article) + "0"}, {"context", context}});
    }
    std::filesystem::create_directories(path() / "squad");
    std::filesystem::create_directories(path() / "hotpotqa");
    testing::write_text(path() / "squad/dev-v2.0.json", squad.dump());
    testing::write_text(path() / "hotpotqa/hotpot_dev_distractor_v1.json", hotpot.dump());
  }
  const std::filesystem::path& path() const { return directory_.path(); }

 private:
  testing::TemporaryDirectory directory_;
};

struct Prompt {
  std::string context, query;
  Sample sample;
};

std::vector<Prompt> prompts(const std::string& task, const Values& more = {}) {
  static const Root root;
  static const testing::PieceTokenizer tokenizer;
  Values values = more;
  values.emplace("essays", "essay.txt");
  const DataLocator data({root.path()});
  std::vector<Prompt> all;
  for (Sample& sample : ruler(task, values)->samples({tokenizer, data, nullptr, 17}))
    all.push_back({tokenizer.decode(sample.context, false), tokenizer.decode(sample.query, false), std::move(sample)});
  return all;
}

std::vector<std::string> matches(const std::string& text, const std::string& pattern, size_t group = 0) {
  const std::regex regex(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at) found.push_back((*at)[group]);
  return found;
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// The query without the end of a sentence, which a token of the toy tokenizer may hold together with the line break.
std::string asked(const Prompt& one) {
  return one.query.substr(one.query.find('\n'));
}

const std::vector<std::string> kTasks = {"niah_single_1",
                                         "niah_single_2",
                                         "niah_single_3",
                                         "niah_multikey_1",
                                         "niah_multikey_2",
                                         "niah_multikey_3",
                                         "niah_multivalue",
                                         "niah_multiquery",
                                         "vt",
                                         "cwe",
                                         "fwe",
                                         "qa_1",
                                         "qa_2"};
const std::string kUuid = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";

}  // namespace

TEST_CASE("prompt and answer never exceed the length, and fill it but for a unit") {
  const std::map<std::string, int64_t> generated = {{"vt", 30}, {"cwe", 120}, {"fwe", 50}, {"qa_1", 32}, {"qa_2", 32}};
  for (const std::string& name : kTasks) {
    for (const char* tokens : {"1100", "4500"}) {
      INFO(name << " " << tokens);
      const auto task = ruler(name, {{"tokens", tokens}});
      const int64_t answer = generated.contains(name) ? generated.at(name) : 128;
      CHECK(task->generated_tokens() == answer);
      CHECK(task->tokens() == std::stoll(tokens));
      CHECK(task->prompt_tokens() == task->tokens() - answer);
      for (const Prompt& one : prompts(name, {{"tokens", tokens}})) {
        INFO(one.sample.id);
        const int64_t length = std::ssize(one.sample.context) + std::ssize(one.sample.query);
        CHECK(length <= task->prompt_tokens());
        CHECK(one.sample.max_new_tokens == answer);
        CHECK(std::ssize(one.sample.query) <= task->query_tokens());
        if (!name.starts_with("qa")) CHECK(length > task->prompt_tokens() - 80);  // the small sets run out of documents
      }
    }
  }
}

TEST_CASE("needle tasks hide what the protocol's table says") {
  struct Expected {
    const char *task, *value, *key, *kind;
    size_t needles, asked;  // 0 needles: the haystack is made of them
  };
  const std::string number = "[1-9][0-9]{6}", word = "[a-z]+-[a-z]+";
  const auto expected = GENERATE_COPY(Expected{"niah_single_1", "number", "word", "noise", 1, 1},
                                      Expected{"niah_single_2", "number", "word", "essay", 1, 1},
                                      Expected{"niah_single_3", "uuid", "word", "essay", 1, 1},
                                      Expected{"niah_multikey_1", "number", "word", "essay", 4, 1},
                                      Expected{"niah_multikey_2", "number", "word", "needle", 0, 1},
                                      Expected{"niah_multikey_3", "uuid", "uuid", "needle", 0, 1},
                                      Expected{"niah_multivalue", "number", "word", "essay", 4, 4},
                                      Expected{"niah_multiquery", "number", "word", "essay", 4, 4});
  INFO(expected.task);
  const std::string value = std::string(expected.value) == "number" ? number : kUuid;
  const std::string key = std::string(expected.key) == "word" ? word : kUuid, type = expected.value;
  std::set<size_t> orders;
  for (const Prompt& one : prompts(expected.task)) {
    const bool single = expected.asked == 1;
    CHECK(one.context.starts_with(single ? "A special magic " + type +
                                               " is hidden within the following text. Make sure to memorize it. I will "
                                               "quiz you about the " +
                                               type + " afterwards.\n"
                                         : "Some special magic " + type +
                                               "s are hidden within the following text. Make sure to memorize it. I "
                                               "will quiz you about the " +
                                               type + "s afterwards.\n"));
    const std::string pattern = "One of the special magic " + type + "s for (" + key + ") is: (" + value + ")\\.";
    const auto keys = matches(one.context, pattern, 1), values = matches(one.context, pattern, 2);
    CHECK(std::set(values.begin(), values.end()).size() == values.size());
    if (expected.needles > 0) CHECK(values.size() == expected.needles);
    if (expected.needles == 0) CHECK(values.size() > 10);
    REQUIRE(one.sample.answers.size() == expected.asked);
    // The question names the keys of the answers, in their order.
    std::vector<std::string> queries;
    for (const std::string& answer : one.sample.answers) {
      const auto at = std::find(values.begin(), values.end(), answer);
      REQUIRE(at != values.end());
      orders.insert(static_cast<size_t>(at - values.begin()));
      const std::string& of = keys[static_cast<size_t>(at - values.begin())];
      if (queries.empty() || queries.back() != of) queries.push_back(of);
    }
    std::string list = queries[0];
    for (size_t i = 1; i < queries.size(); ++i) list += (i + 1 == queries.size() ? ", and " : ", ") + queries[i];
    const std::string what =
        single ? "What is the special magic " + type : "What are all the special magic " + type + "s";
    const std::string the = single ? "The special magic " + type : "The special magic " + type + "s";
    const std::string question = "\n" + what + " for " + list + " mentioned in the provided text? " + the + " for " +
                                 list + " mentioned in the provided text " + (single ? "is" : "are");
    CHECK(asked(one) == question);
    // The tag is the place of a value that answers.
    const auto at = std::stoll(one.sample.tags.at("answer_token"));
    CHECK(at > 0);
    CHECK(at < std::ssize(one.sample.context));
    if (std::string(expected.kind) == "noise")
      CHECK(one.context.find("\nThe grass is green. The sky is blue. The sun is yellow. Here we go. There and back "
                             "again.\n") != std::string::npos);
    if (std::string(expected.kind) == "essay")
      CHECK(one.context.find("Sentence number 7 says nothing of use.") != std::string::npos);
  }
  if (expected.needles > 1 && expected.asked == 1) CHECK(orders.size() > 1);  // not always the first one is asked for
}

TEST_CASE("a needle stands before the sentence at a depth of the protocol's grid") {
  const std::vector<int64_t> grid = depth_grid(40);
  for (const Prompt& one : prompts("niah_single_2", {{"samples", "20"}})) {
    const size_t head = one.context.find('\n') + 1, at = one.context.find("One of the special");
    const auto count = [](const std::string& text) { return std::count(text.begin(), text.end(), '.'); };
    const auto before = count(one.context.substr(head, at - head));
    const int64_t sentences = count(one.context.substr(head)) - 1 + (one.context.ends_with('.') ? 0 : 1);
    INFO(before << " of " << sentences);
    CHECK(std::any_of(grid.begin(), grid.end(), [&](int64_t depth) { return sentences * depth / 100 == before; }));
  }
}

TEST_CASE("variable tracking: one chain, in order, after an example of the same form") {
  for (const Prompt& one : prompts("vt")) {
    INFO(one.context);
    const std::string form =
        "Memorize and track the chain\\(s\\) of variable assignment hidden in the following text\\.\n\n[^]*\nQuestion: "
        "Find all variables that are assigned the value ([0-9]{5}) in the text above\\. Answer: According to the "
        "chain\\(s\\) of variable assignment in the text above, 5 variables are assigned the value \\1, they are: ";
    const size_t second = one.context.rfind("Memorize and track");
    REQUIRE(second > 100);
    const std::string example = one.context.substr(0, second), text = one.context.substr(second) + one.query;
    CHECK(std::regex_match(example, std::regex(form + " ([A-Z]{3}) ([A-Z]{3}) ([A-Z]{3}) ([A-Z]{3}) ([A-Z]{3})\n\n")));
    CHECK(std::regex_match(text, std::regex(form)));
    const std::string value = matches(one.query, "assigned the value ([0-9]{5})", 1).front();
    const auto& names = one.sample.answers;
    REQUIRE(names.size() == 5);
    size_t at = text.find("\nVAR " + names[0] + " = " + value + "\n");
    REQUIRE(at != std::string::npos);
    for (size_t hop = 1; hop < names.size(); ++hop) {
      at = text.find("\nVAR " + names[hop] + " = VAR " + names[hop - 1] + " \n", at);
      REQUIRE(at != std::string::npos);
    }
    CHECK(matches(text, "VAR [A-Z]+ = ").size() == 5);
    CHECK(std::set(names.begin(), names.end()).size() == 5);
    CHECK(asked(one).starts_with("\nQuestion: Find"));
  }
}

TEST_CASE("common words: the ten most frequent of a numbered list are asked for") {
  struct Expected {
    const char* tokens;
    size_t common, uncommon, example;
  };
  const auto expected = GENERATE(Expected{"900", 3, 1, 0}, Expected{"2500", 6, 1, 3}, Expected{"9000", 30, 3, 10});
  for (const Prompt& one : prompts("cwe", {{"tokens", expected.tokens}})) {
    const size_t last = one.context.rfind("Below is a numbered list of words. In these words, some appear more often");
    const std::string list = one.context.substr(one.context.find('\n', last) + 1);
    std::map<std::string, size_t> counts;
    size_t number = 0;
    const std::vector<std::string> words = words_of(list);
    for (size_t i = 0; i + 1 < words.size(); i += 2) {
      REQUIRE(words[i] == std::to_string(++number) + ".");
      ++counts[words[i + 1]];
    }
    for (const auto& [word, count] : counts) {
      const bool common = std::count(one.sample.answers.begin(), one.sample.answers.end(), word) > 0;
      CHECK(count == (common ? expected.common : expected.uncommon));
    }
    CHECK(counts.size() > 10);
    CHECK(one.sample.answers.size() == 10);
    CHECK(asked(one) ==
          "\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words that appear most "
          "often in the list are:");
    if (expected.example == 0) {
      CHECK(last == 0);
      continue;
    }
    const std::string example = one.context.substr(0, last);
    CHECK(matches(example, " [0-9]+\\. [a-z]+").size() + 1 ==
          10 * expected.example + 10 + (expected.example == 3 ? 10 : 30 * 3));
    const std::string shown = example.substr(example.find("in the list are:") + 16);
    CHECK(std::regex_match(shown, std::regex(" 1\\. [a-z]+( [0-9]+\\. [a-z]+){9}\n")));
  }
}

TEST_CASE("frequent words: counts follow zeta(2), the first rank is dots, ranks two to four are asked for") {
  for (const char* tokens : {"512", "4000"}) {
    for (const Prompt& one : prompts("fwe", {{"tokens", tokens}})) {
      const size_t begin = one.context.find("coded words. ") + 13;
      std::map<std::string, int64_t> counts;
      for (const std::string& word : words_of(one.context.substr(begin))) ++counts[word];
      std::vector<std::pair<int64_t, std::string>> ranked;
      for (const auto& [word, count] : counts) ranked.emplace_back(-count, word);
      std::sort(ranked.begin(), ranked.end());
      CHECK(ranked[0].second == "...");
      REQUIRE(one.sample.answers.size() == 3);
      for (size_t i = 0; i < 3; ++i) {
        CHECK(ranked[i + 1].second == one.sample.answers[i]);
        CHECK(std::regex_match(one.sample.answers[i], std::regex("[a-z]{6}")));
        // A share of 1 / rank^2 against the first one's, but for rounding down.
        const double share = static_cast<double>(-ranked[0].first) / std::pow(static_cast<double>(i) + 2, 2);
        CHECK(std::abs(static_cast<double>(-ranked[i + 1].first) - share) <= 1);
        CHECK(ranked[i + 1].first < ranked[i + 2].first);
      }
    }
  }
}

TEST_CASE("questions stand behind documents that hold the answer, among others without it") {
  const std::string name = GENERATE("qa_1", "qa_2");
  for (const char* tokens : {"512", "4000"}) {
    for (const Prompt& one : prompts(name, {{"tokens", tokens}})) {
      INFO(one.context);
      CHECK(one.context.starts_with(
          "Answer the question based on the given documents. Only give me the answer and do not output any other "
          "words.\n\nThe following are given documents.\n\nDocument 1:\n"));
      const auto numbers = matches(one.context, "(^|\n\n)Document ([0-9]+):\n", 2);
      for (size_t i = 0; i < numbers.size(); ++i) CHECK(numbers[i] == std::to_string(i + 1));
      const std::string& answer = one.sample.answers.back();
      CHECK(one.context.find(answer) != std::string::npos);
      CHECK(std::regex_match(asked(one), std::regex("\n\nAnswer the question based on the given documents. Only give "
                                                    "me the answer and do not output any other words.\n\nQuestion: "
                                                    "[A-Za-z0-9 ]+\\? Answer:")));
      CHECK(numbers.size() > (name == "qa_1" ? 5 : 4));
      if (std::string(tokens) == "4000") CHECK(numbers.size() == (name == "qa_1" ? 24 : 16));  // every one, once
    }
  }
}

TEST_CASE("in a chat format the question ends the user's turn and the answer's beginning the assistant's") {
  const testing::ByteTokenizer tokenizer(true);
  const DataLocator data({});
  const ChatPrompt chat = [](const std::string& message) { return "<user>" + message + "<assistant>"; };
  const auto task = ruler("niah_single_1", {{"chat", "true"}});
  for (const Sample& sample : task->samples({tokenizer, data, nullptr, 17, chat})) {
    CHECK(sample.context.front() == '<');  // the format writes BOS itself
    CHECK(tokenizer.decode(sample.context, false).starts_with("<user>A special magic number is hidden"));
    const std::string query = tokenizer.decode(sample.query, false);
    CHECK(
        std::regex_match(query, std::regex("\nWhat is the special magic number for ([a-z-]+) mentioned in the provided "
                                           "text\\?<assistant> The special magic number for \\1 mentioned in the "
                                           "provided text is")));
    CHECK(std::ssize(sample.context) + std::ssize(sample.query) <= task->prompt_tokens());
  }
  CHECK_THROWS_MATCHES(task->samples({tokenizer, data, nullptr, 17}), ConfigError,
                       MessageMatches(ContainsSubstring("ruler.chat = true: the model has no chat template")));
}

TEST_CASE("questions without an answer are left out, and more samples than questions refused") {
  CHECK(prompts("qa_1", {{"samples", "24"}}).size() == 24);
  CHECK_THROWS_MATCHES(prompts("qa_1", {{"samples", "25"}}), ConfigError,
                       MessageMatches(ContainsSubstring("dev-v2.0.json has 24 questions")));
}

TEST_CASE("question sets that are missing or of another form say so") {
  const testing::PieceTokenizer tokenizer;
  const DataLocator nowhere({"/nowhere"});
  CHECK_THROWS_MATCHES(ruler("qa_2")->samples({tokenizer, nowhere, nullptr, 17}), DataError,
                       MessageMatches(ContainsSubstring("/nowhere/hotpotqa") && ContainsSubstring("distractor")));
  testing::TemporaryDirectory root;
  std::filesystem::create_directories(root.path() / "squad");
  const DataLocator data({root.path()});
  for (const char* text : {"[]", "{\"data\": [{\"paragraphs\": [{\"qas\": []}]}]}", "{", "{\"data\": []}"}) {
    testing::write_text(root.path() / "squad/dev-v2.0.json", text);
    CHECK_THROWS_MATCHES(ruler("qa_1")->samples({tokenizer, data, nullptr, 17}), DataError,
                         MessageMatches(ContainsSubstring("dev-v2.0.json: ")));
  }
}

TEST_CASE("a length that is too short for a task is refused with what it needs") {
  CHECK_THROWS_MATCHES(prompts("niah_multivalue", {{"tokens", "511"}}), ConfigError,
                       MessageMatches(ContainsSubstring("ruler.tokens = 511")));
  const testing::ByteTokenizer bytes(false);
  const DataLocator data({});
  CHECK_THROWS_MATCHES(ruler("cwe", {{"tokens", "600"}})->samples({bytes, data, nullptr, 17}), ConfigError,
                       MessageMatches(ContainsSubstring(
                           "a prompt of 480 tokens is too short: with the least that it can hold it has ")));
}

TEST_CASE("every task can be made at 512 tokens") {
  for (const std::string& name : kTasks) {
    INFO(name);
    CHECK(prompts(name, {{"tokens", "512"}}).size() == 6);
  }
}

TEST_CASE("lengths share keys and answers, so that they can be compared sample by sample") {
  for (const std::string& name : kTasks) {
    if (name == "fwe") continue;  // its vocabulary grows with the length
    INFO(name);
    const auto shorter = prompts(name, {{"tokens", "1500"}}), longer = prompts(name, {{"tokens", "3000"}});
    for (size_t i = 0; i < shorter.size(); ++i) CHECK(shorter[i].sample.answers == longer[i].sample.answers);
  }
}

TEST_CASE("scores are RULER's", "[golden]") {
  const auto files = testing::golden_files("(.*/)?ruler_match[.]json");
  if (files.empty()) SKIP("no ruler_match.json in a golden root");
  for (const auto& file : files) {
    INFO(file.string());
    for (const json& one : json::parse(testing::read_text(file))) {
      INFO(one.dump());
      for (const auto& [task, key] : {std::pair("vt", "string_match_all"), std::pair("qa_1", "string_match_part")}) {
        double sum = 0;
        for (size_t i = 0; i < one.at("preds").size(); ++i) {
          Sample sample;
          sample.answers = one.at("refs")[i].get<std::vector<std::string>>();
          Output output;
          output.text = one.at("preds")[i];
          sum += ruler(task)->score(sample, output).at("string_match");
        }
        const double percent = 100 * sum / static_cast<double>(one.at("preds").size());
        CHECK(std::abs(percent - one.at(key).get<double>()) <= 0.005 + 1e-9);
      }
    }
  }
}

TEST_CASE("real samples of niah_multikey_3 have our form and are answered by their own answers", "[golden]") {
  bool found = false;
  const std::string ours = [] {
    const Prompt one = prompts("niah_multikey_3").front();
    return one.context + one.query;
  }();
  const auto lines = [](const std::string& text) {
    std::set<std::string> set;
    std::istringstream in(std::regex_replace(text, std::regex("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"));
    for (std::string line; std::getline(in, line);) set.insert(line);
    return set;
  };
  const auto task = ruler("niah_multikey_3");
  for (const auto& root : testing::data_roots()) {
    const auto file = root / "ruler_niah_multikey_3_4096/niah_multikey_3.jsonl";
    if (!std::filesystem::exists(file)) continue;
    found = true;
    std::istringstream in(testing::read_text(file));
    for (std::string line; std::getline(in, line);) {
      const json record = json::parse(line);
      const std::string input = record.at("input");
      CHECK(lines(input) == lines(ours));
      Sample sample;
      sample.answers = record.at("outputs").get<std::vector<std::string>>();
      Output output;
      output.text = sample.answers.front();
      CHECK(task->score(sample, output).at("string_match") == 1);
    }
  }
  if (!found) SKIP("no ruler_niah_multikey_3_4096 in a data root");
}

}  // namespace kvsweep
