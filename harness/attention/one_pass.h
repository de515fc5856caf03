#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/attention/attention.h"
#include "harness/core/kv_cache.h"
#include "harness/core/rope.h"
#include "harness/core/scheme.h"

namespace kvsweep {

// A view's tokens as rows of float32, without basis.
struct DecodedTokens {
  at::Tensor k, v;  // [H, S, D]
};
// Keys after RoPE.
DecodedTokens decode_view(const KvView& view, const Rope& rope);
// Keys as the runs hold them, before RoPE where they are kPending; of the tokens from the `first` on. May be views on
// the cache's buffers.
DecodedTokens decode_stored(const KvView& view, int64_t first = 0);

// T queries over tokens that change their form while the queries go by: what token-by-token decoding would have shown
// each of them, in one pass. Query i sits at position + i and sees tokens at or before it; token t is read as `after`
// has it from query forms.keys[t] on (values: forms.values[t]), until then as it came.
struct OnePass {
  KvView after;  // of all S tokens, when the last one has come; token t sits at absolute position t
  // [H, S - first, D] float32: tokens from the `first` on as they came, keys as `after` holds keys. Rows of tokens that
  // no query reads so may hold anything; undefined when no token is read so.
  at::Tensor k, v;
  CompressedFrom forms;  // at least S entries each
  int64_t first = 0;
};

// attend() of every query over the view that decoding would have had. Where kernels take the view (float32 on a CPU),
// bit for bit that, by reading stretches of the stored runs; the cost is that of causal attention, without anything of
// a cache's. Else by attend_one_pass_reference().
//   q [Hq, T, D] after RoPE
AttentionResult attend_one_pass(const OnePass& tokens, const at::Tensor& q, int64_t position, const Rope& rope);

// Float32 inside; one softmax over both forms. A block of queries reads one merged copy of the tokens, and only those
// that change within the block are scored in both forms.
at::Tensor attend_one_pass_reference(const OnePass& tokens, const at::Tensor& q, int64_t position, const Rope& rope);

}  // namespace kvsweep
