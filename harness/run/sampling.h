#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "harness/core/scheme.h"
#include "harness/core/task.h"
#include "models/llama.h"

namespace kvsweep {

// Texts that the full-precision model writes itself (see ModelText): `sequences` rows sampled as one batch at
// temperature 1 through caches of `scheme`, a lossless one. progress is called with the number of tokens made of each
// row.
std::vector<std::vector<int32_t>> sample_texts(const Llama& llama, const Tokenizer& tokenizer, const Scheme& scheme,
                                               int64_t sequences, int64_t tokens, uint64_t seed,
                                               const std::function<void(int64_t)>& progress);

// The same, kept as JSON in `folder` under a hash of the weights, the numerics and the arguments; a damaged file is
// made anew.
std::vector<std::vector<int32_t>> cached_texts(const std::filesystem::path& folder, const std::string& weights_sha256,
                                               const Llama& llama, const Tokenizer& tokenizer, const Scheme& scheme,
                                               int64_t sequences, int64_t tokens, uint64_t seed,
                                               const std::function<void(int64_t)>& progress);

// Continues `prompt` by up to `tokens` tokens in full precision, ends at an end token or the model's last position.
// Greedy at temperature 0. each_token is called as they come, without the end token. Throws ConfigError for a prompt
// that does not fit.
void continue_text(const Llama& llama, const Tokenizer& tokenizer, const Scheme& scheme,
                   const std::vector<int32_t>& prompt, int64_t tokens, double temperature, uint64_t seed,
                   const std::function<void(int32_t)>& each_token);

}  // namespace kvsweep
