// contract and oracle: byte-pair encoding over small vocabularies made here; merges against plain loops.
#include "models/tokenizer_bpe.h"

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <future>
#include <map>
#include <random>

#include "harness/core/error.h"
#include "models/tokenizer_gguf.h"

namespace kvsweep {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Ids = std::vector<int32_t>;
using Pairs = std::map<std::pair<int32_t, int32_t>, std::pair<int32_t, int32_t>>;  // -> rank, merged

std::string byte_token(int32_t byte) {
  return byte_level_text(std::string(1, static_cast<char>(byte)));
}

// The 256 bytes (id = byte), then what the merges make, then <|end|> (special) and <tool> (always recognised).
BpeVocabulary small_vocabulary(const std::string& pre_tokenizer,
                               const std::vector<std::pair<std::string, std::string>>& merges) {
  BpeVocabulary vocabulary;
  vocabulary.pre_tokenizer = pre_tokenizer;
  for (int32_t byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(byte_token(byte));
  for (const auto& [left, right] : merges) vocabulary.tokens.push_back(left + right);
  vocabulary.merges = merges;
  for (const char* text : {"<|end|>", "<tool>"}) {
    vocabulary.added.push_back({text, static_cast<int32_t>(vocabulary.tokens.size()), text[1] == '|'});
    vocabulary.tokens.emplace_back(text);
  }
  return vocabulary;
}

// Again and again the pair of lowest rank, the leftmost among equals: O(n²) and plain.
Ids merged_by_loops(Ids ids, const Pairs& pairs) {
  while (true) {
    size_t best = ids.size();
    int32_t best_rank = 0, merged = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = pairs.find({ids[i], ids[i + 1]});
      if (found == pairs.end() || (best != ids.size() && found->second.first >= best_rank)) continue;
      best = i;
      std::tie(best_rank, merged) = found->second;
    }
    if (best == ids.size()) return ids;
    ids[best] = merged;
    ids.erase(ids.begin() + static_cast<int64_t>(best) + 1);
  }
}

}  // namespace

TEST_CASE("merging by a heap equals merging by plain loops") {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    const int32_t letters = 2 + static_cast<int32_t>(random() % 4);
    int32_t symbols = letters;
    Pairs pairs;
    BpeMerges merges;
    for (int32_t rank = 0; rank < 40; ++rank) {
      const std::pair pair = {static_cast<int32_t>(random() % symbols), static_cast<int32_t>(random() % symbols)};
      const int32_t shared_rank = rank / 2;  // equal ranks: the leftmost pair goes first
      if (!pairs.try_emplace(pair, shared_rank, symbols).second) continue;
      merges.add(pair.first, pair.second, symbols, shared_rank);
      ++symbols;
    }
    Ids ids(random() % 200);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % letters);
    INFO("round " << round);
    const Ids expected = merged_by_loops(ids, pairs);
    merges.apply(ids);
    CHECK(ids == expected);
  }
}

TEST_CASE("merges go by rank and do not cross the pre-tokenizer's pieces") {
  const BpeTokenizer tokenizer(small_vocabulary("gpt-2", {{"b", "c"}, {"a", "b"}, {"Ġ", "a"}, {"c", "Ġ"}}), {}, "here");
  CHECK(tokenizer.encode("abc", false) == Ids{'a', 256});  // b c before a b
  CHECK(tokenizer.encode("ab", false) == Ids{257});
  CHECK(tokenizer.encode("c a", false) == Ids{'c', 258});  // never c and space
  CHECK(tokenizer.encode("abab ab", false) == Ids{257, 257, ' ', 257});
}

TEST_CASE("a user-defined token is always recognised, a special one on request, the longest first") {
  BpeVocabulary vocabulary = small_vocabulary("gpt-2", {});
  vocabulary.added.push_back({"<tool>s", static_cast<int32_t>(vocabulary.tokens.size()), false});
  vocabulary.tokens.emplace_back("<tool>s");
  const BpeTokenizer tokenizer(std::move(vocabulary), {}, "here");
  const int32_t end = 256, tool = 257, tools = 258;
  CHECK(tokenizer.encode("a<tool>b<tool>s", false) == Ids{'a', tool, 'b', tools});
  CHECK(tokenizer.encode("<|end|><|end|>", true) == Ids{end, end});
  CHECK(tokenizer.encode("<|end|>", false) == Ids{'<', '|', 'e', 'n', 'd', '|', '>'});
  CHECK(tokenizer.decode({end, 'a', tool}, false) == "<|end|>a<tool>");
  CHECK(tokenizer.decode({end, 'a', tool}, true) == "a<tool>");
}

TEST_CASE("bytes that are not UTF-8 are encoded as they are") {
  const BpeTokenizer tokenizer(small_vocabulary("llama-bpe", {}), {}, "here");
  const std::string bytes = {'a', '\xFF', '\xC3', ' ', '\x80', '\0', 'b', '\xE2', '\x82'};
  CHECK(tokenizer.encode(bytes, false) == Ids{'a', 0xFF, 0xC3, ' ', 0x80, 0, 'b', 0xE2, 0x82});
  CHECK(tokenizer.decode(tokenizer.encode(bytes, false), false) == bytes);
}

TEST_CASE("bytes without a token are left out") {
  BpeVocabulary vocabulary = small_vocabulary("gpt-2", {});
  vocabulary.tokens[4].clear();
  const BpeTokenizer tokenizer(std::move(vocabulary), {}, "here");
  CHECK(tokenizer.encode("a\x04z", false) == Ids{'a', 'z'});
}

TEST_CASE("a piece that is a token is not cut where the vocabulary says so") {
  BpeVocabulary vocabulary = small_vocabulary("gpt-2", {{"a", "b"}, {"c", "d"}});
  vocabulary.tokens.emplace_back("abc");  // no merge makes it
  const int32_t abc = static_cast<int32_t>(vocabulary.tokens.size()) - 1;
  CHECK(BpeTokenizer(vocabulary, {}, "here").encode("abc", false) == Ids{256, 'c'});
  vocabulary.whole_pieces = true;
  CHECK(BpeTokenizer(vocabulary, {}, "here").encode("abc", false) == Ids{abc});
}

TEST_CASE("the three pre-tokenizers differ where their models do") {
  const auto pieces = [](const char* name, const char* text) {
    std::vector<std::string> words;
    for (const std::string_view piece : PreTokenizer(name, "here").split(text)) words.emplace_back(piece);
    return words;
  };
  using Words = std::vector<std::string>;
  CHECK(pieces("gpt-2", "x  1234's") == Words{"x", " ", " 1234", "'s"});
  CHECK(pieces("smollm", "x  1234's") == Words{"x", "  ", "1", "2", "3", "4", "'s"});
  CHECK(pieces("llama-bpe", "x  1234's") == Words{"x", " ", " ", "123", "4", "'s"});
  CHECK(pieces("gpt-2", "Don'T!\n\n a") == Words{"Don", "'", "T", "!", "\n\n", " a"});
  CHECK(pieces("llama-bpe", "Don'T!\n\n a") == Words{"Don", "'T", "!\n\n", " a"});
  // U+180E is no white space since Unicode 6.3; U+0085 is.
  CHECK(pieces("gpt-2", "a\u180E\u0085b") == Words{"a", "\u180E", "\u0085", "b"});
}

TEST_CASE("a vocabulary that cannot be right is refused with its place") {
  const auto message = [](const std::string& text) { return MessageMatches(ContainsSubstring(text)); };
  BpeVocabulary bad = small_vocabulary("gpt-2", {});
  bad.merges = {{"a", "b"}};
  CHECK_THROWS_MATCHES(BpeTokenizer(bad, {}, "m.gguf"), DataError,
                       message("m.gguf: merge 0 ('a' and 'b') needs 'ab', which is not in the vocabulary"));
  CHECK_THROWS_MATCHES(BpeTokenizer(small_vocabulary("qwen2", {}), {}, "m.gguf"), DataError,
                       message("m.gguf: pre-tokenizer 'qwen2' is not one of those known: gpt-2, smollm, llama-bpe"));
  bad = small_vocabulary("gpt-2", {});
  bad.tokens.emplace_back("a");
  CHECK_THROWS_MATCHES(BpeTokenizer(bad, {}, "m.gguf"), DataError, message("token 'a' stands twice"));
  bad = small_vocabulary("gpt-2", {});
  bad.alphabet = BpeAlphabet::kMetaspace;
  CHECK_THROWS_MATCHES(BpeTokenizer(bad, {}, "m.gguf"), DataError, message("has no byte token <0x00>"));
  CHECK_THROWS_MATCHES(BpeTokenizer({}, {}, "m.gguf"), DataError, message("m.gguf: the vocabulary is empty"));

  TokenizerOptions options;
  options.eos = 9999;
  CHECK_THROWS_MATCHES(BpeTokenizer(small_vocabulary("gpt-2", {}), options, "m.gguf"), DataError,
                       message("m.gguf: end token id 9999 is outside the vocabulary of 258 tokens"));
  options = {};
  options.add_bos = true;
  CHECK_THROWS_MATCHES(BpeTokenizer(small_vocabulary("gpt-2", {}), options, "m.gguf"), DataError,
                       message("names no BOS token"));
}

TEST_CASE("end tokens are those named and the family's end-of-turn tokens, each once") {
  BpeVocabulary vocabulary = small_vocabulary("gpt-2", {});
  vocabulary.added.push_back({"<|im_end|>", 258, true});
  vocabulary.tokens.emplace_back("<|im_end|>");
  const TokenizerOptions options{.bos = 65, .eos = 256, .add_bos = true, .end_tokens = {256, 10}};
  const BpeTokenizer tokenizer(std::move(vocabulary), options, "here");
  CHECK(tokenizer.end_tokens() == Ids{256, 10, 258});
  CHECK(encode_with_bos(tokenizer, "b", false) == Ids{65, 'b'});
}

TEST_CASE("a GGUF vocabulary says what is wrong with it") {
  const auto message = [](const std::string& text) { return MessageMatches(ContainsSubstring(text)); };
  GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.pre = "gpt-2";
  vocabulary.tokens = {"a", "b"};
  vocabulary.token_types = {1};
  CHECK_THROWS_MATCHES(make_tokenizer(vocabulary, {}, "m.gguf"), DataError,
                       message("m.gguf: tokenizer.ggml.token_type has 1 entries for 2 tokens"));
  vocabulary.token_types = {1, 1};
  vocabulary.merges = {"ab"};
  CHECK_THROWS_MATCHES(make_tokenizer(vocabulary, {}, "m.gguf"), DataError,
                       message("m.gguf: tokenizer.ggml.merges[0]: merge 'ab' is not two tokens"));
  vocabulary.model = "bert";
  CHECK_THROWS_MATCHES(make_tokenizer(vocabulary, {}, "m.gguf"), DataError,
                       message("m.gguf: tokenizer.ggml.model = 'bert' is not known; known: gpt2, llama"));
  vocabulary.model = "llama";
  CHECK_THROWS_MATCHES(make_tokenizer(vocabulary, {}, "m.gguf"), DataError,
                       message("tokenizer.ggml.scores has 0 entries for 2 tokens"));
  vocabulary.scores = {0, 0};  // no piece of the unknown type
  CHECK_THROWS_MATCHES(make_tokenizer(vocabulary, {}, "m.gguf"), DataError,
                       message("m.gguf: is not a SentencePiece model"));
}

TEST_CASE("a GGUF vocabulary's control tokens are special and its user-defined ones are not") {
  GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.pre = "gpt-2";
  for (int32_t byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(byte_token(byte));
  vocabulary.tokens.insert(vocabulary.tokens.end(), {"ab", "<|eot_id|>", "<tool>"});
  vocabulary.token_types.assign(257, 1);
  vocabulary.token_types.insert(vocabulary.token_types.end(), {3, 4});
  vocabulary.merges = {"a b"};
  const auto tokenizer = make_tokenizer(vocabulary, {}, "m.gguf");
  CHECK(tokenizer->encode("ab<tool><|eot_id|>", true) == Ids{256, 258, 257});
  CHECK(tokenizer->encode("<tool><", false) == Ids{258, '<'});
  CHECK(tokenizer->end_tokens() == Ids{257});
}

TEST_CASE("a GGUF vocabulary of Llama-3's kind does not cut a piece that is a token") {
  GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  for (int32_t byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(byte_token(byte));
  vocabulary.tokens.emplace_back("abc");
  vocabulary.token_types.assign(257, 1);
  vocabulary.pre = "llama-bpe";
  CHECK(make_tokenizer(vocabulary, {}, "m.gguf")->encode("abc", false) == Ids{256});
  vocabulary.pre = "gpt-2";
  CHECK(make_tokenizer(vocabulary, {}, "m.gguf")->encode("abc", false) == Ids{'a', 'b', 'c'});
}

TEST_CASE("ids do not depend on the texts before, nor on who else encodes") {
  const std::vector<std::pair<std::string, std::string>> merges = {{"a", "b"}, {"ab", "c"}, {byte_token(' '), "a"}};
  const auto fresh = [&] { return BpeTokenizer(small_vocabulary("gpt-2", merges), {}, "m.gguf"); };
  std::mt19937 random(5);
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (int i = 0; i < 200; ++i) {
    std::string text;
    for (size_t length = random() % 60; text.size() < length;) text += "abc \n1"[random() % 6];
    if (i % 50 == 0) text += std::string(300, 'a');  // longer than what is remembered
    texts.push_back(text);
    expected.push_back(fresh().encode(text, false));
  }
  const BpeTokenizer shared = fresh();
  const auto agrees = [&] {
    bool all = true;
    for (size_t i = 0; i < texts.size(); ++i) all = all && shared.encode(texts[i], false) == expected[i];
    return all;
  };
  CHECK(agrees());
  CHECK(agrees());  // all known now
  std::vector<std::future<bool>> others;
  for (int i = 0; i < 4; ++i) others.push_back(std::async(std::launch::async, agrees));
  for (auto& other : others) CHECK(other.get());
}

}  // namespace kvsweep
