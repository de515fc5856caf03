#include "tasks/data/cut_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/common_prefix.h"
#include "harness/core/error.h"

namespace kvsweep {
namespace {

std::vector<int32_t> encoded(const Tokenizer& tokenizer, const std::string& text, const CutText& how) {
  return how.add_bos ? encode_with_bos(tokenizer, text, how.parse_special) : tokenizer.encode(text, how.parse_special);
}

}  // namespace

CutText in_chat(const ChatPrompt& chat, const CutText& text, const std::string& answer, const std::string& owner) {
  if (!chat) throw ConfigError(fmt::format("{} = true: the model has no chat template", owner));
  const std::string written = chat(text.context + text.query);
  const std::string query = text.query.substr(0, text.query.find_last_not_of(" \t\n\r") + 1);
  const size_t at = std::min(written.rfind(query), written.size());
  return {written.substr(0, at), written.substr(at) + answer, true, false};
}

std::vector<int32_t> text_ids(const Tokenizer& tokenizer, const CutText& text) {
  return encoded(tokenizer, text.context + text.query, text);
}

CutIds cut_ids(const Tokenizer& tokenizer, const CutText& text, std::vector<int32_t> ids) {
  const int64_t shared = common_prefix(encoded(tokenizer, text.context, text), ids);
  const int64_t most = std::ssize(ids) - 1;
  return {std::move(ids), std::min(shared, most)};
}

CutIds cut_ids(const Tokenizer& tokenizer, const CutText& text) {
  return cut_ids(tokenizer, text, text_ids(tokenizer, text));
}

}  // namespace kvsweep
