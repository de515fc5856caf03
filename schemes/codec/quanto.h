#pragma once

#include "harness/core/codec.h"
#include "schemes/codec/value_groups.h"

namespace kvsweep {

struct QuantoOptions {
  int64_t bits = 4;                       // 2 or 4
  GroupCut cut = GroupCut::kConsecutive;  // axis 0: kConsecutive, axis -1: kRows
  int64_t group = 64;                     // values that share metadata
  at::ScalarType dtype = at::kHalf;       // of the tensor: kFloat, kHalf or kBFloat16
};

// What optimum-quanto 0.2.7 makes of a tensor [1, H, T, D] with MaxOptimizer and quantize_weight, the backend "quanto"
// of transformers' QuantizedCache. Every operation is rounded to `dtype`, N = 2^bits - 1:
//
//   scale = (max - min) / N, shift = -min, code = clamp(round((x + shift) / scale), 0, N), x ~ code * scale - shift
//
// round is half to even; x is rounded to `dtype` first. The original wants groups that divide evenly (a ValueError
// otherwise: H * T * D by the group on axis 0, H * T on axis -1); here the last groups are shorter.
//
// Edges. A scale of zero (a constant group, or a range that the type cannot express) is stored as such: code 0 for the
// minimum, N above it, all decoded to the minimum. Values out of range are clamped and intermediates stay finite
// (narrow_tensor.h), so that decoded values are always finite. NaN and infinity are refused with c10::Error; a CUDA
// kernel does not wait to say so and gives such groups a scale of NaN (caches refuse them before: parts/finite.h).
//
// Parts, for x [H, T, D]:
//   codes          [packed_bytes(H * T * D, bits)] uint8, one bit stream (bitpack.h), head by head, token by token
//   scale, shift   [groups] of `dtype`, in the order of ValueGroups
// Bytes a value: bits / 8 + 2 * size of dtype / group.
class QuantoCodec final : public Codec {
 public:
  // Throws c10::Error on options outside their range.
  QuantoCodec(QuantoOptions options, int64_t heads, int64_t head_dim);

  std::string name() const override { return "quanto"; }
  double nominal_bits() const override { return static_cast<double>(options_.bits); }
  std::vector<PartSpec> parts() const override;
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;
  // Of groups along a token's channels that divide the head dim, in whole bytes.
  std::unique_ptr<const RowReader> reader(const std::vector<at::Tensor>& parts) const override;

  // The same with tensor operations: what encode() and decode() run where there is no kernel of our own.
  std::vector<at::Tensor> encode_with_ops(const at::Tensor& x) const;
  at::Tensor decode_with_ops(const std::vector<at::Tensor>& parts) const;

 private:
  ValueGroups groups_of(int64_t tokens) const;
  int64_t tokens_of(const std::vector<at::Tensor>& parts) const;

  QuantoOptions options_;
  int64_t heads_, head_dim_;
};

}  // namespace kvsweep
