#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/core/kv_cache.h"
#include "harness/core/rope.h"

namespace kvsweep {

// What one query looks at: its softmax weights over all positions up to its own, 0 where a token was dropped.
//   q [Hq, 1, D] after RoPE, at `position` -> [Hq, position + 1] float32, rows that sum to 1
at::Tensor attention_weights(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope);

// How far one query's weights are from full precision's: means over heads.
struct WeightDrift {
  double kl = 0;           // KL(full || own), nats; infinite where a token that full precision looks at was dropped
  double overlap = 0;      // share of full precision's `top` heaviest tokens that are among the own `top` heaviest
  double oldest = 0;       // own weight on the oldest tenth of the positions
  double full_oldest = 0;  // full precision's
};
// full, own [Hq, S]
WeightDrift compare_weights(const at::Tensor& full, const at::Tensor& own, int64_t top);

}  // namespace kvsweep
