#include "harness/core/rope.h"

#include <ATen/ATen.h>

namespace kvsweep {

Rope::Rope(std::vector<float> inv_freq, float attention_scaling, at::Device device, int64_t max_positions) {
  const at::Tensor frequencies = at::tensor(inv_freq, at::kFloat);
  const at::Tensor angles = at::arange(max_positions, at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0);
  cos_ = (angles.cos() * attention_scaling).to(device);
  sin_ = (angles.sin() * attention_scaling).to(device);
}

at::Tensor Rope::rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) const {
  const int64_t half = cos.size(1);
  TORCH_CHECK(x.size(-1) == 2 * half, "Rope: head dim ", x.size(-1), " is not ", 2 * half);
  at::Tensor out = at::empty_like(x, x.options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  at::Tensor out_first = out.narrow(-1, 0, half), out_second = out.narrow(-1, half, half);
  // Products rounded before they are added, as in x * cos + rotate_half(x) * sin.
  at::mul_out(out_first, first, cos).sub_(second * sin);
  at::mul_out(out_second, second, cos).add_(first * sin);
  return out.to(x.scalar_type());
}

at::Tensor Rope::apply(const at::Tensor& x, int64_t position) const {
  const int64_t tokens = x.size(-2);
  TORCH_CHECK(position >= 0 && position + tokens <= max_positions(), "Rope: positions ", position, " to ",
              position + tokens - 1, " are outside a table of ", max_positions());
  return rotate(x, cos_.narrow(0, position, tokens), sin_.narrow(0, position, tokens));
}

at::Tensor Rope::apply(const at::Tensor& x, const at::Tensor& positions) const {
  return rotate(x, cos_.index_select(0, positions), sin_.index_select(0, positions));
}

}  // namespace kvsweep
