// oracle: tasks on real vocabularies: exact lengths, no token cut, and a token count that others have measured.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <ctime>
#include <memory>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "models/gguf.h"
#include "models/tokenizer_gguf.h"
#include "models/tokenizer_load.h"
#include "tests/support/golden.h"
#include "tests/support/tasks.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

std::unique_ptr<Task> make(const std::string& name, const std::map<std::string, std::string>& values) {
  std::map<std::string, ParamValue> given;
  for (const auto& [key, value] : values) given[key] = {value, 1};
  Params params(name, "sweep.yaml", std::move(given));
  const auto& table = task_table();
  return std::find_if(table.begin(), table.end(), [&](const auto& one) { return one.name == name; })->make(params);
}

// A prompt is what tokenizing its text gives, its context what tokenizing the context gives, up to a token that both
// share.
void check_prompts(const Tokenizer& tokenizer, const std::vector<Sample>& samples, int64_t tokens) {
  for (const Sample& sample : samples) {
    INFO(sample.id);
    const std::string context = tokenizer.decode(sample.context, true), query = tokenizer.decode(sample.query, false);
    std::vector<int32_t> ids = sample.context;
    ids.insert(ids.end(), sample.query.begin(), sample.query.end());
    CHECK(std::ssize(ids) == tokens);
    CHECK(encode_with_bos(tokenizer, context + query, false) == ids);
    CHECK((query.starts_with("\nWhat is the special") || query.starts_with(".\nWhat is the special")));
    CHECK(std::ssize(sample.query) < 120);
  }
}

}  // namespace

TEST_CASE("needle prompts are exact with SmolLM2's vocabulary") {
  const GgufFile file(testing::smollm2_or_skip());
  const auto tokenizer = load_gguf_tokenizer(file);
  const DataLocator data({});
  for (const char* haystack : {"generated", "noise", "needles"}) {
    for (const char* needle : {"number", "word", "uuid"}) {
      for (const char* tokens : {"512", "777", "4096"}) {
        INFO(haystack << " " << needle << " " << tokens);
        const auto task = make("needle", {{"tokens", tokens}, {"haystack", haystack}, {"needle", needle}});
        check_prompts(*tokenizer, task->samples({*tokenizer, data, nullptr, 17}), std::stoll(tokens));
      }
    }
  }
}

TEST_CASE("needle prompts are exact with SentencePiece and BOS", "[golden]") {
  bool found = false;
  for (const auto& root : testing::data_roots()) {
    if (!std::filesystem::exists(root / "tokenizers/llama2/tokenizer.model")) continue;
    found = true;
    const auto tokenizer = load_tokenizer(root / "tokenizers/llama2/tokenizer.model");
    REQUIRE(tokenizer->adds_bos());
    const DataLocator data({root});
    for (const char* haystack : {"generated", "noise", "essays"}) {
      INFO(haystack);
      const auto task = make("needle", {{"tokens", "1500"}, {"haystack", haystack}});
      check_prompts(*tokenizer, task->samples({*tokenizer, data, nullptr, 17}), 1500);
    }
  }
  if (!found) SKIP("no tokenizers/llama2 in a data root");
}

TEST_CASE("wikitext2 has the 166 windows of 2048 Llama-2 tokens that the literature counts", "[golden]") {
  bool found = false;
  for (const auto& root : testing::data_roots()) {
    if (!std::filesystem::exists(root / "tokenizers/llama2/tokenizer.model") ||
        !std::filesystem::exists(root / "wikitext2_raw/wikitext-test.hfjoin.txt"))
      continue;
    found = true;
    const auto tokenizer = load_tokenizer(root / "tokenizers/llama2/tokenizer.model");
    const DataLocator data({root});
    const TaskContext context{*tokenizer, data, nullptr, 17};
    const auto task = make("perplexity", {{"text", "wikitext2"}, {"tokens", "2048"}, {"samples", "167"}});
    CHECK_THROWS_MATCHES(task->samples(context), ConfigError,
                         MessageMatches(ContainsSubstring("341469 tokens, 166 windows of tokens = 2048")));
  }
  if (!found) SKIP("no tokenizers/llama2 or wikitext2_raw in a data root");
}

TEST_CASE("a thousand samples are made within five seconds", "[golden]") {
  const auto [task, values] = GENERATE(table<std::string, std::map<std::string, std::string>>(
      {{"mmlu", {{"tokens", "8192"}, {"per_subject", "18"}}},
       {"gsm8k", {{"tokens", "4096"}, {"format", "plain"}, {"samples", "1000"}, {"fewshot", "lm_eval_compat"}}},
       {"gsm8k", {{"tokens", "4096"}, {"samples", "1000"}}},
       {"triviaqa", {{"tokens", "2048"}, {"samples", "980"}}},
       {"cnn_dailymail", {{"tokens", "2048"}, {"samples", "100"}}}}));
  INFO(task);
  const auto made = make(task, values);
  const DataLocator data(testing::data_roots());
  for (const std::string& item : made->data()) testing::data_or_skip(item);
  const auto tokenizer = testing::smollm2_tokenizer_or_skip();
  const std::clock_t start = std::clock();  // CPU time: the machine does other things as well
  const std::vector<Sample> samples = made->samples({*tokenizer, data, nullptr, 17});
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  CHECK(seconds * 1000 / static_cast<double>(samples.size()) < 5);
  UNSCOPED_INFO(task << ": " << samples.size() << " samples in " << seconds << " s");
  CHECK(!samples.empty());
}

}  // namespace kvsweep
