#include "models/llama_math.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

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

namespace {

at::Tensor opened(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(1) / 2;
  if (!for_cpu_kernels(gate_up)) return at::silu(gate_up.narrow(1, 0, width)).mul_(gate_up.narrow(1, width, width));
  const at::Tensor out = at::empty({gate_up.size(0), width}, gate_up.options());
  silu_mul(gate_up.const_data_ptr<float>(), gate_up.size(0), width, out.mutable_data_ptr<float>());
  return out;
}

// Few rows are no work for a whole block, and rows that threads do not have to themselves are shared out product by
// product.
bool in_one_kernel(const at::Tensor& x) {
  constexpr int64_t kFewest = 8;
  return x.size(0) >= kFewest && (at::in_parallel_region() || at::get_num_threads() == 1);
}

}  // namespace

void add_mlp(at::Tensor& sum, const at::Tensor& x, const MlpWeights& weights, Products products) {
  const auto& [gate_up, gate_up_bias, down, down_bias] = weights;
  if (by_own_kernel(x, sum, products) && !gate_up_bias.defined() && in_one_kernel(x)) {
    add_mlp_rows(x.const_data_ptr<float>(), x.size(0), gate_up.const_data_ptr<float>(), down.const_data_ptr<float>(),
                 x.size(1), down.size(1), sum.mutable_data_ptr<float>());
    if (down_bias.defined()) sum.add_(down_bias);
    return;
  }
  add_projection(sum, opened(project(x, gate_up, gate_up_bias, products)), down, down_bias, products);
}

}  // namespace kvsweep
