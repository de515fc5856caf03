#include "models/llama_math.h"

#include <ATen/ATen.h>

namespace kvsweep {

at::Tensor norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = wide.square().mean(-1, true).add_(eps).rsqrt_();
  return (wide * scale).to(x.scalar_type()).mul_(weight);
}

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor out = at::empty({x.size(0), weight.size(0)}, x.options());
  project_into(out, x, weight, bias);
  return out;
}

void project_into(at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::mm_out(out, x, weight.t());
  if (bias.defined()) out.add_(bias);
}

void add_projection(at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  sum.addmm_(x, weight.t());
  if (bias.defined()) sum.add_(bias);
}

at::Tensor silu_mul(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(1) / 2;
  return at::silu(gate_up.narrow(1, 0, width)).mul_(gate_up.narrow(1, width, width));
}

}  // namespace kvsweep
