#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/core/scheme.h"
#include "models/load_model.h"

namespace kvsweep {

// Texts that the full-precision model writes itself (see ModelText): `sequences` rows sampled as one batch at
// temperature 1 through caches of `scheme`, a lossless one, with progress on stderr. Kept as JSON in the user's cache
// under a hash of the weights, the numerics and the arguments; a damaged file is made anew.
std::vector<std::vector<int32_t>> model_texts(const LoadedModel& model, const Scheme& scheme, int64_t sequences,
                                              int64_t tokens, uint64_t seed);

// Continues `prompt` by up to `tokens` tokens in full precision, ends at an end token or the model's last position.
// Greedy at temperature 0. each_token is called as they come, without the end token. Throws ConfigError for a prompt
// that does not fit.
void continue_text(const Llama& llama, const Tokenizer& tokenizer, const Scheme& scheme,
                   const std::vector<int32_t>& prompt, int64_t tokens, double temperature, uint64_t seed,
                   const std::function<void(int32_t)>& each_token);

}  // namespace kvsweep
