#pragma once

#include <ATen/core/Tensor.h>

#include "models/llama.h"

namespace kvsweep {

// Weights of one decoder layer, [out, in] as torch's linear takes them. Biases are undefined where the model has none.
struct Llama::Layer {
  at::Tensor attention_norm, mlp_norm;  // [hidden] float32
  at::Tensor qkv, qkv_bias;             // [(Hq + 2H) * D, hidden]: q heads, k heads, v heads
  at::Tensor output, output_bias;       // [hidden, Hq * D]
  at::Tensor gate_up, gate_up_bias;     // [2 * intermediate, hidden]: gate, then up
  at::Tensor down, down_bias;           // [hidden, intermediate]
};

}  // namespace kvsweep
