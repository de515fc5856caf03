#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "harness/core/task.h"
#include "tasks/data/fit.h"

namespace kvsweep {

// What the tasks that make their texts themselves have in common.

// Parameters `tokens` (required) and `samples`.
struct SyntheticSize {
  int64_t tokens = 0, samples = 0;
};
SyntheticSize read_synthetic_size(Params& params);

// A sample with the prompt's ids, split where its context ends. Throws ConfigError naming `task` when max_new_tokens
// are too few for `answer`, a text that follows the query.
Sample synthetic_sample(const std::string& task, std::string id, const FittedPrompt& prompt, const std::string& answer,
                        int64_t max_new_tokens, const Tokenizer& tokenizer);

// "d050-s03", spread over the depths like needle's: sample `index` of a task with `depths` of them.
struct DepthPlace {
  int64_t depth = 0;  // per cent
  std::string id;
};
DepthPlace depth_place(int64_t index, int64_t depths);

// Without ASCII white space at both ends.
std::string_view trimmed(std::string_view text);

}  // namespace kvsweep
