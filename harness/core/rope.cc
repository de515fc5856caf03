#include "harness/core/rope.h"

#include <ATen/ATen.h>

namespace kvsweep {
namespace {

void rotate_by(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(1);
  TORCH_CHECK(x.dim() == 3 && x.size(2) == 2 * half, "Rope: x of sizes ", x.sizes(), " is not [heads, T, ", 2 * half,
              "]");
  at::Tensor first = x.narrow(2, 0, half), second = x.narrow(2, half, half);
  const at::Tensor a = first.to(at::kFloat), b = second.to(at::kFloat);
  // Products rounded before they are added, as in x * cos + rotate_half(x) * sin.
  const at::Tensor rotated = (a * cos).sub_(b * sin);
  second.copy_((b * cos).add_(a * sin));
  first.copy_(rotated);
}

}  // namespace

Rope::Rope(std::vector<float> inv_freq, float attention_scaling, at::Device device, int64_t max_positions) {
  const at::Tensor frequencies = at::tensor(inv_freq, at::kFloat);
  const at::Tensor angles = at::arange(max_positions, at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0);
  cos_ = (angles.cos() * attention_scaling).to(device);
  sin_ = (angles.sin() * attention_scaling).to(device);
}

void Rope::rotate(const at::Tensor& x, int64_t position) const {
  const int64_t tokens = x.size(1);
  TORCH_CHECK(position >= 0 && position + tokens <= max_positions(), "Rope: positions ", position, " to ",
              position + tokens - 1, " are outside a table of ", max_positions());
  rotate_by(x, cos_.narrow(0, position, tokens), sin_.narrow(0, position, tokens));
}

void Rope::rotate(const at::Tensor& x, const at::Tensor& positions) const {
  rotate_by(x, cos_.index_select(0, positions), sin_.index_select(0, positions));
}

at::Tensor Rope::apply(const at::Tensor& x, int64_t position) const {
  const at::Tensor out = x.clone(at::MemoryFormat::Contiguous);
  rotate(out, position);
  return out;
}

at::Tensor Rope::apply(const at::Tensor& x, const at::Tensor& positions) const {
  const at::Tensor out = x.clone(at::MemoryFormat::Contiguous);
  rotate(out, positions);
  return out;
}

}  // namespace kvsweep
