// golden: GSM8K's prompts are lm-evaluation-harness'; oracle: its scores and diagnostics on texts written by hand.
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

// A data root with two questions and examples of each kind.
struct SmallGsm8k {
  SmallGsm8k() {
    std::filesystem::create_directories(root.path() / "gsm8k");
    write("test.jsonl", R"({"question": "One and one?", "answer": "1+1=<<1+1=2>>2\n#### 2"})"
                        "\n"
                        R"({"question": "Two and two?", "answer": "2 + 2 = 4\n#### 4"})"
                        "\n");
    std::string train;
    for (int i = 0; i < 30; ++i)
      train +=
          R"({"question": "Train )" + std::to_string(i) + R"(?", "answer": "so\n#### )" + std::to_string(i) + "\"}\n";
    write("train.jsonl", train);
    write("cot_8shot.json", R"({"gsm8k_cot": [{"question": "Shot?", "target": "So. The answer is 1."}]})");
  }
  void write(const std::string& name, const std::string& text) const {
    testing::write_text(root.path() / "gsm8k" / name, text);
  }
  std::vector<Sample> samples(std::map<std::string, std::string> more, ChatPrompt chat = {}) const {
    more.insert({{"tokens", "4000"}, {"samples", "2"}});
    const DataLocator data({root.path()});
    return testing::make_task("gsm8k", more)->samples({tokenizer, data, nullptr, 17, chat});
  }
  testing::TemporaryDirectory root;
  testing::ByteTokenizer tokenizer{false};
};

std::map<std::string, double> scores(const std::string& text, const std::string& format = "cot") {
  const auto task = testing::make_task("gsm8k", {{"tokens", "512"}, {"format", format}, {"max_new_tokens", "8"}});
  Sample sample;
  sample.answers = {"6 * 3 = <<6*3=18>>18\n#### 18"};
  sample.max_new_tokens = 8;
  Output output;
  output.text = text;
  return task->score(sample, output);
}

}  // namespace

TEST_CASE("GSM8K's drawn examples are lm-evaluation-harness'", "[golden]") {
  const auto files = testing::golden_files("(.*/)?gsm8k_lmeval_fewshot[^/]*[.]json");
  if (files.empty()) SKIP("no gsm8k_lmeval_fewshot.json in a golden root");
  const DataLocator data = testing::data_or_skip("gsm8k/train.jsonl");
  const testing::ByteTokenizer tokenizer(false);
  for (const auto& file : files) {
    const Json docs = Json::parse(testing::read_text(file))["docs"];
    const auto task = testing::make_task("gsm8k", {{"tokens", "100000"},
                                                   {"format", "plain"},
                                                   {"fewshot", "lm_eval_compat"},
                                                   {"samples", std::to_string(docs.size())}});
    const std::vector<Sample> samples = task->samples({tokenizer, data, nullptr, 17});
    for (const Json& doc : docs) {
      INFO(doc.dump());
      CHECK(sha256_hex(prompt_text(tokenizer, samples.at(doc["doc"].get<size_t>()))) ==
            doc["sha256"].get<std::string>());
    }
  }
}

TEST_CASE("GSM8K's chain-of-thought prompts are those that a model was scored on", "[golden]") {
  const auto files = testing::golden_files("scores/gsm8k_cot[^/]*[.]jsonl");
  if (files.empty()) SKIP("no scores/gsm8k_cot.jsonl in a golden root");
  const DataLocator data = testing::data_or_skip("gsm8k/cot_8shot.json");
  const auto tokenizer = testing::smollm2_tokenizer_or_skip();
  const auto task = testing::make_task("gsm8k", {{"tokens", "4096"}, {"samples", "100"}});
  const std::vector<Sample> samples = task->samples({*tokenizer, data, nullptr, 17});
  for (const auto& file : files) {
    for (const std::string& line : testing::lines_of(file)) {
      const Json wanted = Json::parse(line);
      INFO(wanted["index"]);
      const Sample& sample = samples.at(wanted["index"].get<size_t>());
      CHECK(sha256_hex(prompt_text(*tokenizer, sample)) == wanted["prompt_sha256"].get<std::string>());
      CHECK(std::ssize(sample.context) + std::ssize(sample.query) == wanted["tokens"].get<int64_t>());
    }
  }
}

TEST_CASE("GSM8K's formats put their own frame around a question") {
  const SmallGsm8k gsm8k;
  const Sample cot = gsm8k.samples({{"shots", "1"}})[1];
  CHECK(prompt_text(gsm8k.tokenizer, cot) == "Q: Shot?\nA: So. The answer is 1.\n\nQ: Two and two?\nA:");
  CHECK(gsm8k.tokenizer.decode(cot.query, true) == "\nA:");
  CHECK(cot.stop == std::vector<std::string>{"Q:", "</s>", "<|im_end|>"});
  const Sample plain = gsm8k.samples({{"format", "plain"}, {"shots", "2"}})[0];
  CHECK(prompt_text(gsm8k.tokenizer, plain) ==
        "Question: Train 0?\nAnswer: so\n#### 0\n\nQuestion: Train 1?\nAnswer: so\n#### 1\n\nQuestion: One and "
        "one?\nAnswer:");
  const ChatPrompt chat = [](const std::string& message) { return "<user>" + message + "<end>\n<assistant>\n"; };
  const Sample asked = gsm8k.samples({{"format", "chat"}}, chat)[0];
  CHECK(
      prompt_text(gsm8k.tokenizer, asked) ==
      "<user>Given the following problem, reason and give a final answer to the problem.\nProblem: One and one?\nYour "
      "response should end with \"The final answer is [answer]\" where [answer] is the response to the "
      "problem.\n<end>\n<assistant>\n");
  CHECK(gsm8k.tokenizer.decode(asked.query, true).starts_with("\nYour response should end with"));
}

TEST_CASE("GSM8K's drawn examples differ from question to question, and the seed of a sample from the next") {
  const SmallGsm8k gsm8k;
  const auto samples =
      gsm8k.samples({{"format", "plain"}, {"fewshot", "lm_eval_compat"}, {"temperature", "0.7"}, {"top_p", "0.9"}});
  CHECK(samples[0].context != samples[1].context);
  CHECK(samples[0].sampling.temperature == 0.7);
  CHECK(samples[0].sampling.top_p == 0.9);
  CHECK(samples[0].sampling.seed != samples[1].sampling.seed);
}

TEST_CASE("GSM8K scores the answer strictly and flexibly, and says what broke") {
  const auto right = scores(" 6 * 3 = 18. The answer is 18.");
  CHECK(right.at("strict") == 1);
  CHECK(right.at("flexible") == 1);
  CHECK(right.at("answer_missing") == 0);
  CHECK(right.at("arithmetic_steps") == 1);
  CHECK(right.at("arithmetic_errors") == 0);
  const auto loose = scores(" 6 * 3 = 20, minus 2 is 18");
  CHECK(loose.at("strict") == 0);
  CHECK(loose.at("flexible") == 1);
  CHECK(loose.at("answer_missing") == 1);
  CHECK(loose.at("arithmetic_errors") == 1);
  CHECK(scores("so\n#### 18", "plain").at("strict") == 1);
  CHECK(scores("The final answer is $18", "chat").at("strict") == 1);
  const auto empty = scores("");
  CHECK(empty.at("strict") == 0);
  CHECK(empty.at("flexible") == 0);
}

TEST_CASE("GSM8K data that cannot be right names file and line") {
  const SmallGsm8k gsm8k;
  const auto check = [&](const std::string& test, const std::string& message) {
    INFO(test);
    gsm8k.write("test.jsonl", test);
    CHECK_THROWS_MATCHES(gsm8k.samples({{"samples", "1"}, {"shots", "1"}}), DataError,
                         MessageMatches(ContainsSubstring(message)));
  };
  check(R"({"question": "q", "answer": "#### 1"}
{"question": "q")",
        "test.jsonl:2: not JSON");
  check(R"({"question": "q"})", "test.jsonl:1: no 'answer'; it has question");
  check(R"({"question": " ", "answer": "#### 1"})", "test.jsonl:1: 'question' is \" \": must not be empty");
  check(R"({"question": "q", "answer": "one"})", "test.jsonl:1: 'answer' is \"one\": has no '#### <number>'");
  check(R"({"question": 3, "answer": "#### 1"})", "test.jsonl:1: 'question' is 3: expected a text");
  check("[1]", "test.jsonl:1: [1] is not a JSON object");
  check("\n", "test.jsonl: no records");
  gsm8k.write("test.jsonl", R"({"question": "q", "answer": "#### 1"})");
  CHECK_THROWS_MATCHES(gsm8k.samples({{"shots", "1"}}), ConfigError,
                       MessageMatches(ContainsSubstring("has 1 questions")));
}

TEST_CASE("GSM8K's parameters are checked together") {
  const auto reject = [](std::map<std::string, std::string> values, const std::string& message) {
    values["tokens"] = "512";
    CHECK_THROWS_MATCHES(testing::make_task("gsm8k", values), ConfigError, MessageMatches(ContainsSubstring(message)));
  };
  reject({{"format", "chat"}, {"shots", "3"}}, "format chat has none");
  reject({{"format", "cot"}, {"shots", "9"}}, "format cot has 8");
  reject({{"fewshot", "lm_eval_compat"}}, "examples are drawn with format plain only");
}

}  // namespace kvsweep
