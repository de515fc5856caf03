// golden: MMLU's prompts are lm-evaluation-harness'; contract: what its data may not be.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "tests/support/golden.h"
#include "tests/support/tasks.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Json = nlohmann::json;

namespace {

std::string prompt_text(const Tokenizer& tokenizer, const Sample& sample) {
  return tokenizer.decode(sample.context, true) + tokenizer.decode(sample.query, true);
}

// A data root with one subject of two questions and five examples.
struct SmallMmlu {
  SmallMmlu() {
    std::filesystem::create_directories(root.path() / "mmlu/dev");
    std::filesystem::create_directories(root.path() / "mmlu/test");
    std::string dev;
    for (int i = 0; i < 5; ++i) dev += "Shot " + std::to_string(i) + "?,p,q,r,s,B\n";
    write("dev", dev);
    write("test", "\" What \"\"is\"\"\nit? \",one,two,three,four,C\nAnd this?,a,b,c,d,A\n");
  }
  void write(const std::string& split, const std::string& text) const {
    testing::write_text(root.path() / "mmlu" / split / ("sociology_" + split + ".csv"), text);
  }
  std::vector<Sample> samples(std::map<std::string, std::string> more = {}, ChatPrompt chat = {}) const {
    more.insert({{"tokens", "2000"}, {"subjects", "sociology"}, {"per_subject", "2"}});
    const DataLocator data({root.path()});
    return testing::make_task("mmlu", more)->samples({tokenizer, data, nullptr, 17, chat});
  }
  testing::TemporaryDirectory root;
  testing::ByteTokenizer tokenizer{true};
};

}  // namespace

TEST_CASE("MMLU prompts are lm-evaluation-harness', subject by subject", "[golden]") {
  const auto files = testing::golden_files("(.*/)?mmlu_prompts_sha256[^/]*[.]json");
  if (files.empty()) SKIP("no mmlu_prompts_sha256.json in a golden root");
  const DataLocator data = testing::data_or_skip("mmlu/test");
  const testing::ByteTokenizer tokenizer(false);
  for (const auto& file : files) {
    const Json subjects = Json::parse(testing::read_text(file));
    for (const auto& [subject, wanted] : subjects.items()) {
      INFO(subject);
      const auto task = testing::make_task("mmlu", {{"tokens", "100000"}, {"subjects", subject}, {"per_subject", "1"}});
      const Sample sample = task->samples({tokenizer, data, nullptr, 17}).front();
      CHECK(sha256_hex(prompt_text(tokenizer, sample)) == wanted["lm_eval_5shot_first_item_sha256"].get<std::string>());
      CHECK(sample.answers.front() == wanted["answer"].get<std::string>());
      CHECK(tokenizer.decode(sample.query, true) == "\nAnswer:");
    }
  }
}

TEST_CASE("MMLU prompts of a scored model are the ones it was scored on", "[golden]") {
  const auto files = testing::golden_files("scores/mmlu[^/]*[.]jsonl");
  if (files.empty()) SKIP("no scores/mmlu.jsonl in a golden root");
  const DataLocator data = testing::data_or_skip("mmlu/test");
  const auto tokenizer = testing::smollm2_tokenizer_or_skip();
  std::map<std::string, std::vector<Sample>> samples;
  for (const auto& file : files) {
    for (const std::string& line : testing::lines_of(file)) {
      INFO(line);
      const Json wanted = Json::parse(line);
      const std::string subject = wanted["subject"];
      if (!samples.contains(subject))
        samples[subject] =
            testing::make_task("mmlu", {{"tokens", "8192"}, {"subjects", subject}, {"per_subject", "20"}})
                ->samples({*tokenizer, data, nullptr, 17});
      const Sample& sample = samples[subject].at(wanted["index"].get<size_t>());
      CHECK(sha256_hex(prompt_text(*tokenizer, sample)) == wanted["prompt_sha256"].get<std::string>());
      CHECK(std::ssize(sample.context) + std::ssize(sample.query) == wanted["tokens"].get<int64_t>());
      CHECK(sample.answers.front() == wanted["answer"].get<std::string>());
      REQUIRE(sample.choices.size() == 4);
      for (size_t i = 0; i < 4; ++i) CHECK(sample.choices[i] == std::vector{wanted["choice_ids"][i].get<int32_t>()});
    }
  }
}

TEST_CASE("MMLU has 14042 questions in 57 subjects and two maps of four categories", "[golden]") {
  const DataLocator data = testing::data_or_skip("mmlu/test");
  const testing::ByteTokenizer tokenizer(false);
  const auto task = testing::make_task("mmlu", {{"tokens", "100000"}, {"shots", "0"}});
  const std::vector<Sample> samples = task->samples({tokenizer, data, nullptr, 17});
  CHECK(samples.size() == 14042);
  CHECK(task->sample_count() == 14042);
  std::map<std::string, std::set<std::string>> subjects;
  std::map<std::string, int> questions;
  for (const Sample& sample : samples) {
    for (const char* map : {"category", "original_category"}) {
      const std::string category = std::string(map) + " " + sample.tags.at(map);
      subjects[category].insert(sample.tags.at("subject"));
      ++questions[category];
    }
  }
  CHECK(subjects["category stem"].size() == 19);
  CHECK(subjects["category humanities"].size() == 13);
  CHECK(subjects["category social_sciences"].size() == 12);
  CHECK(subjects["category other"].size() == 13);
  CHECK(subjects["original_category stem"].size() == 18);
  CHECK(questions["original_category stem"] == 3018);
  CHECK(questions["original_category humanities"] == 4705);
  CHECK(questions["original_category social_sciences"] == 3077);
  CHECK(questions["original_category other"] == 3242);
}

TEST_CASE("MMLU's examples are shared, its query is the last line") {
  const SmallMmlu mmlu;
  const std::vector<Sample> samples = mmlu.samples();
  REQUIRE(samples.size() == 2);
  const std::string head = "The following are multiple choice questions (with answers) about sociology.\n\nShot 0?\n";
  CHECK(prompt_text(mmlu.tokenizer, samples[0]).starts_with(head));
  CHECK(prompt_text(mmlu.tokenizer, samples[0])
            .ends_with("\n\nWhat \"is\"\nit?\nA. one\nB. two\nC. three\nD. four\nAnswer:"));
  CHECK(samples[0].context.front() == 256);  // BOS
  const auto [first, second] = std::mismatch(samples[0].context.begin(), samples[0].context.end(),
                                             samples[1].context.begin(), samples[1].context.end());
  CHECK(*first == 'W');
  CHECK(*second == 'A');
  CHECK(samples[0].choices == std::vector<std::vector<int32_t>>{{' ', 'A'}, {' ', 'B'}, {' ', 'C'}, {' ', 'D'}});
}

TEST_CASE("a prompt that is too long loses its beginning and is tagged") {
  const SmallMmlu mmlu;
  const std::vector<Sample> whole = mmlu.samples(), cut = mmlu.samples({{"tokens", "100"}});
  REQUIRE(cut.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    const auto length = [](const Sample& s) { return std::ssize(s.context) + std::ssize(s.query); };
    CHECK(cut[i].tags.at("truncated_from") == std::to_string(length(whole[i])));
    CHECK(length(cut[i]) == 99);  // the model reads one token of a choice of two
    CHECK(prompt_text(mmlu.tokenizer, whole[i]).ends_with(prompt_text(mmlu.tokenizer, cut[i])));
    CHECK(!whole[i].tags.contains("truncated_from"));
  }
}

TEST_CASE("MMLU in the model's chat format has no examples and answers without a space") {
  const SmallMmlu mmlu;
  const ChatPrompt chat = [](const std::string& message) { return "<user>" + message + "<end>\n<assistant>\n"; };
  const std::vector<Sample> samples = mmlu.samples({{"format", "chat"}}, chat);
  const std::string text = prompt_text(mmlu.tokenizer, samples[1]);
  CHECK(text ==
        "<user>The following are multiple choice questions (with answers) about sociology.\n\nAnd this?\nA. "
        "a\nB. b\nC. c\nD. d\nAnswer:<end>\n<assistant>\n");
  CHECK(mmlu.tokenizer.decode(samples[1].query, true) == "\nAnswer:<end>\n<assistant>\n");
  CHECK(samples[1].context.front() == '<');  // the format writes its own BOS
  CHECK(samples[1].choices[3] == std::vector<int32_t>{'D'});
  CHECK_THROWS_MATCHES(mmlu.samples({{"format", "chat"}}), ConfigError,
                       MessageMatches(ContainsSubstring("mmlu.format = chat: the model has no chat template")));
}

TEST_CASE("MMLU's answer is the likeliest choice, of equal ones the first") {
  const SmallMmlu mmlu;
  const auto task = testing::make_task("mmlu", {{"tokens", "2000"}});
  Sample sample = mmlu.samples()[1];
  const auto acc = [&](std::vector<double> values) {
    Output output;
    for (const double value : values) output.choices.push_back({value, false});
    return task->score(sample, output).at("acc");
  };
  CHECK(acc({-1, -2, -3, -4}) == 1);
  CHECK(acc({-1, -1, -3, -4}) == 1);
  CHECK(acc({-2, -1, -3, -4}) == 0);
  CHECK_THROWS_AS(acc({-1, -2}), std::invalid_argument);
}

TEST_CASE("MMLU data that cannot be right names file and line") {
  const SmallMmlu mmlu;
  const auto check = [&](const std::string& test, const std::string& message) {
    INFO(test);
    mmlu.write("test", test);
    CHECK_THROWS_MATCHES(mmlu.samples(), DataError, MessageMatches(ContainsSubstring(message)));
  };
  check("a?,1,2,3,4,A\nb?,1,2,3,4,E\n", "sociology_test.csv:2: the answer is 'E', not A, B, C or D");
  check("a?,1,2,3,4,A\nb?,1,2,3,4,AB\n", "sociology_test.csv:2: the answer is 'AB'");
  check("\"a\n?\",1,2,3,4,A\nb?,1,2,3,4,\n", "sociology_test.csv:3: the answer is ''");
  check("a?,1,2,3,4\n", "sociology_test.csv:1: 5 fields, expected 6");
  check(" ,1,2,3,4,A\nb?,1,2,3,4,B\n", "sociology_test.csv:1: the question is empty");
  check("a?,1,2,3,4,A\n", "sociology_test.csv: 1 questions, the split test has 201");
  check("a?,1,2,\xff,4,A\n", "is not UTF-8");
}

TEST_CASE("MMLU's subjects are checked by name") {
  CHECK_THROWS_MATCHES(testing::make_task("mmlu", {{"tokens", "512"}, {"subjects", "sociology, anatomi"}}), ConfigError,
                       MessageMatches(ContainsSubstring("no subject 'anatomi', did you mean 'anatomy'?")));
  CHECK_THROWS_MATCHES(testing::make_task("mmlu", {{"tokens", "512"}, {"subjects", "anatomy,anatomy"}}), ConfigError,
                       MessageMatches(ContainsSubstring("'anatomy' stands twice")));
  CHECK(testing::make_task("mmlu", {{"tokens", "512"}, {"subjects", "anatomy, virology"}})->sample_count() ==
        135 + 166);
}

}  // namespace kvsweep
