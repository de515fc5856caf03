#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/core/codec.h"

namespace kvsweep {

enum class Float8Format {
  kE4M3,  // three bits of mantissa; largest value 448, no infinity
  kE5M2,  // two bits of mantissa; largest value 57344
};
double float8_top(Float8Format format);

// x float32 -> its bytes, uint8: half to even, saturating at float8_top. And back to float32. Any device, same bytes.
at::Tensor to_float8(const at::Tensor& x, Float8Format format);
at::Tensor from_float8(const at::Tensor& bytes, Float8Format format);

// Eight-bit floats with a scale: x ~ float8(x / scale) * scale.
//
// Scale fixed beforehand: one for the tensor or one a head, as vLLM's kv-cache-dtype fp8_e4m3 and fp8_e5m2. Scale made
// from the data: each token of each head has its own, max(amax / top, 1e-6), as vLLM's fp8_per_token_head
// (triton_reshape_and_cache_flash.py), which multiplies with 1 / scale instead. NaN and infinity are refused with
// c10::Error; a CUDA kernel does not look for them (caches refuse them before: parts/finite.h).
//
// Parts: codes [H, T, D] uint8; with scales from the data also scale [H, T, 1] float32. Bytes a value: 1, or 1 + 4 / D.
class Float8Codec final : public Codec {
 public:
  // scale: [1] or [H] float32 above zero on the device of the data; undefined: from the data.
  Float8Codec(Float8Format format, at::Tensor scale);

  std::string name() const override { return "float8"; }
  double nominal_bits() const override { return 8; }
  std::vector<PartSpec> parts() const override;
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;
  std::unique_ptr<const RowReader> reader(const std::vector<at::Tensor>& parts) const override;

  // The same parts and values, bit for bit, with tensor operations: what encode() and decode() run where there are no
  // loops of our own.
  std::vector<at::Tensor> encode_with_ops(const at::Tensor& x) const;
  at::Tensor decode_with_ops(const std::vector<at::Tensor>& parts) const;

 private:
  void check_input(const at::Tensor& x) const;

  Float8Format format_;
  at::Tensor scale_;  // [1 or H, 1, 1], or undefined
};

}  // namespace kvsweep
