#include "tasks/data/synthetic.h"

#include <fmt/format.h>

#include "harness/core/error.h"
#include "tasks/data/haystack.h"

namespace kvsweep {

SyntheticSize read_synthetic_size(Params& params) {
  SyntheticSize size;
  size.tokens = params.integer("tokens", std::nullopt, 32, 1 << 20, "tokens of context and query, met exactly");
  size.samples = params.integer("samples", 20, 1, 100000, "samples in all");
  return size;
}

Sample synthetic_sample(const std::string& task, std::string id, const FittedPrompt& prompt, const std::string& answer,
                        int64_t max_new_tokens, const Tokenizer& tokenizer) {
  Sample sample;
  sample.id = std::move(id);
  sample.max_new_tokens = max_new_tokens;
  sample.answers = {answer};
  sample.context.assign(prompt.ids.begin(), prompt.ids.begin() + prompt.context_tokens);
  sample.query.assign(prompt.ids.begin() + prompt.context_tokens, prompt.ids.end());
  const int64_t needed = std::ssize(tokenizer.encode(" " + answer, false));
  if (needed > max_new_tokens)
    throw ConfigError(fmt::format("{}.max_new_tokens = {} is too few: the answer of sample {} takes {} tokens", task,
                                  max_new_tokens, sample.id, needed));
  return sample;
}

DepthPlace depth_place(int64_t index, int64_t depths) {
  const int64_t place = spread_order(depths)[static_cast<size_t>(index % depths)];
  const int64_t depth = depth_grid(depths)[static_cast<size_t>(place)];
  return {depth, fmt::format("d{:03}-s{:02}", depth, index / depths)};
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

}  // namespace kvsweep
