#include "models/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "harness/core/error.h"

namespace kvsweep {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.text.empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.text.size() > b.text.size(); });
  for (const AddedToken& token : tokens_) {
    if (token.special) special_.insert(token.id);
    if (first_bytes_.find(token.text[0]) == std::string::npos) first_bytes_ += token.text[0];
  }
}

const AddedToken* AddedTokens::match(std::string_view text, bool parse_special) const {
  for (const AddedToken& token : tokens_)
    if ((parse_special || !token.special) && text.starts_with(token.text)) return &token;
  return nullptr;
}

std::vector<TextSection> AddedTokens::split(std::string_view text, bool parse_special) const {
  std::vector<TextSection> sections;
  size_t begin = 0;
  size_t at = text.find_first_of(first_bytes_);
  while (at != std::string_view::npos) {
    const AddedToken* token = match(text.substr(at), parse_special);
    if (token == nullptr) {
      at = text.find_first_of(first_bytes_, at + 1);
      continue;
    }
    if (at > begin) sections.push_back({text.substr(begin, at - begin), std::nullopt});
    sections.push_back({text.substr(at, token->text.size()), token->id});
    begin = at + token->text.size();
    at = text.find_first_of(first_bytes_, begin);
  }
  if (begin < text.size()) sections.push_back({text.substr(begin), std::nullopt});
  return sections;
}

namespace {

constexpr std::array<std::string_view, 4> kEndOfTurn = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"};

void check_id(int32_t id, std::string_view role, int64_t vocab_size, const std::string& place) {
  if (id < 0 || id >= vocab_size)
    throw DataError(
        fmt::format("{}: {} token id {} is outside the vocabulary of {} tokens", place, role, id, vocab_size));
}

}  // namespace

std::vector<int32_t> checked_end_tokens(const TokenizerOptions& options, const AddedTokens& added, int64_t vocab_size,
                                        const std::string& place) {
  if (options.bos) check_id(*options.bos, "BOS", vocab_size, place);
  if (options.add_bos && !options.bos)
    throw DataError(place + ": asks for BOS in front of every text and names no BOS token");
  std::vector<int32_t> ends;
  const auto add = [&](int32_t id) {
    check_id(id, "end", vocab_size, place);
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  };
  if (options.eos) add(*options.eos);
  for (const int32_t id : options.end_tokens) add(id);
  for (const AddedToken& token : added.all())
    if (token.special && std::find(kEndOfTurn.begin(), kEndOfTurn.end(), token.text) != kEndOfTurn.end()) add(token.id);
  return ends;
}

}  // namespace kvsweep
