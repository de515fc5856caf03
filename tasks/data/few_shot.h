#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/task.h"

namespace kvsweep {

// A prompt as two texts, one behind the other.
struct PromptParts {
  std::string context;
  std::string query;  // not empty
  bool chat = false;  // the special tokens of a chat format are written out, BOS too
  std::string text() const { return context + query; }
};

// Fills context and query of the sample, from the ids of the whole text: a token that reaches over the border belongs
// to the query. Of more than `most` tokens the first are dropped, as lm-evaluation-harness does (BOS among them); then
// the tag truncated_from says how many there were. Throws ConfigError "<name> = <most>: ..." when that leaves the query
// no token before it, or not all of its own.
void set_prompt(Sample& sample, const Tokenizer& tokenizer, const PromptParts& prompt, int64_t most,
                const std::string& name);

// Ids of each continuation by lm-evaluation-harness' rule (encode_pair): those of prompt and continuation as one text,
// less as many as the prompt alone has. A continuation without a token of its own is a ConfigError.
std::vector<std::vector<int32_t>> continuation_ids(const Tokenizer& tokenizer, const PromptParts& prompt,
                                                   const std::vector<std::string>& continuations);

// The model's chat format around one message, cut where the last line of the message begins. Throws
// ConfigError naming `owner` when the model has no chat template.
PromptParts chat_parts(const TaskContext& context, const std::string& message, const std::string& owner);

// `text` cut before its last line, whose line break belongs to the query.
PromptParts last_line_parts(const std::string& text);

}  // namespace kvsweep
