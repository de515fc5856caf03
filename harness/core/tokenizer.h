#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// Text <-> token ids. Immutable and safe to share between threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of `text` (UTF-8), without BOS or EOS. With `parse_special`, special tokens written out in the text
  // ("<|im_end|>") become their single ids; without it they are plain text.
  virtual std::vector<int32_t> encode(std::string_view text, bool parse_special) const = 0;

  // Exact bytes of `ids`; a token may hold a part of a UTF-8 sequence. Special tokens come out as their text, or as
  // nothing with `skip_special`.
  virtual std::string decode(const std::vector<int32_t>& ids, bool skip_special) const = 0;

  virtual int64_t vocab_size() const = 0;
  virtual std::optional<int32_t> bos() const = 0;
  // Tokens that end a generated text: EOS and the end-of-turn tokens that the model file names.
  virtual std::vector<int32_t> end_tokens() const = 0;
  // The model file asks for BOS in front of every text.
  virtual bool adds_bos() const = 0;
  // The token's text as the vocabulary writes it ("Ġthe", "▁the"), for people to look at.
  virtual std::string piece(int32_t id) const = 0;
};

// encode() with BOS in front where the model asks for one.
std::vector<int32_t> encode_with_bos(const Tokenizer& tokenizer, std::string_view text, bool parse_special);

// UTF-8 with every invalid sequence replaced by U+FFFD, for JSON and terminals.
std::string lossy_utf8(std::string_view bytes);

}  // namespace kvsweep
