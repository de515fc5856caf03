#pragma once

#include <ATen/core/Tensor.h>

namespace kvsweep {

// The arithmetic of one decoder layer. x is [n, in], weights are [out, in], an undefined bias is none.

enum class Products {
  kLibrary,       // a row's bits may depend on the rows beside it
  kRowInvariant,  // float32 on a CPU that has_cpu_kernels(): a row is bit for bit the row alone, and comes sooner
};

// x / sqrt(mean(x^2) + eps) * weight, computed in float32 -> dtype of x. x [n, hidden], weight [hidden] float32.
at::Tensor norm_rows(const at::Tensor& x, const at::Tensor& weight, double eps);

// x @ weight^T + bias -> [n, out]
at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Products products);
void project_into(at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Products products);

// sum += x @ weight^T + bias
void add_projection(at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    Products products);

struct MlpWeights {
  const at::Tensor &gate_up, &gate_up_bias;  // [2 * intermediate, hidden]: gate, then up
  const at::Tensor &down, &down_bias;        // [hidden, intermediate]
};

// sum += down(silu(gate(x)) * up(x))
void add_mlp(at::Tensor& sum, const at::Tensor& x, const MlpWeights& weights, Products products);

}  // namespace kvsweep
