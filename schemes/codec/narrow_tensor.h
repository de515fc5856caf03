#pragma once

#include <ATen/core/Tensor.h>

#include "schemes/kernels/narrow_float.h"

namespace kvsweep {

// float32 arithmetic of a narrower type, `type` being kFloat, kHalf or kBFloat16 (c10::Error for another). Results of
// kHalf that leave its range keep their 11 bits instead of becoming infinite.

// The largest magnitude that codecs take: 65504 of kHalf; 2^125 of the others, whose ranges then stay finite.
float largest_value(at::ScalarType type);

// Each item rounded to `type`, as float32.
at::Tensor nearest(const at::Tensor& x, at::ScalarType type);

template <at::ScalarType kType>
[[gnu::always_inline]] inline float nearest(float x) {
  if constexpr (kType == at::kHalf) return nearest_half_unbounded(x);
  if constexpr (kType == at::kBFloat16) return nearest_bfloat16(x);
  return x;
}

}  // namespace kvsweep
