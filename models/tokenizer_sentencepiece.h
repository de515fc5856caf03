#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/core/tokenizer.h"
#include "models/added_tokens.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace kvsweep {

// A SentencePiece model, run by libsentencepiece. Each stretch of text between special tokens gets the model's own
// "▁" in front; decode() takes it away again. Special tokens are the model's control pieces and its unknown piece.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  // model: a serialised ModelProto, the content of a tokenizer.model file. options.bos and options.eos default to the
  // model's own. Throws DataError that names place (the file).
  SentencePieceTokenizer(std::string_view model, TokenizerOptions options, const std::string& place);
  ~SentencePieceTokenizer() override;

  std::vector<int32_t> encode(std::string_view text, bool parse_special) const override;
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(bytes_.size()); }
  std::optional<int32_t> bos() const override { return bos_; }
  std::vector<int32_t> end_tokens() const override { return end_tokens_; }
  bool adds_bos() const override { return adds_bos_; }
  std::string piece(int32_t id) const override;

 private:
  std::string bytes_of(int32_t id) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::vector<std::string> bytes_;  // id -> bytes that it stands for
  bool adds_prefix_ = false;        // the model puts "▁" in front of text
  AddedTokens added_;
  std::optional<int32_t> bos_;
  std::vector<int32_t> end_tokens_;
  bool adds_bos_;
};

}  // namespace kvsweep
