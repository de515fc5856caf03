// contract: what every tokenizer promises, and the repair of broken UTF-8.
#include "harness/core/tokenizer.h"

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <filesystem>
#include <functional>
#include <random>

#include "models/tokenizer_gguf.h"
#include "models/tokenizer_load.h"
#include "models/utf8.h"
#include "tests/support/golden.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> load_or_skip(const std::string& name) {
  if (name == "smollm2") return load_gguf_tokenizer(GgufFile(testing::smollm2_or_skip()));
  for (const fs::path& root : testing::data_roots())
    if (fs::exists(root / "tokenizers" / name)) return load_tokenizer(root / "tokenizers" / name);
  SKIP("no tokenizers/" << name << " below $KVSWEEP_DATA or ../shared/data");
  return nullptr;
}

// Up to `characters` characters of scripts and symbols of one to four bytes, spaces and newlines among them.
std::string random_text(std::mt19937& random, size_t characters) {
  constexpr std::array<std::pair<char32_t, char32_t>, 8> kRanges = {{{0x20, 0x7E},
                                                                     {0x20, 0x7E},
                                                                     {0x09, 0x0A},
                                                                     {0xA0, 0x17F},
                                                                     {0x400, 0x4FF},
                                                                     {0x4E00, 0x9FFF},
                                                                     {0x2000, 0x206F},
                                                                     {0x1F300, 0x1F6FF}}};
  std::string text;
  for (size_t i = 0; i < characters; ++i) {
    const auto [low, high] = kRanges[random() % kRanges.size()];
    append_utf8(text, low + static_cast<char32_t>(random()) % (high - low + 1));
  }
  return text;
}

}  // namespace

TEST_CASE("decoding what was encoded gives the text back") {
  const std::string name = GENERATE("smollm2", "llama3/tokenizer.model", "llama2/tokenizer.model");
  const auto tokenizer = load_or_skip(name);
  std::mt19937 random(17);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(random, random() % 60);
    INFO(name << ": '" << text << "'");
    const auto ids = tokenizer->encode(text, false);
    CHECK(tokenizer->decode(ids, false) == text);
    CHECK(tokenizer->decode(ids, true) == text);
  }
}

TEST_CASE("long runs of one character neither recurse nor take quadratic time") {
  const std::string name = GENERATE("smollm2", "llama3/tokenizer.model", "llama2/tokenizer.model", "tinyllama_hf");
  const auto tokenizer = load_or_skip(name);
  for (const char* unit : {"a", "7", "!", "\n", "xyzzy", "é", "😀"}) {
    INFO(name << ": " << unit);
    std::string text;
    while (text.size() < 200'000) text += unit;
    CHECK(tokenizer->decode(tokenizer->encode(text, true), false) == text);
  }
}

TEST_CASE("special tokens are parsed only on request") {
  const auto tokenizer = load_or_skip("llama2/tokenizer.model");
  const std::vector<int32_t> parsed = tokenizer->encode("<s>Hello</s>", true);
  CHECK(parsed == std::vector<int32_t>{1, 15043, 2});
  CHECK(tokenizer->encode("<s>Hello</s>", false).size() > 3);
  CHECK(tokenizer->decode(parsed, false) == "<s>Hello</s>");
  CHECK(tokenizer->decode(parsed, true) == "Hello");
  CHECK(tokenizer->piece(15043) == "▁Hello");
}

TEST_CASE("a rank file of Llama-3 names its special tokens") {
  const auto tokenizer = load_or_skip("llama3/tokenizer.model");
  CHECK(tokenizer->vocab_size() == 128000 + 256);  // ranks + special tokens
  CHECK(tokenizer->bos() == 128000);
  CHECK(tokenizer->end_tokens() == std::vector<int32_t>{128001, 128008, 128009});
  CHECK(tokenizer->piece(128255) == "<|reserved_special_token_245|>");
  CHECK(encode_with_bos(*tokenizer, "", true) == std::vector<int32_t>{128000});
}

TEST_CASE("SmolLM2's vocabulary asks for no BOS and ends a turn with its own token") {
  const auto tokenizer = load_or_skip("smollm2");
  CHECK(tokenizer->vocab_size() == 49152);
  CHECK(tokenizer->bos() == 1);
  CHECK_FALSE(tokenizer->adds_bos());
  CHECK(tokenizer->end_tokens() == std::vector<int32_t>{2});
  CHECK(tokenizer->piece(253) == "Ġa");
  CHECK(encode_with_bos(*tokenizer, "a", false) == std::vector<int32_t>{81});
}

TEST_CASE("a bad id is refused with the size of the vocabulary") {
  const auto tokenizer = load_or_skip("llama2/tokenizer.model");
  CHECK_THROWS_AS(tokenizer->decode({32000}, false), std::out_of_range);
  CHECK_THROWS_AS(tokenizer->decode({-1}, false), std::out_of_range);
  CHECK_THROWS_AS(tokenizer->piece(32000), std::out_of_range);
}

TEST_CASE("broken UTF-8 becomes one replacement character for each maximal subpart") {
  // The example of the Unicode standard, section 3.9, table 3-8 and its neighbours.
  CHECK(lossy_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  CHECK(lossy_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") == "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  CHECK(lossy_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") == "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41\uFFFD\uFFFD\x42");
  CHECK(lossy_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == "\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  CHECK(lossy_utf8("a\xE2\x82") == "a\uFFFD");
  CHECK(lossy_utf8("aé你😀") == "aé你😀");
  CHECK(lossy_utf8("").empty());
}

TEST_CASE("every code point is written and read back") {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Step step = first_utf8(text);
    if (!step.valid || step.code != code || step.bytes != static_cast<int64_t>(text.size())) {
      INFO("U+" << std::hex << static_cast<uint32_t>(code));
      FAIL_CHECK();
    }
  }
}

}  // namespace kvsweep
