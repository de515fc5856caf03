#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kvsweep {

// Rotary position embedding in the half-split convention: pairs are (x[i], x[i + D/2]).
// Source of the arithmetic: transformers modeling_rope_utils.py and modeling_llama.py (angle = float32(position) *
// float32(inv_freq), cos and sin multiplied by attention_scaling).
class Rope {
 public:
  // inv_freq: D/2 float32 values. Tables hold positions 0 to max_positions - 1.
  Rope(std::vector<float> inv_freq, float attention_scaling, at::Device device, int64_t max_positions);

  // x [heads, T, D] at positions position, position + 1, ... -> rotated, same dtype as x. Computed in float32.
  at::Tensor apply(const at::Tensor& x, int64_t position) const;
  // The same at positions [T] int64.
  at::Tensor apply(const at::Tensor& x, const at::Tensor& positions) const;
  // The same in place; x may be a view on a larger tensor.
  void rotate(const at::Tensor& x, int64_t position) const;
  void rotate(const at::Tensor& x, const at::Tensor& positions) const;
  // [max_positions, D/2] float32, for kernels that rotate.
  const at::Tensor& cos() const { return cos_; }
  const at::Tensor& sin() const { return sin_; }
  int64_t head_dim() const { return 2 * cos_.size(1); }
  int64_t max_positions() const { return cos_.size(0); }

 private:
  void turn(const at::Tensor& x, const at::Tensor& to, int64_t first, const at::Tensor& positions) const;
  void check_range(int64_t position, int64_t tokens) const;

  at::Tensor cos_, sin_;  // [max_positions, D/2] float32
};

}  // namespace kvsweep
