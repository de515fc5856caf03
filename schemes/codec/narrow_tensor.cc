#include "schemes/codec/narrow_tensor.h"

#include <ATen/ATen.h>

namespace kvsweep {

float largest_value(at::ScalarType type) {
  TORCH_CHECK(type == at::kFloat || type == at::kHalf || type == at::kBFloat16, "arithmetic in ", type,
              "; allowed: Float, Half, BFloat16");
  return type == at::kHalf ? 65504.0F : 0x1p125F;
}

at::Tensor nearest(const at::Tensor& x, at::ScalarType type) {
  if (type == at::kFloat) return x;
  const at::Tensor rounded = x.to(type).to(at::kFloat);
  if (type != at::kHalf) return rounded;
  return at::where(rounded.isinf(), (x * 0x1p-16).to(type).to(at::kFloat) * 0x1p16, rounded);
}

}  // namespace kvsweep
