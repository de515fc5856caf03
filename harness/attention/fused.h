#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "harness/attention/cpu/job.h"
#include "harness/attention/one_pass.h"
#include "harness/core/kv_cache.h"

namespace kvsweep {

struct FusedAttention {
  at::Tensor output;     // [T, Hq, D] float32
  bool decoded = false;  // a lossy run had to be decoded to a tensor: its codec has no layout and no reader, say
};

// attend_reference() with kernels that read runs where they lie, within 1e-4 of the output's norm: float32 rows, codes
// of a codec that gives a layout, and rows that a codec's reader decodes a tile at a time. Groups that fit no tile of
// the kernels are dequantized value by value, which is right but slow: along a token, values' groups that are no
// multiple of 2 * lanes channels; along tokens, groups that are no multiple of 16. A run with neither layout nor
// reader, or before RoPE and in a basis, is decoded first.
//
// The bits of a query's output depend on the view, on its position and on the kernels, not on the other queries of the
// call nor on the number of threads: the view is cut into chunks at fixed tokens, and their softmaxes are merged in
// order. Threads (at::parallel_for) share heads and chunks, or heads and blocks of queries.
// Nothing when q is not float32 on the CPU, or when the kernels do not take its head dim.
std::optional<FusedAttention> attend_fused(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope,
                                           const cpu::Kernels& kernels);

// attend_one_pass() with the same kernels: each query's output has the bits that attend_fused() gives it over the view
// that decoding would have had, provided that this view is the stored runs up to what is compressed by then and one run
// of exact tokens behind them, as `Stream` makes it. Nothing also when tokens were dropped, when some keys are stored
// after RoPE and some before it, or when tokens are not compressed in order.
std::optional<FusedAttention> attend_fused_one_pass(const OnePass& tokens, const at::Tensor& q, int64_t position,
                                                    const Rope& rope, const cpu::Kernels& kernels);

// attend_exact() with the same kernels: a query's output has the bits that attend_fused() gives it over one run of the
// same rows, whatever queries and tokens come after it.
std::optional<at::Tensor> attend_fused_exact(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             const cpu::Kernels& kernels);

// The fastest that this CPU has for a head dim; null: none.
const cpu::Kernels* best_kernels(int64_t dim);

}  // namespace kvsweep
