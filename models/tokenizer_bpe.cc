#include "models/tokenizer_bpe.h"

#include <fmt/format.h>

#include "harness/core/error.h"
#include "models/utf8.h"

namespace kvsweep {

namespace {

constexpr std::string_view kMeta = "▁";  // U+2581
constexpr int32_t kNoToken = -1;
constexpr size_t kKnownPieces = 1 << 16, kKnownPieceBytes = 64;  // a bound on what is kept: 16 MB at most

// GPT-2's bytes_to_unicode: printable Latin-1 stands for itself, the other bytes for U+0100 and up.
std::array<char32_t, 256> byte_characters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}

// Bytes of a byte-level token; a token with other characters in it stands for itself.
std::string byte_level_bytes(const std::string& token) {
  static const std::unordered_map<char32_t, char> kBytes = [] {
    std::unordered_map<char32_t, char> bytes;
    const std::array<char32_t, 256> characters = byte_characters();
    for (size_t byte = 0; byte < 256; ++byte) bytes[characters[byte]] = static_cast<char>(byte);
    return bytes;
  }();
  std::string bytes;
  for (std::string_view rest = token; !rest.empty();) {
    const Utf8Step step = first_utf8(rest);
    const auto found = step.valid ? kBytes.find(step.code) : kBytes.end();
    if (found == kBytes.end()) return token;
    bytes += found->second;
    rest.remove_prefix(step.bytes);
  }
  return bytes;
}

std::string with_replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string replaced;
  for (size_t at = text.find(from); at != std::string_view::npos; at = text.find(from)) {
    replaced.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
  }
  return replaced.append(text);
}

}  // namespace

std::pair<std::string, std::string> parse_merge(std::string_view line, const std::string& place) {
  const size_t space = line.find(' ');
  if (space == 0 || space == std::string_view::npos || space + 1 == line.size() ||
      line.find(' ', space + 1) != std::string_view::npos)
    throw DataError(fmt::format("{}: merge '{}' is not two tokens with a space between", place, line));
  return {std::string(line.substr(0, space)), std::string(line.substr(space + 1))};
}

std::string byte_level_text(std::string_view bytes) {
  static const std::array<char32_t, 256> kCharacters = byte_characters();
  std::string text;
  for (const char byte : bytes) append_utf8(text, kCharacters[static_cast<uint8_t>(byte)]);
  return text;
}

BpeTokenizer::BpeTokenizer(BpeVocabulary vocabulary, const TokenizerOptions& options, const std::string& place)
    : alphabet_(vocabulary.alphabet),
      prefix_(vocabulary.prefix),
      whole_pieces_(vocabulary.whole_pieces),
      tokens_(std::move(vocabulary.tokens)),
      added_(std::move(vocabulary.added)),
      bos_(options.bos),
      end_tokens_(checked_end_tokens(options, added_, vocab_size(), place)),
      adds_bos_(options.add_bos) {
  if (tokens_.empty()) throw DataError(place + ": the vocabulary is empty");
  TokenIds ids;
  for (const std::string& token : tokens_) {
    const auto id = static_cast<int32_t>(&token - tokens_.data());
    if (!token.empty() && !ids.emplace(token, id).second)
      throw DataError(
          fmt::format("{}: token '{}' stands twice in the vocabulary, as {} and {}", place, token, ids.at(token), id));
    bytes_.push_back(alphabet_ == BpeAlphabet::kByteLevel ? byte_level_bytes(token) : with_replaced(token, kMeta, " "));
  }
  read_bytes(ids, place);
  index_bytes();
  if (vocabulary.merges_by_id)
    read_merges_by_id();
  else
    read_merges(vocabulary, ids, place);
  if (alphabet_ == BpeAlphabet::kByteLevel) pre_tokenizer_.emplace(vocabulary.pre_tokenizer, place);
}

void BpeTokenizer::read_merges(const BpeVocabulary& vocabulary, const TokenIds& ids, const std::string& place) {
  merges_.reserve(static_cast<int64_t>(vocabulary.merges.size()));
  for (int32_t rank = 0; rank < static_cast<int32_t>(vocabulary.merges.size()); ++rank) {
    const auto& [left, right] = vocabulary.merges[rank];
    const auto id = [&](const std::string& token) {
      const auto found = ids.find(token);
      if (found == ids.end())
        throw DataError(fmt::format("{}: merge {} ('{}' and '{}') needs '{}', which is not in the vocabulary", place,
                                    rank, left, right, token));
      return found->second;
    };
    merges_.add(id(left), id(right), id(left + right), rank);
    if (right.starts_with(kMeta) && !left.ends_with(kMeta)) merges_stay_in_words_ = false;
  }
}

void BpeTokenizer::read_merges_by_id() {
  for (const auto& [bytes, id] : by_bytes_) {
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = by_bytes_.find(bytes.substr(0, cut));
      const auto right = by_bytes_.find(bytes.substr(cut));
      if (left != by_bytes_.end() && right != by_bytes_.end()) merges_.add(left->second, right->second, id, id);
    }
  }
}

void BpeTokenizer::read_bytes(const TokenIds& ids, const std::string& place) {
  for (int32_t byte = 0; byte < 256; ++byte) {
    const std::string raw(1, static_cast<char>(byte));
    const bool byte_level = alphabet_ == BpeAlphabet::kByteLevel;
    const std::string token = byte_level ? byte_level_text(raw) : fmt::format("<0x{:02X}>", byte);
    const auto found = ids.find(token);
    byte_ids_[byte] = found == ids.end() ? kNoToken : found->second;
    if (found == ids.end() && !byte_level)
      throw DataError(fmt::format("{}: the vocabulary has no byte token {}", place, token));
    if (!byte_level) bytes_[found->second] = raw;
  }
}

void BpeTokenizer::index_bytes() {
  std::vector<bool> spelled(tokens_.size(), true);  // false: never made from text by spelling it
  if (alphabet_ == BpeAlphabet::kMetaspace)
    for (const int32_t id : byte_ids_) spelled[id] = false;
  for (const AddedToken& token : added_.all()) {
    spelled[token.id] = false;
    bytes_[token.id] = token.text;
  }
  for (int32_t id = 0; id < vocab_size(); ++id)
    if (spelled[id] && !bytes_[id].empty()) by_bytes_.emplace(bytes_[id], id);
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, bool parse_special) const {
  std::vector<int32_t> ids;
  for (const TextSection& section : added_.split(text, parse_special)) {
    if (section.id)
      ids.push_back(*section.id);
    else if (alphabet_ == BpeAlphabet::kByteLevel)
      encode_section(section.text, ids);
    else
      encode_section(with_prefix(section.text, section.text.data() == text.data()), ids);
  }
  return ids;
}

std::vector<std::string_view> BpeTokenizer::cut(std::string_view text) const {
  if (alphabet_ == BpeAlphabet::kByteLevel) return pre_tokenizer_->split(text);
  std::vector<std::string_view> pieces;
  size_t begin = 0;
  for (size_t at = 1; merges_stay_in_words_ && at < text.size(); ++at) {
    if (text[at] != ' ' || text[at - 1] == ' ') continue;
    pieces.push_back(text.substr(begin, at - begin));
    begin = at;
  }
  pieces.push_back(text.substr(begin));
  return pieces;
}

std::string BpeTokenizer::with_prefix(std::string_view text, bool at_start) const {
  const std::string spaced = with_replaced(text, kMeta, " ");
  const bool prefixed =
      prefix_ == SpacePrefix::kEachSection || (prefix_ == SpacePrefix::kFirst && at_start && spaced[0] != ' ');
  return (prefixed ? " " : "") + spaced;
}

bool BpeTokenizer::KnownPieces::copy(std::string_view piece, std::vector<int32_t>& to) const {
  const auto found = places.find(piece);
  if (found == places.end()) return false;
  const auto begin = ids.begin() + found->second.first;
  to.insert(to.end(), begin, begin + found->second.second);
  return true;
}

void BpeTokenizer::KnownPieces::keep(std::string_view piece, const std::vector<int32_t>& symbols) {
  if (piece.size() > kKnownPieceBytes || places.size() >= kKnownPieces) return;
  places.emplace(piece, std::pair(std::ssize(ids), std::ssize(symbols)));
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

void BpeTokenizer::encode_section(std::string_view text, std::vector<int32_t>& ids) const {
  // Words come again and again: within a text ids are copied from where they first stood, and a word that an earlier
  // text had is not merged again either.
  struct Seen {
    size_t begin, count;
  };
  std::unordered_map<std::string_view, Seen> seen;
  std::vector<int32_t> symbols;
  const std::unique_lock lock(known_->mutex, std::try_to_lock);
  KnownPieces* known = lock ? known_.get() : nullptr;
  for (const std::string_view piece : cut(text)) {
    const auto [entry, is_new] = seen.try_emplace(piece);
    Seen& where = entry->second;
    if (!is_new) {
      for (size_t i = 0; i < where.count; ++i) ids.push_back(ids[where.begin + i]);
      continue;
    }
    const size_t begin = ids.size();
    if (known == nullptr || !known->copy(piece, ids)) {
      encode_piece(piece, symbols);
      ids.insert(ids.end(), symbols.begin(), symbols.end());
      if (known != nullptr) known->keep(piece, symbols);
    }
    where = {begin, ids.size() - begin};
  }
}

void BpeTokenizer::encode_piece(std::string_view piece, std::vector<int32_t>& symbols) const {
  symbols.clear();
  if (whole_pieces_) {
    if (const auto found = by_bytes_.find(piece); found != by_bytes_.end()) {
      symbols.push_back(found->second);
      return;
    }
  }
  const bool byte_level = alphabet_ == BpeAlphabet::kByteLevel;
  while (!piece.empty()) {
    const std::string_view letter = piece.substr(0, byte_level ? 1 : first_utf8(piece).bytes);
    piece.remove_prefix(letter.size());
    const auto found = byte_level ? by_bytes_.end() : by_bytes_.find(letter);
    if (found != by_bytes_.end()) {
      symbols.push_back(found->second);
      continue;
    }
    for (const char byte : letter)
      if (const int32_t id = byte_ids_[static_cast<uint8_t>(byte)]; id != kNoToken) symbols.push_back(id);
  }
  merges_.apply(symbols);
}

std::string BpeTokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::string text;
  bool strips_prefix = prefix_ != SpacePrefix::kNone;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size())
      throw std::out_of_range(fmt::format("token id {} is outside the vocabulary of {} tokens", id, vocab_size()));
    const bool special = added_.is_special(id);
    if (special && skip_special) continue;
    std::string_view bytes = bytes_[id];
    if (strips_prefix && bytes.starts_with(' ')) bytes.remove_prefix(1);
    text.append(bytes);
    strips_prefix = prefix_ == SpacePrefix::kEachSection && special;
  }
  return text;
}

}  // namespace kvsweep
