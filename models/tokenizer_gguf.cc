#include "models/tokenizer_gguf.h"

#include <fmt/format.h>

#include <cstring>

#include "harness/core/error.h"
#include "models/tokenizer_bpe.h"
#include "models/tokenizer_sentencepiece.h"

namespace kvsweep {

namespace {

constexpr int32_t kControl = 3, kUserDefined = 4;

std::unique_ptr<Tokenizer> make_bpe(const GgufVocabulary& vocabulary, const TokenizerOptions& options,
                                    const std::string& place) {
  BpeVocabulary bpe;
  bpe.tokens = vocabulary.tokens;
  bpe.pre_tokenizer = vocabulary.pre;
  // Llama-3 was trained with tiktoken, where a piece that is a token is never cut.
  bpe.whole_pieces = vocabulary.pre == "llama-bpe";
  for (int32_t id = 0; id < static_cast<int32_t>(bpe.tokens.size()); ++id)
    if (const int32_t type = vocabulary.token_types[id]; type == kControl || type == kUserDefined)
      bpe.added.push_back({bpe.tokens[id], id, type == kControl});
  for (const std::string& merge : vocabulary.merges)
    bpe.merges.push_back(parse_merge(merge, fmt::format("{}: tokenizer.ggml.merges[{}]", place, bpe.merges.size())));
  return std::make_unique<BpeTokenizer>(std::move(bpe), options, place);
}

// Protocol buffers' wire format, as much as a ModelProto needs. Field numbers: sentencepiece_model.proto of
// google/sentencepiece.
class Message {
 public:
  void number(int field, uint64_t value) {
    varint(static_cast<uint64_t>(field) << 3);
    varint(value);
  }
  void real(int field, float value) {
    varint(static_cast<uint64_t>(field) << 3 | 5);
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 0xFF);
  }
  void text(int field, const std::string& value) {
    varint(static_cast<uint64_t>(field) << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

// The SentencePiece model that the GGUF file was made from, as far as encoding reads it.
std::string sentencepiece_model(const GgufVocabulary& vocabulary) {
  Message model;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    Message piece;
    piece.text(1, vocabulary.tokens[id]);
    piece.real(2, vocabulary.scores[id]);
    piece.number(3, static_cast<uint64_t>(vocabulary.token_types[id]));
    model.text(1, piece.bytes());
  }
  Message trainer;
  trainer.number(3, 2);   // model_type: BPE
  trainer.number(35, 1);  // byte_fallback
  model.text(2, trainer.bytes());
  Message normalizer;
  normalizer.text(1, "identity");
  normalizer.number(3, vocabulary.add_space_prefix ? 1 : 0);  // add_dummy_prefix
  normalizer.number(4, 0);                                    // remove_extra_whitespaces
  normalizer.number(5, 1);                                    // escape_whitespaces
  model.text(3, normalizer.bytes());
  return model.bytes();
}

std::optional<int32_t> id_of(const GgufFile& file, const std::string& key) {
  if (!file.has(key)) return std::nullopt;
  return static_cast<int32_t>(file.integer(key));
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(const GgufVocabulary& vocabulary, const TokenizerOptions& options,
                                          const std::string& place) {
  const auto needs = [&](const char* key, size_t count) {
    if (count != vocabulary.tokens.size())
      throw DataError(fmt::format("{}: tokenizer.ggml.{} has {} entries for {} tokens", place, key, count,
                                  vocabulary.tokens.size()));
  };
  needs("token_type", vocabulary.token_types.size());
  if (vocabulary.model == "gpt2") return make_bpe(vocabulary, options, place);
  if (vocabulary.model != "llama")
    throw DataError(
        fmt::format("{}: tokenizer.ggml.model = '{}' is not known; known: gpt2, llama", place, vocabulary.model));
  needs("scores", vocabulary.scores.size());
  return std::make_unique<SentencePieceTokenizer>(sentencepiece_model(vocabulary), options, place);
}

std::unique_ptr<Tokenizer> load_gguf_tokenizer(const GgufFile& file) {
  const std::string prefix = "tokenizer.ggml.";
  GgufVocabulary vocabulary;
  vocabulary.model = file.text(prefix + "model");
  vocabulary.tokens = file.texts(prefix + "tokens");
  for (const int64_t type : file.integers(prefix + "token_type"))
    vocabulary.token_types.push_back(static_cast<int32_t>(type));
  const bool is_llama = vocabulary.model == "llama";
  if (is_llama) {
    for (const double score : file.numbers(prefix + "scores")) vocabulary.scores.push_back(static_cast<float>(score));
    vocabulary.add_space_prefix = file.flag(prefix + "add_space_prefix", true);
  } else {
    vocabulary.merges = file.texts(prefix + "merges");
    vocabulary.pre = file.text(prefix + "pre", "");
  }
  TokenizerOptions options;
  options.bos = id_of(file, prefix + "bos_token_id");
  options.eos = id_of(file, prefix + "eos_token_id");
  options.add_bos = file.flag(prefix + "add_bos_token", is_llama || vocabulary.pre == "llama-bpe");
  for (const char* key : {"eot_token_id", "eom_token_id"})
    if (const std::optional<int32_t> id = id_of(file, prefix + key)) options.end_tokens.push_back(*id);
  return make_tokenizer(vocabulary, options, file.path().string());
}

std::optional<ChatTemplate> load_gguf_chat_template(const GgufFile& file) {
  const std::string key = "tokenizer.chat_template";
  if (!file.has(key)) return std::nullopt;
  return ChatTemplate(file.text(key), file.path().string());
}

}  // namespace kvsweep
