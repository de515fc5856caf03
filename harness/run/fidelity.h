#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kvsweep {

// Next-token distributions of rows against those of full precision at the same positions.
struct Fidelity {
  std::vector<float> kl;      // KL(full || row) per pair, nats, >= 0 up to rounding
  std::vector<int32_t> best;  // the row's most likely token, the lowest one of equals
  std::vector<bool> flip;     // it differs from that of full precision
};

// log_probs [n, vocab] float32 (log_softmax). Pair i compares row own[i] with row reference[i]; its bits depend on
// nothing but these two rows.
Fidelity compare_rows(const at::Tensor& log_probs, const std::vector<int64_t>& own,
                      const std::vector<int64_t>& reference);

// log_probs[rows[i]][tokens[i]]
std::vector<float> log_probs_of(const at::Tensor& log_probs, const std::vector<int64_t>& rows,
                                const std::vector<int64_t>& tokens);

}  // namespace kvsweep
