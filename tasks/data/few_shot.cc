#include "tasks/data/few_shot.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/error.h"
#include "tasks/data/cut_text.h"

namespace kvsweep {
namespace {

CutText cut(const std::string& context, const std::string& query, bool chat) {
  return {context, query, chat, !chat};
}

}  // namespace

void set_prompt(Sample& sample, const Tokenizer& tokenizer, const PromptParts& prompt, int64_t most,
                const std::string& name) {
  const auto [ids, context] = cut_ids(tokenizer, cut(prompt.context, prompt.query, prompt.chat));
  const int64_t total = std::ssize(ids), dropped = std::max<int64_t>(0, total - most);
  if (dropped >= context && total > most)
    throw ConfigError(
        fmt::format("{} = {}: the query of sample {} alone has {} tokens", name, most, sample.id, total - context));
  sample.context.assign(ids.begin() + dropped, ids.begin() + context);
  sample.query.assign(ids.begin() + context, ids.end());
  if (dropped > 0) sample.tags["truncated_from"] = fmt::to_string(total);
}

std::vector<std::vector<int32_t>> continuation_ids(const Tokenizer& tokenizer, const PromptParts& prompt,
                                                   const std::vector<std::string>& continuations) {
  const std::string text = prompt.text();
  const auto own = std::ssize(text_ids(tokenizer, cut(text, "", prompt.chat)));
  std::vector<std::vector<int32_t>> out;
  for (const std::string& continuation : continuations) {
    const std::vector<int32_t> whole = text_ids(tokenizer, cut(text, continuation, prompt.chat));
    if (own >= std::ssize(whole))
      throw ConfigError(fmt::format("the continuation '{}' has no token of its own with this tokenizer", continuation));
    out.emplace_back(whole.begin() + own, whole.end());
  }
  return out;
}

PromptParts last_line_parts(const std::string& text) {
  const size_t at = text.rfind('\n');
  if (at == std::string::npos) return {"", text};
  return {text.substr(0, at), text.substr(at)};
}

PromptParts chat_parts(const TaskContext& context, const std::string& message, const std::string& owner) {
  if (!context.chat) throw ConfigError(owner + ": the model has no chat template");
  // What the format writes behind a message, seen on one that no format has in it.
  const std::string marker = "kvsweep", marked = context.chat(marker);
  const size_t behind = marked.size() - marked.rfind(marker) - marker.size();
  const std::string text = context.chat(message);
  size_t end = text.size() - behind;
  while (end > 0 && text[end - 1] == '\n') --end;
  const size_t at = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  if (at == std::string::npos) return {"", text, true};
  return {text.substr(0, at), text.substr(at), true};
}

}  // namespace kvsweep
