#pragma once

#include "harness/core/codec.h"

namespace kvsweep {

// Stores what came, in the compute dtype. One part: values [H, T, D] of `dtype`, element_size(dtype) bytes a value.
class ExactCodec final : public Codec {
 public:
  explicit ExactCodec(at::ScalarType dtype) : dtype_(dtype) {}

  std::string name() const override { return "exact"; }
  bool exact() const override { return true; }
  double nominal_bits() const override;
  std::vector<PartSpec> parts() const override { return {{"values", ByteRole::kWindow}}; }
  // May share memory with x.
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  // May share memory with the part.
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;

 private:
  at::ScalarType dtype_;
};

}  // namespace kvsweep
