#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/core/kv_cache.h"
#include "harness/core/rope.h"
#include "harness/core/scheme.h"

namespace kvsweep {

// A view's tokens as attention needs them: without basis, keys after RoPE.
struct DecodedTokens {
  at::Tensor k, v;  // [H, S, D] float32
};
DecodedTokens decode_view(const KvView& view, const Rope& rope);

// T queries over tokens that change their form while the queries go by: what token-by-token decoding would have shown
// each of them, in one pass. Query i sits at position + i and sees tokens at or before it; token t is read as `after`
// has it from query forms.keys[t] on (values: forms.values[t]), as `before` has it until then.
struct OnePass {
  DecodedTokens before, after;  // [H, S, D] each; token t sits at absolute position t
  CompressedFrom forms;         // at least S entries each
};

//   q [Hq, T, D] after RoPE -> [T, Hq, D], dtype of q. Float32 inside; one softmax over both forms.
// Costs what causal attention costs: a block of queries reads one merged copy of the tokens, and only those that change
// within the block are scored in both forms.
at::Tensor attend_one_pass(const OnePass& tokens, const at::Tensor& q, int64_t position);

}  // namespace kvsweep
