#pragma once

#include <cstdint>
#include <vector>

#include "harness/core/scheme.h"
#include "models/llama.h"

namespace kvsweep {

// One text scored in view `as_decoded`, in one pass and token by token at batch 1: the same numbers, at what speed.
struct OnePassCost {
  double one_pass_ms = 0, streamed_ms = 0;
  bool fused = true;              // attention of the token-by-token steps
  double mean_difference = 0;     // of the mean NLL, one pass minus token by token, nats a token
  double largest_difference = 0;  // of one token
  int64_t scored = 0;
};

// A scheme without a one-pass form is fed in slabs, as the engine does it. tokens: at least two.
OnePassCost bench_one_pass(const Llama& llama, const Scheme& scheme, const std::vector<int32_t>& tokens);

}  // namespace kvsweep
