#include "models/tokenizer_sentencepiece.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <charconv>
#include <stdexcept>

#include "harness/core/error.h"

namespace kvsweep {

namespace {

constexpr std::string_view kMeta = "▁";  // U+2581

}  // namespace

SentencePieceTokenizer::SentencePieceTokenizer(std::string_view model, TokenizerOptions options,
                                               const std::string& place)
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()), adds_bos_(options.add_bos) {
  const sentencepiece::util::Status status = processor_->LoadFromSerializedProto(model);
  if (!status.ok()) throw DataError(place + ": is not a SentencePiece model: " + status.ToString());
  std::vector<AddedToken> special;
  for (int32_t id = 0; id < processor_->GetPieceSize(); ++id) {
    bytes_.push_back(bytes_of(id));
    if (processor_->IsControl(id) || processor_->IsUnknown(id)) special.push_back({bytes_.back(), id, true});
  }
  added_ = AddedTokens(std::move(special));
  if (!options.bos && processor_->bos_id() >= 0) options.bos = processor_->bos_id();
  if (!options.eos && processor_->eos_id() >= 0) options.eos = processor_->eos_id();
  bos_ = options.bos;
  end_tokens_ = checked_end_tokens(options, added_, vocab_size(), place);
  // The library does not say whether the model adds a prefix; what it makes of a letter does.
  const std::vector<std::string> pieces = processor_->EncodeAsPieces("a");
  adds_prefix_ = !pieces.empty() && pieces.front().starts_with(kMeta);
}

SentencePieceTokenizer::~SentencePieceTokenizer() = default;

std::string SentencePieceTokenizer::bytes_of(int32_t id) const {
  const std::string& piece = processor_->IdToPiece(id);
  if (processor_->IsByte(id)) {  // <0x0A>
    int byte = 0;
    std::from_chars(piece.data() + 3, piece.data() + piece.size() - 1, byte, 16);
    return std::string(1, static_cast<char>(byte));
  }
  std::string bytes = piece;
  for (size_t at = bytes.find(kMeta); at != std::string::npos; at = bytes.find(kMeta, at + 1))
    bytes.replace(at, kMeta.size(), " ");
  return bytes;
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text, bool parse_special) const {
  std::vector<int32_t> ids;
  std::vector<int> section_ids;
  for (const TextSection& section : added_.split(text, parse_special)) {
    if (section.id) {
      ids.push_back(*section.id);
      continue;
    }
    const sentencepiece::util::Status status = processor_->Encode(section.text, &section_ids);
    if (!status.ok()) throw std::runtime_error("sentencepiece: " + status.ToString());
    ids.insert(ids.end(), section_ids.begin(), section_ids.end());
  }
  return ids;
}

std::string SentencePieceTokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::string text;
  bool strips_prefix = adds_prefix_;
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size())
      throw std::out_of_range(fmt::format("token id {} is outside the vocabulary of {} tokens", id, vocab_size()));
    const bool special = added_.is_special(id);
    if (special && skip_special) continue;
    std::string_view bytes = bytes_[id];
    if (strips_prefix && bytes.starts_with(' ')) bytes.remove_prefix(1);
    text.append(bytes);
    strips_prefix = adds_prefix_ && special;
  }
  return text;
}

std::string SentencePieceTokenizer::piece(int32_t id) const {
  if (id < 0 || id >= vocab_size())
    throw std::out_of_range(fmt::format("token id {} is outside the vocabulary of {} tokens", id, vocab_size()));
  return processor_->IdToPiece(id);
}

}  // namespace kvsweep
