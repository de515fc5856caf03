#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace kvsweep {

// A token that is found in the text before any splitting or merging.
struct AddedToken {
  std::string text;
  int32_t id = 0;
  bool special = true;  // control token: recognised only on request; else (user defined) always
};

// What a model's files say about its tokens beside the vocabulary.
struct TokenizerOptions {
  std::optional<int32_t> bos, eos;
  bool add_bos = false;
  std::vector<int32_t> end_tokens;  // besides eos: end of turn, end of message
};

// A stretch of plain text, or one added token.
struct TextSection {
  std::string_view text;
  std::optional<int32_t> id;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Sections of `text` in order, none empty. At each place the longest token wins.
  std::vector<TextSection> split(std::string_view text, bool parse_special) const;
  bool is_special(int32_t id) const { return special_.count(id) != 0; }
  const std::vector<AddedToken>& all() const { return tokens_; }

 private:
  const AddedToken* match(std::string_view text, bool parse_special) const;

  std::vector<AddedToken> tokens_;  // longest first
  std::string first_bytes_;         // each byte that a token begins with, once
  std::unordered_set<int32_t> special_;
};

// options.eos, options.end_tokens and the Llama family's end-of-turn tokens (<|im_end|>, <|eot_id|>, <|eom_id|>,
// <|end_of_text|>) where they are special tokens; each once. Throws DataError when options name an id outside the
// vocabulary or ask for a BOS that is not there. place: file, for the message.
std::vector<int32_t> checked_end_tokens(const TokenizerOptions& options, const AddedTokens& added, int64_t vocab_size,
                                        const std::string& place);

}  // namespace kvsweep
