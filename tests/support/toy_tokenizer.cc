#include "tests/support/toy_tokenizer.h"

#include <cctype>
#include <stdexcept>

namespace kvsweep::testing {
namespace {

bool letter(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0;
}
bool digit(char c) {
  return c >= '0' && c <= '9';
}
bool other(char c) {
  return !letter(c) && !digit(c) && c != ' ' && c != '\n';
}

size_t piece_end(std::string_view text, size_t at) {
  size_t end = at + (text[at] == ' ' ? 1 : 0);
  if (end == text.size()) return end;
  if (digit(text[end])) return end + 1;
  if (letter(text[end])) {
    for (const size_t start = end; end < text.size() && letter(text[end]) && end < start + 6;) ++end;
    return end;
  }
  while (end < text.size() && other(text[end])) ++end;
  while (end < text.size() && text[end] == '\n') ++end;
  return end == at ? at + 1 : end;
}

}  // namespace

std::vector<int32_t> ByteTokenizer::encode(std::string_view text, bool) const {
  std::vector<int32_t> ids;
  for (char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::string ByteTokenizer::decode(const std::vector<int32_t>& ids, bool) const {
  std::string text;
  for (int32_t id : ids)
    if (id < 256) text += static_cast<char>(id);
  return text;
}

std::vector<int32_t> PieceTokenizer::encode(std::string_view text, bool) const {
  std::vector<int32_t> ids;
  for (size_t at = 0; at < text.size();) {
    const size_t end = piece_end(text, at);
    uint32_t hash = 2166136261U;  // FNV-1a
    for (char c : text.substr(at, end - at)) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
    const auto id = static_cast<int32_t>(hash >> 1);
    const auto [known, fresh] = seen_.emplace(id, text.substr(at, end - at));
    if (!fresh && known->second != text.substr(at, end - at)) throw std::logic_error("two pieces with one hash");
    ids.push_back(id);
    at = end;
  }
  return ids;
}

std::string PieceTokenizer::decode(const std::vector<int32_t>& ids, bool) const {
  std::string text;
  for (int32_t id : ids) text += seen_.at(id);
  return text;
}

}  // namespace kvsweep::testing
