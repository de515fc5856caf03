// contract: prompts of an exact number of tokens, split where no token is cut.
#include "tasks/data/fit.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <memory>

#include "harness/core/error.h"
#include "tasks/data/haystack.h"
#include "tasks/data/words.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
namespace {

std::unique_ptr<Tokenizer> toy(int kind) {
  if (kind == 0) return std::make_unique<testing::PieceTokenizer>();
  return std::make_unique<testing::ByteTokenizer>(kind == 2);
}

PromptPlan plan_of(int64_t tokens, const Haystack& haystack) {
  return {.name = "test.tokens",
          .head = "Read this.\n",
          .tail = "\nWhat was it? It was",
          .separator = haystack.separator,
          .next_sentence = haystack.next,
          .inserts = {{"IN THE MIDDLE.", 50}, {"AT THE END.", 100}, {"AT THE START.", 0}},
          .tokens = tokens};
}

}  // namespace

TEST_CASE("every number of tokens is met exactly") {
  const int kind = GENERATE(0, 1, 2);
  const bool lines = GENERATE(false, true);
  const auto tokenizer = toy(kind);
  const Filler filler(*tokenizer, own_nouns());
  Rng rng(1);
  for (int64_t tokens = 120; tokens < 220; ++tokens) {
    INFO(kind << " " << lines << " " << tokens);
    const FittedPrompt prompt =
        fit_prompt(plan_of(tokens, lines ? noise_haystack() : generated_haystack(5)), *tokenizer, filler, rng);
    REQUIRE(std::ssize(prompt.ids) == tokens);
    REQUIRE(prompt.ids == encode_with_bos(*tokenizer, prompt.context + "\nWhat was it? It was", false));
  }
}

TEST_CASE("inserts stand at their depths") {
  const testing::PieceTokenizer tokenizer;
  const Filler filler(tokenizer, own_nouns());
  Rng rng(1);
  const FittedPrompt prompt = fit_prompt(plan_of(2000, generated_haystack(5)), tokenizer, filler, rng);
  CHECK(prompt.context.starts_with("Read this.\nAT THE START. "));
  CHECK(prompt.context.ends_with(" AT THE END."));
  CHECK(prompt.context.substr(prompt.offsets[0]).starts_with("IN THE MIDDLE. "));
  CHECK(prompt.context.substr(prompt.offsets[1]) == "AT THE END.");
  CHECK(prompt.offsets[2] == std::string("Read this.\n").size());
  const double share = static_cast<double>(prompt.offsets[0]) / static_cast<double>(prompt.context.size());
  CHECK((share > 0.45 && share < 0.55));
}

TEST_CASE("a token that reaches into the tail belongs to the query") {
  const testing::PieceTokenizer tokenizer;  // ".\n" is one token
  const Filler filler(tokenizer, own_nouns());
  Rng rng(1);
  const FittedPrompt prompt = fit_prompt(plan_of(200, generated_haystack(5)), tokenizer, filler, rng);
  const std::vector<int32_t> query(prompt.ids.begin() + prompt.context_tokens, prompt.ids.end());
  CHECK(tokenizer.decode(query, false) == ".\nWhat was it? It was");
  CHECK(prompt.context_tokens + 1 == std::ssize(tokenizer.encode(prompt.context, false)));

  const testing::ByteTokenizer bytes(true);
  const FittedPrompt cut = fit_prompt(plan_of(300, generated_haystack(5)), bytes, Filler(bytes, own_nouns()), rng);
  CHECK(cut.context_tokens == std::ssize(cut.context) + 1);
}

TEST_CASE("an empty tail still leaves one token for the query") {
  const testing::ByteTokenizer tokenizer(false);
  PromptPlan plan = plan_of(150, generated_haystack(5));
  plan.tail = "";
  Rng rng(1);
  CHECK(fit_prompt(plan, tokenizer, Filler(tokenizer, own_nouns()), rng).context_tokens == 149);
}

TEST_CASE("too few tokens say how many it takes") {
  const testing::ByteTokenizer tokenizer(false);
  const Filler filler(tokenizer, own_nouns());
  Rng rng(1);
  const size_t fixed = std::string("Read this.\nAT THE START. IN THE MIDDLE. AT THE END.\nWhat was it? It was").size();
  CHECK_THROWS_MATCHES(fit_prompt(plan_of(64, generated_haystack(5)), tokenizer, filler, rng), ConfigError,
                       Catch::Matchers::MessageMatches(
                           Catch::Matchers::ContainsSubstring("test.tokens = 64 is too short") &&
                           Catch::Matchers::ContainsSubstring("take " + std::to_string(fixed) + " tokens; at least ")));
}

TEST_CASE("a filler sentence has the tokens that were asked for") {
  const testing::ByteTokenizer tokenizer(false);
  const Filler filler(tokenizer, own_nouns());
  Rng rng(3);
  CHECK_FALSE(filler.sentence(1, rng));
  CHECK_FALSE(filler.sentence(0, rng));
  CHECK_FALSE(filler.sentence(-5, rng));
  for (int64_t tokens = 8; tokens < 300; ++tokens) {
    const auto text = filler.sentence(tokens, rng);
    REQUIRE(text);
    CHECK(std::ssize(" " + *text) == tokens);
  }
}

TEST_CASE("units fill a prompt as far as they fit, whatever they cost") {
  const int kind = GENERATE(0, 1, 2);
  const auto tokenizer = toy(kind);
  // The later ones cost more: 3 characters to 30.
  const auto make = [](int64_t units) {
    CutText text{"Begin", "\nWhat was it?"};
    for (int64_t i = 0; i < units; ++i) text.context += " ." + std::string(static_cast<size_t>(1 + i % 28), 'a');
    return text;
  };
  for (int64_t tokens = 60; tokens < 3000; tokens += 37) {
    INFO(kind << " " << tokens);
    int64_t encoded = 0;
    const UnitPlan plan{.name = "test.tokens",
                        .make =
                            [&](int64_t units) {
                              ++encoded;
                              return make(units);
                            },
                        .least = 1,
                        .most = 150,
                        .tokens = tokens};
    const FittedUnits fitted = fit_units(plan, *tokenizer);
    CHECK(fitted.ids == text_ids(*tokenizer, make(fitted.units)));
    CHECK(std::ssize(fitted.ids) <= tokens);
    CHECK((fitted.units == 150 || tokens - std::ssize(fitted.ids) < 30));
    CHECK(encoded <= 12);
  }
  CHECK_THROWS_MATCHES(
      fit_units({.name = "test.tokens", .make = make, .least = 20, .most = 40, .tokens = 30}, *tokenizer), ConfigError,
      Catch::Matchers::MessageMatches(Catch::Matchers::ContainsSubstring("test.tokens")));
}

}  // namespace kvsweep
