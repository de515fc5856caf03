#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "harness/core/codec.h"

namespace kvsweep {

// How the two libraries that define the format treat small blocks.
enum class NvFp4Scales {
  kModelOpt,  // TensorRT Model Optimizer: a block of zeros has scale 1, others at least the smallest E4M3, 2^-9
  kTorchAo,   // every block at least the smallest normal E4M3, 2^-6
};

// NVFP4: x ~ e2m1 * e4m3 scale of 16 values * float32 scale of the tensor. Source: nvfp4_tensor.py of NVIDIA Model
// Optimizer and of torchao (whose codes are the same).
//
//   block scale  E4M3(clamp(amax / 6 / tensor_scale, smallest, 448)), half to even
//   code         E2M1(x / (block scale * tensor scale)): 0, 0.5, 1, 1.5, 2, 3, 4, 6; half to even, saturating, sign in
//                bit 3
//
// tensor_scale fills E4M3's range when it is amax of the tensor / (6 * 448); with 1, blocks whose magnitude is beyond
// 6 * 448 saturate and those below 6 * 2^-9 lose bits. NaN and infinity are refused with c10::Error; a CUDA kernel does
// not look for them (caches refuse them before: parts/finite.h).
//
// Parts, for x [H, T, D]: codes [H, T, D / 2] uint8, the even channel low; scale [H, T, D / 16] uint8, bytes of E4M3.
// Bits a value: 4.5.
class NvFp4Codec final : public Codec {
 public:
  // Throws c10::Error for a head dim that is no multiple of 16 or a scale that is not above zero.
  NvFp4Codec(int64_t head_dim, float tensor_scale, NvFp4Scales scales);

  std::string name() const override { return "nvfp4"; }
  double nominal_bits() const override { return 4; }
  std::vector<PartSpec> parts() const override { return {{"codes", ByteRole::kCodes}, {"scale", ByteRole::kScales}}; }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;
  std::unique_ptr<const RowReader> reader(const std::vector<at::Tensor>& parts) const override;

  // The same parts and values, bit for bit, with tensor operations: what encode() and decode() run where there are no
  // loops of our own.
  std::vector<at::Tensor> encode_with_ops(const at::Tensor& x) const;
  at::Tensor decode_with_ops(const std::vector<at::Tensor>& parts) const;

 private:
  std::vector<at::Tensor> encode_on_cpu(const at::Tensor& x) const;
  void check_input(const at::Tensor& x) const;
  float smallest_scale() const { return scales_ == NvFp4Scales::kModelOpt ? 0x1p-9F : 0x1p-6F; }

  int64_t head_dim_;
  float tensor_scale_;
  NvFp4Scales scales_;
};

// x float32 -> codes of E2M1, uint8: half to even, saturating at 6; a negative value that rounds to zero keeps its
// sign.
at::Tensor to_e2m1(const at::Tensor& x);
at::Tensor from_e2m1(const at::Tensor& codes);  // float32

}  // namespace kvsweep
