#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/core/kv_cache.h"

namespace kvsweep {

enum class AttentionPath {
  kReference,  // some run was decoded to a tensor first
  kFused,      // kernels read every run where it lies
};

struct AttentionResult {
  at::Tensor output;  // [T, Hq, D], dtype of q
  AttentionPath path = AttentionPath::kReference;
};

// Causal attention of T queries over a view: query i sits at absolute position `position + i` and sees every token of
// the view at or before it. Every run is decoded to float32, scores, softmax and sums are float32: the oracle that
// fused kernels are compared with.
//   q [Hq, T, D] after RoPE; Hq a multiple of the view's H. Scores are scaled by 1/sqrt(D).
AttentionResult attend_reference(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope);

// The same by the fastest path that there is for the view, its tensors and this CPU.
AttentionResult attend(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope);

// Causal attention over tokens that no cache has had: the last T of S tokens are the queries' own.
//   q [Hq, T, D], k and v [H, S, D], all after RoPE -> [T, Hq, D], dtype of q
at::Tensor attend_exact(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace kvsweep
