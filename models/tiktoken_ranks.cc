#include "models/tiktoken_ranks.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>

#include "harness/core/error.h"

namespace kvsweep {

namespace {

constexpr int64_t kSpecialTokens = 256;
constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

struct Line {
  std::string bytes;
  int64_t rank = 0;
};

std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string bytes;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    const size_t digit = kBase64.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes += static_cast<char>(bits >> held & 0xFF);
  }
  return bytes;
}

// "aGVsbG8= 123"
std::optional<Line> parse_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const std::optional<std::string> bytes = from_base64(line.substr(0, space));
  Line parsed;
  const char* end = line.data() + line.size();
  const auto number = std::from_chars(line.data() + space + 1, end, parsed.rank);
  if (!bytes || number.ec != std::errc() || number.ptr != end) return std::nullopt;
  parsed.bytes = *bytes;
  return parsed;
}

// The first of `content`'s lines, which is taken off it.
std::string_view take_line(std::string_view& content) {
  const std::string_view line = content.substr(0, content.find('\n'));
  content.remove_prefix(std::min(content.size(), line.size() + 1));
  return line;
}

std::vector<std::string> special_tokens() {
  std::vector<std::string> names = {"<|begin_of_text|>",
                                    "<|end_of_text|>",
                                    "<|reserved_special_token_0|>",
                                    "<|reserved_special_token_1|>",
                                    "<|finetune_right_pad_id|>",
                                    "<|step_id|>",
                                    "<|start_header_id|>",
                                    "<|end_header_id|>",
                                    "<|eom_id|>",
                                    "<|eot_id|>",
                                    "<|python_tag|>",
                                    "<|image|>"};
  for (int64_t reserved = 2; static_cast<int64_t>(names.size()) < kSpecialTokens; ++reserved)
    names.push_back(fmt::format("<|reserved_special_token_{}|>", reserved));
  return names;
}

}  // namespace

bool is_tiktoken_ranks(std::string_view content) {
  return parse_line(take_line(content)).has_value();
}

BpeVocabulary read_llama3_ranks(std::string_view content, const std::string& place) {
  BpeVocabulary vocabulary;
  vocabulary.merges_by_id = true;
  vocabulary.whole_pieces = true;
  vocabulary.pre_tokenizer = "llama-bpe";
  for (int64_t number = 0; !content.empty(); ++number) {
    const std::string_view line = take_line(content);
    const std::optional<Line> parsed = parse_line(line);
    if (!parsed || parsed->rank != number)
      throw DataError(
          fmt::format("{}:{}: '{}' is not base64, a space and the rank {}", place, number + 1, line, number));
    vocabulary.tokens.push_back(byte_level_text(parsed->bytes));
  }
  for (const std::string& name : special_tokens()) {
    vocabulary.added.push_back({name, static_cast<int32_t>(vocabulary.tokens.size()), true});
    vocabulary.tokens.push_back(name);
  }
  return vocabulary;
}

}  // namespace kvsweep
