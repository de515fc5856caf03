#pragma once

#include "harness/core/codec.h"
#include "schemes/codec/value_groups.h"

namespace kvsweep {

struct HqqShape;

struct HqqOptions {
  double bits = 4;                        // 1, 1.58, 2, 3, 4, 5, 6 or 8
  GroupCut cut = GroupCut::kConsecutive;  // axis 1: kConsecutive, axis 0: kStrided
  int64_t group = 64;                     // values that share metadata
  at::ScalarType dtype = at::kHalf;       // of the tensor and of metadata: kFloat, kHalf or kBFloat16
};

// What hqq 0.2.8 makes of a tensor [1, H, T, D] with Quantizer.quantize and its default optimizer
// (optimize_weights_proximal_legacy), the backend "hqq" of transformers' QuantizedCache. x is rounded to `dtype`; from
// then on in float32, each operation rounded once, N = round(2^bits - 1):
//
//   s = 1 / (max - min) * N, 1 where the range is at most 1e-4, at most 20000;  z = -min * s
//   up to 20 times, for all groups at once:
//     q = clamp(round(x * s + z), 0, N),  e = x - (q - z) / s,  z = mean of the group of (q - (x - shrink(e)) * s)
//     until the mean |e| of the whole tensor is not below the best one so far (the z of that last time is kept)
//   code = clamp(round(x * s + z), 0, N);  stored: z and 1 / s in `dtype`
//   x ~ (code - z) * (1 / s), difference and product rounded to `dtype`
//
// shrink(e) = sign(e) * max(0, |e| - |e|^-0.3 / 10), the proximal step of an l_0.7 norm. round is half to even. Because
// of the common stop a group's result depends on all others.
//
// The loops of this codec take powers and add in the order of ATen on one CPU thread, and end in the original's bits.
// Tensor operations and the CUDA kernel add a group's values in that order, too; only powers and the mean of the whole
// may differ in their last bit, so that a value on the edge between two codes may fall to the other side.
//
// Code differs: the original optimizes in fp16 on CUDA; here in float32 on every device. It raises where groups do not
// divide evenly (the last ones are shorter here), where the number of groups is no multiple of the values in a slot
// (the stream is padded here), and at 3 bits on axis 1.
//
// Edges. Values out of range are clamped and intermediates stay finite (narrow_tensor.h), stored metadata saturates at
// fp16's 65504: decoded values are always finite. NaN and infinity are refused with c10::Error; the CUDA
// kernel does not wait to say so, and zeros of such groups are NaN (caches refuse them before: parts/finite.h).
//
// Parts, for x [H, T, D]:
//   codes        one stream, head by head, token by token, in the original's slots: 8 bits for 5, 6 and 8, else 4, 2
//                (also for 1.58) or 1: [packed_bytes(H * T * D, slot)] uint8 (bitpack.h). 3 bits: ten codes in an
//                int32, lowest first, [ceil(H * T * D / 10)].
//   scale, zero  1 / s and z, [groups] of `dtype`, in the order of ValueGroups
// Bytes a value: slot / 8 (3 bits: 0.4) + 2 * size of dtype / group.
class HqqCodec final : public Codec {
 public:
  // Throws c10::Error on options outside their range.
  HqqCodec(HqqOptions options, int64_t heads, int64_t head_dim);

  std::string name() const override { return "hqq"; }
  // Of the slot: 8, 4, 3.2, 2 or 1.
  double nominal_bits() const override;
  std::vector<PartSpec> parts() const override;
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;

  // The same with tensor operations, within the stated accuracy: what encode() and decode() run where there is no
  // kernel of our own.
  std::vector<at::Tensor> encode_with_ops(const at::Tensor& x) const;
  at::Tensor decode_with_ops(const std::vector<at::Tensor>& parts) const;

  // [H, T, D] uint8: the codes of encode()'s first part.
  at::Tensor codes(const std::vector<at::Tensor>& parts) const;

 private:
  // Of a program with kernels: for groups of one length.
  bool has_kernel(const at::Tensor& x, const ValueGroups& groups) const;
  HqqShape shape_of(const ValueGroups& groups) const;
  std::vector<at::Tensor> encode_with_kernel(const at::Tensor& x, const ValueGroups& groups) const;
  at::Tensor decode_with_kernel(const std::vector<at::Tensor>& parts, const ValueGroups& groups) const;

  ValueGroups groups_of(int64_t tokens) const;
  int64_t tokens_of(const std::vector<at::Tensor>& parts) const;
  float top() const;
  std::vector<at::Tensor> stored(const ValueGroups& groups, const at::Tensor& grouped_codes, const at::Tensor& scale,
                                 const at::Tensor& zero) const;

  HqqOptions options_;
  int64_t heads_, head_dim_;
};

}  // namespace kvsweep
