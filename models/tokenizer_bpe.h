#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "harness/core/tokenizer.h"
#include "models/added_tokens.h"
#include "models/bpe_merges.h"
#include "models/pre_tokenizer.h"

namespace kvsweep {

// What the vocabulary's letters stand for.
enum class BpeAlphabet {
  kByteLevel,  // bytes, written as GPT-2's 256 printable characters; text is cut by a pre-tokenizer first
  kMetaspace,  // characters, "▁" for a space, <0xXX> for the bytes of characters that are not there; merges alone cut
               // text
};

// kMetaspace: where "▁" is put in front of text.
enum class SpacePrefix {
  kNone,
  kFirst,        // of the whole text, when it does not begin with a space or an added token
  kEachSection,  // of each stretch between added tokens
};

// A byte-pair vocabulary as its file states it.
struct BpeVocabulary {
  std::vector<std::string> tokens;  // index is the id; "" where an id is not used
  std::vector<AddedToken> added;    // each also in `tokens`
  std::vector<std::pair<std::string, std::string>> merges;
  bool merges_by_id = false;  // no list: any two symbols merge that spell a token, lowest id first (tiktoken)
  bool whole_pieces = false;  // a piece that is a token is not cut (tiktoken; "ignore_merges")
  std::string pre_tokenizer;  // kByteLevel: a name that PreTokenizer knows
  BpeAlphabet alphabet = BpeAlphabet::kByteLevel;
  SpacePrefix prefix = SpacePrefix::kNone;
};

// "left right" as merge lists write it. Throws DataError. place: file and line or key, for the message.
std::pair<std::string, std::string> parse_merge(std::string_view line, const std::string& place);

// The character by which byte-level vocabularies write a byte.
std::string byte_level_text(std::string_view bytes);

// Byte-pair encoding. Bytes that a byte-level vocabulary has no token for are left out by encode(), as in the
// tokenizers library (SmolLM2 lacks 21, six of them control characters).
class BpeTokenizer final : public Tokenizer {
 public:
  // Throws DataError that names place (the file) and what is wrong.
  BpeTokenizer(BpeVocabulary vocabulary, const TokenizerOptions& options, const std::string& place);

  std::vector<int32_t> encode(std::string_view text, bool parse_special) const override;
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(tokens_.size()); }
  std::optional<int32_t> bos() const override { return bos_; }
  std::vector<int32_t> end_tokens() const override { return end_tokens_; }
  bool adds_bos() const override { return adds_bos_; }
  std::string piece(int32_t id) const override { return tokens_.at(id); }

 private:
  using TokenIds = std::unordered_map<std::string, int32_t>;
  void read_merges(const BpeVocabulary& vocabulary, const TokenIds& ids, const std::string& place);
  void read_merges_by_id();
  void read_bytes(const TokenIds& ids, const std::string& place);
  void index_bytes();
  // Ids of pieces that earlier texts had: few words of a text are new ones. Who finds it in use by another thread goes
  // without; the ids are the same.
  struct KnownPieces {
    struct Hash {
      using is_transparent = void;
      size_t operator()(std::string_view piece) const { return std::hash<std::string_view>()(piece); }
    };
    bool copy(std::string_view piece, std::vector<int32_t>& to) const;
    void keep(std::string_view piece, const std::vector<int32_t>& symbols);

    std::mutex mutex;
    std::unordered_map<std::string, std::pair<int64_t, int64_t>, Hash, std::equal_to<>> places;  // begin, count in ids
    std::vector<int32_t> ids;
  };
  std::string with_prefix(std::string_view text, bool at_start) const;
  std::vector<std::string_view> cut(std::string_view text) const;
  void encode_section(std::string_view text, std::vector<int32_t>& ids) const;
  void encode_piece(std::string_view piece, std::vector<int32_t>& symbols) const;

  BpeAlphabet alphabet_;
  SpacePrefix prefix_;
  bool whole_pieces_;
  std::vector<std::string> tokens_;                         // id -> text as the vocabulary writes it
  std::vector<std::string> bytes_;                          // id -> bytes that it stands for
  std::unordered_map<std::string_view, int32_t> by_bytes_;  // views on bytes_; without added and <0xXX> tokens
  std::array<int32_t, 256> byte_ids_{};                     // -1: none
  BpeMerges merges_;
  bool merges_stay_in_words_ = true;  // none joins a space to what stands before it: text may be cut there
  AddedTokens added_;
  std::optional<PreTokenizer> pre_tokenizer_;
  std::optional<int32_t> bos_;
  std::vector<int32_t> end_tokens_;
  bool adds_bos_;
  std::unique_ptr<KnownPieces> known_ = std::make_unique<KnownPieces>();
};

}  // namespace kvsweep
