#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "harness/core/kv_cache.h"
#include "harness/core/rope.h"
#include "harness/core/scheme.h"

namespace kvsweep {

// A view's tokens as attention needs them: without basis, keys after RoPE.
struct DecodedTokens {
  at::Tensor k, v;  // [H, S, D] float32
};
DecodedTokens decode_view(const KvView& view, const Rope& rope);

// (query, token) pairs of one query at `position` whose key or value comes out of a lossy codec; of all heads that look
// at a token the pair counts once.
int64_t compressed_reads(const KvView& view, int64_t position);

// T queries over tokens that change their form while the queries go by: what token-by-token decoding would have shown
// each of them, in one pass. Query i sits at position + i and sees tokens at or before it; token t is read as `after`
// has it from query forms.keys[t] on (values: forms.values[t]), as `before` has it until then.
struct OnePass {
  DecodedTokens before, after;  // [H, S, D] each; token t sits at absolute position t
  CompressedFrom forms;         // at least S entries each
};

// compressed_reads() of each of `queries` queries from `position` on, `after` being the view after the last of them.
std::vector<int64_t> one_pass_reads(const KvView& after, const CompressedFrom& forms, int64_t position,
                                    int64_t queries);

//   q [Hq, T, D] after RoPE -> [T, Hq, D], dtype of q. Float32 inside; one softmax over both forms.
// Costs what causal attention costs: a block of queries reads one merged copy of the tokens, and only those that change
// within the block are scored in both forms.
at::Tensor attend_one_pass(const OnePass& tokens, const at::Tensor& q, int64_t position);

}  // namespace kvsweep
