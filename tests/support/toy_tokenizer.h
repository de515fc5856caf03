#pragma once

#include <map>

#include "harness/core/tokenizer.h"

namespace kvsweep::testing {

// One token a byte; id = byte, BOS = 256.
class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(bool adds_bos) : adds_bos_(adds_bos) {}
  std::vector<int32_t> encode(std::string_view text, bool parse_special) const override;
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override;
  int64_t vocab_size() const override { return 257; }
  std::optional<int32_t> bos() const override { return 256; }
  std::vector<int32_t> end_tokens() const override { return {}; }
  bool adds_bos() const override { return adds_bos_; }
  std::string piece(int32_t id) const override { return decode({id}, false); }

 private:
  bool adds_bos_;
};

// Tokens as byte-level BPE vocabularies have them: a word of up to six letters with the space before it (longer words
// go on in pieces of six), one digit, or a run of other characters with the newlines behind it, so that a token can
// reach over the end of a sentence (".\n"). Ids are hashes of the piece; no BOS. Decodes what it has encoded before.
class PieceTokenizer : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool parse_special) const override;
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override;
  int64_t vocab_size() const override { return int64_t{1} << 31; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::vector<int32_t> end_tokens() const override { return {}; }
  bool adds_bos() const override { return false; }
  std::string piece(int32_t id) const override { return decode({id}, false); }

 private:
  mutable std::map<int32_t, std::string> seen_;
};

}  // namespace kvsweep::testing
