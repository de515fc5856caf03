// contract: windows of the perplexity task.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <memory>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/core/task.h"
#include "tests/support/golden.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

std::unique_ptr<Task> perplexity(const std::map<std::string, std::string>& values) {
  std::map<std::string, ParamValue> given;
  int line = 1;
  for (const auto& [key, value] : values) given[key] = {value, line++};
  Params params("perplexity", "sweep.yaml", std::move(given));
  const auto& table = task_table();
  return std::find_if(table.begin(), table.end(), [](const auto& one) { return one.name == "perplexity"; })
      ->make(params);
}

}  // namespace

TEST_CASE("windows cut the text without overlap, with one BOS in front of all") {
  testing::TemporaryDirectory root;
  testing::write_text(root.path() / "t.txt", "abcdefghijklmnopqrstuvwxyz");
  const DataLocator data({root.path()});
  const testing::ByteTokenizer tokenizer(true);
  const auto task = perplexity({{"text", "t.txt"}, {"tokens", "9"}, {"samples", "3"}, {"scored", "4"}});
  const auto samples = task->samples({tokenizer, data, nullptr, 17});
  REQUIRE(samples.size() == 3);  // 27 tokens
  CHECK(samples[0].context == encode_with_bos(tokenizer, "abcd", false));
  CHECK(tokenizer.decode(samples[0].query, false) == "efgh");
  CHECK(tokenizer.decode(samples[1].context, false) == "ijklm");
  CHECK(tokenizer.decode(samples[2].query, false) == "wxyz");
  CHECK(samples[2].id == "w0002");
  CHECK(samples[2].max_new_tokens == 0);
  CHECK(task->query_tokens() == 4);
  CHECK(task->data() == std::vector<std::string>{"t.txt"});
}

TEST_CASE("half of a window is scored unless it is said otherwise, or all of it") {
  const testing::ByteTokenizer tokenizer(false);
  const DataLocator data({});
  const ModelText text = [](int64_t sequences, int64_t tokens, uint64_t) {
    return std::vector<std::vector<int32_t>>(static_cast<size_t>(sequences),
                                             std::vector<int32_t>(static_cast<size_t>(tokens), 7));
  };
  const TaskContext context{tokenizer, data, text, 17};
  CHECK(perplexity({{"text", "model"}, {"tokens", "11"}})->samples(context)[0].query.size() == 5);
  const auto whole = perplexity({{"text", "model"}, {"tokens", "11"}, {"scored", "11"}})->samples(context);
  CHECK(whole[0].query.size() == 11);
  CHECK(whole[0].context.empty());
  CHECK_THROWS_AS(perplexity({{"text", "model"}, {"tokens", "11"}, {"scored", "12"}}), ConfigError);
  CHECK_THROWS_AS(perplexity({{"text", "model"}, {"tokens", "11"}, {"scored", "1"}}), ConfigError);
}

TEST_CASE("more windows than the text has are refused with the number that it has") {
  testing::TemporaryDirectory root;
  testing::write_text(root.path() / "t.txt", "abcdefghijklmnopqrstuvwxyz");
  const DataLocator data({root.path()});
  const testing::ByteTokenizer tokenizer(false);
  CHECK_THROWS_MATCHES(
      perplexity({{"text", "t.txt"}, {"tokens", "10"}, {"samples", "3"}})->samples({tokenizer, data, nullptr, 1}),
      ConfigError,
      MessageMatches(ContainsSubstring("samples = 3") && ContainsSubstring("26 tokens, 2 windows of tokens = 10")));
}

TEST_CASE("the score is the mean over the scored tokens, and a missing token is an error") {
  const auto task = perplexity({{"text", "model"}, {"tokens", "8"}});
  Sample sample;
  sample.query = {1, 2, 3};
  Output output;
  output.nll = {1.0F, 2.0F};
  CHECK(task->score(sample, output).at("nll") == (1.0 + 2.0) / 2);
  output.nll.pop_back();
  CHECK_THROWS_AS(task->score(sample, output), std::invalid_argument);
}

TEST_CASE("wikitext2 is a name for the raw test split, and its absence says how to get it") {
  const auto task = perplexity({{"text", "wikitext2"}, {"tokens", "64"}});
  const DataLocator data({"/nowhere"});
  const testing::ByteTokenizer tokenizer(false);
  CHECK_THROWS_MATCHES(task->samples({tokenizer, data, nullptr, 1}), DataError,
                       MessageMatches(ContainsSubstring("/nowhere/wikitext2_raw/wikitext-test.hfjoin.txt") &&
                                      ContainsSubstring("CC BY-SA 3.0") && ContainsSubstring("1296370 bytes")));
  CHECK_THROWS_MATCHES(perplexity({{"text", "wikitext"}, {"tokens", "64"}}), ConfigError,
                       MessageMatches(ContainsSubstring("did you mean 'wikitext2'?")));
}

TEST_CASE("the wikitext2 file is the canonical one", "[golden]") {
  bool found = false;
  for (const auto& root : testing::data_roots()) {
    const auto file = root / "wikitext2_raw/wikitext-test.hfjoin.txt";
    if (!std::filesystem::exists(file)) continue;
    found = true;
    CHECK(sha256_file(file) == "696cca6b65a171b0a358a4be6732cdfdf2dd6164a32e20fd70e3c13fc4dfae83");
  }
  if (!found) SKIP("no wikitext2_raw in a data root");
}

}  // namespace kvsweep
