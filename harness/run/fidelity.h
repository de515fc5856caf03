#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kvsweep {

// Next-token distributions of one row against the full-precision row at the same positions.
struct Fidelity {
  std::vector<float> kl;   // KL(full || row) per position, nats, >= 0 up to rounding
  std::vector<bool> flip;  // the most likely token differs
};

// Both [n, vocab] float32 log-probabilities (log_softmax).
Fidelity compare_distributions(const at::Tensor& reference_log_probs, const at::Tensor& log_probs);

// -log p of `targets` [n] int64 under log_probs [n, vocab].
std::vector<float> negative_log_likelihood(const at::Tensor& log_probs, const at::Tensor& targets);

}  // namespace kvsweep
