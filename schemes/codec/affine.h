#pragma once

#include <string_view>

#include "harness/core/codec.h"
#include "schemes/kernels/affine_math.h"

namespace kvsweep {

// Fields not named have their defaults: uniform; arithmetic kHalf: KIVI; kZeroPoint: LMDeploy's PyTorch engine;
// kReciprocal in kHalf: its TurboMind engine.
struct AffineOptions {
  int64_t bits = 4;    // 1..8; symmetric: 2..8
  int64_t group = 64;  // values that share metadata; token axis: divides D
  GroupAxis axis = GroupAxis::kToken;
  bool symmetric = false;                  // kMinimum in kFloat only
  at::ScalarType metadata = at::kHalf;     // kHalf, kBFloat16 or kFloat
  at::ScalarType arithmetic = at::kFloat;  // kFloat or kHalf
  AffineForm form = AffineForm::kMinimum;
};

// Uniform quantization, x ~ (code - offset) * scale + zero, or of the form kZeroPoint x ~ (code - zero) * scale.
//
//   asymmetric  N = 2^bits - 1, scale = (max - min) / N (kReciprocal: times 1 / N), codes and zero as the form says,
//               clamped to [0, N], offset 0
//   symmetric   M = 2^(bits-1) - 1, no zero, scale = max|x| / M, offset M, code = clamp(round(x / scale), -M, M) + M;
//               the code 2M + 1 stays unused. One bit has no level but 0 (M = 0) and is refused.
//
// round is half to even. Every operation is done in `arithmetic`: in kHalf the input is rounded to fp16 first (beyond
// 65504 saturated) and each result after it, when decoding too; but results have no largest value, so that a range of
// more than 65504 has codes where fp16 would have infinity. min, max and scale are rounded to the metadata's type
// before codes are made; the zero-point's codes are made from what is not rounded yet, as LMDeploy does.
//
// Edges. Magnitudes beyond the metadata's range saturate (fp16: 65504), so that decoded values are always finite.
// A group without a range is one whose scale rounds to zero (a constant group, or a range that fp16 cannot express:
// below about N * 3e-8), whose scale has no finite reciprocal (kReciprocal) or whose zero-point does not fit the
// metadata (an offset of more than 65504 steps). It has code 0 (symmetric: M), and decodes to its stored minimum
// (symmetric: 0). Its scale is stored as 1 and its zero-point as -min; in fp16 arithmetic its scale is stored as 0
// beside a minimum. NaN, infinity and ranges of more than half of float32's are refused with c10::Error; a CUDA kernel
// does not wait to say so and gives such groups a scale of NaN (caches refuse NaN before: parts/finite.h).
//
// Parts, for x [H, T, D], B = packed_bytes(D, bits) (bitpack.h: each token's D codes are one packed row):
//   token axis    codes [H, T, B] uint8,            scale and zero [H, T, D / group]
//   channel axis  codes [H, T / group, group, B],   scale and zero [H, T / group, D]
// Symmetric has no zero. Bytes a value (D a multiple of 8): bits / 8 + (scale and zero bytes) / group.
class AffineCodec final : public Codec {
 public:
  // Throws c10::Error on options outside their range or a group that does not divide head_dim on the token axis.
  AffineCodec(AffineOptions options, int64_t head_dim);

  std::string name() const override { return "affine"; }
  int64_t group_tokens() const override { return options_.axis == GroupAxis::kChannel ? options_.group : 1; }
  double nominal_bits() const override { return static_cast<double>(options_.bits); }
  std::vector<PartSpec> parts() const override;
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;
  std::optional<PackedLayout> layout() const override;

  const AffineOptions& options() const { return options_; }
  int64_t head_dim() const { return head_dim_; }
  // What is subtracted from a stored code.
  int64_t offset() const { return options_.symmetric ? (int64_t{1} << (options_.bits - 1)) - 1 : 0; }
  // The largest stored code.
  int64_t top() const { return options_.symmetric ? 2 * offset() : (int64_t{1} << options_.bits) - 1; }
  // What is stored as the scale of a group without a range.
  float empty_scale() const {
    return options_.arithmetic == at::kHalf && options_.form != AffineForm::kZeroPoint ? 0.0F : 1.0F;
  }

  // The same parts and values, bit for bit, with tensor operations: what encode() and decode() run where there is no
  // kernel of our own.
  std::vector<at::Tensor> encode_with_ops(const at::Tensor& x) const;
  at::Tensor decode_with_ops(const std::vector<at::Tensor>& parts) const;

 private:
  void check_input(const at::Tensor& x) const;

  AffineOptions options_;
  int64_t head_dim_;
};

}  // namespace kvsweep
