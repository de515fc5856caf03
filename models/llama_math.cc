#include "models/llama_math.h"

#include <ATen/ATen.h>

#include "models/cpu_kernels.h"

namespace kvsweep {
namespace {

bool for_cpu_kernels(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous() && has_cpu_kernels();
}

bool by_own_kernel(const at::Tensor& x, const at::Tensor& out, Products products) {
  return products == Products::kRowInvariant && for_cpu_kernels(x) && out.is_contiguous();
}

void multiply(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, bool add) {
  multiply_rows(x.const_data_ptr<float>(), x.size(0), weight.const_data_ptr<float>(), weight.size(0), weight.size(1),
                out.mutable_data_ptr<float>(), add);
}

}  // namespace

at::Tensor norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (for_cpu_kernels(x)) {
    const at::Tensor out = at::empty_like(x);
    norm_rows(x.const_data_ptr<float>(), x.size(0), x.size(1), weight.const_data_ptr<float>(), static_cast<float>(eps),
              out.mutable_data_ptr<float>());
    return out;
  }
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = wide.square().mean(-1, true).add_(eps).rsqrt_();
  return (wide * scale).to(x.scalar_type()).mul_(weight);
}

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Products products) {
  at::Tensor out = at::empty({x.size(0), weight.size(0)}, x.options());
  project_into(out, x, weight, bias, products);
  return out;
}

void project_into(at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Products products) {
  if (by_own_kernel(x, out, products))
    multiply(out, x, weight, false);
  else
    at::mm_out(out, x, weight.t());
  if (bias.defined()) out.add_(bias);
}

void add_projection(at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    Products products) {
  if (by_own_kernel(x, sum, products))
    multiply(sum, x, weight, true);
  else
    sum.addmm_(x, weight.t());
  if (bias.defined()) sum.add_(bias);
}

at::Tensor silu_mul(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(1) / 2;
  if (!for_cpu_kernels(gate_up)) return at::silu(gate_up.narrow(1, 0, width)).mul_(gate_up.narrow(1, width, width));
  const at::Tensor out = at::empty({gate_up.size(0), width}, gate_up.options());
  silu_mul(gate_up.const_data_ptr<float>(), gate_up.size(0), width, out.mutable_data_ptr<float>());
  return out;
}

}  // namespace kvsweep
