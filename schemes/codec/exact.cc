#include "schemes/codec/exact.h"

#include <ATen/ATen.h>

namespace kvsweep {

double ExactCodec::nominal_bits() const {
  return 8.0 * static_cast<double>(c10::elementSize(dtype_));
}

std::vector<at::Tensor> ExactCodec::encode(const at::Tensor& x) const {
  TORCH_CHECK(x.scalar_type() == dtype_, "exact: made for ", dtype_, ", got ", x.scalar_type());
  return {x};
}

at::Tensor ExactCodec::decode(const std::vector<at::Tensor>& parts) const {
  return parts.at(0).to(at::kFloat);
}

}  // namespace kvsweep
