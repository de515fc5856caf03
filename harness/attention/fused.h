#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "harness/attention/cpu/job.h"
#include "harness/core/kv_cache.h"

namespace kvsweep {

struct FusedAttention {
  at::Tensor output;     // [T, Hq, D] float32
  bool decoded = false;  // a lossy run had to be decoded to a tensor: its codec has no layout, say
};

// attend_reference() with kernels that read runs where they lie, within 1e-4 of the output's norm: float32 rows, and
// codes of a codec that gives a layout. Groups that fit no tile of the kernels are dequantized value by value, which is
// right but slow: along a token, values' groups that are no multiple of 2 * lanes channels; along tokens, groups that
// are no multiple of 16. A run without a layout, or before RoPE and in a basis, is decoded first.
//
// The bits of a query's output depend on the view, on its position and on the kernels, not on the other queries of the
// call nor on the number of threads: the view is cut into chunks at fixed tokens, and their softmaxes are merged in
// order. Threads (at::parallel_for) share heads and chunks, or heads and blocks of queries.
// Nothing when q is not float32 on the CPU, or when the kernels do not take its head dim.
std::optional<FusedAttention> attend_fused(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope,
                                           const cpu::Kernels& kernels);

// The fastest that this CPU has for a head dim; null: none.
const cpu::Kernels* best_kernels(int64_t dim);

}  // namespace kvsweep
