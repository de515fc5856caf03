#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "harness/core/codec.h"
#include "schemes/kernels/ggml_tables.h"

namespace kvsweep {

// Names of GgmlType.
inline constexpr std::array<std::string_view, 9> kGgmlTypeNames = {"f16",  "bf16", "q8_0",   "q4_0", "q4_1",
                                                                   "q5_0", "q5_1", "iq4_nl", "nvfp4"};
GgmlType ggml_type(std::string_view name);  // throws c10::Error for a name that is none of these
int64_t ggml_payload_bits(GgmlType type);   // of a value, without metadata
constexpr bool ggml_quantized(GgmlType type) {
  return type != GgmlType::kF16 && type != GgmlType::kBF16;
}
// Neighbouring channels of a block.
constexpr int64_t ggml_block_values(GgmlType type) {
  return !ggml_quantized(type) ? 1 : type == GgmlType::kNvfp4 ? 64 : 32;
}

// ggml's block formats along head_dim, in its bytes. Source: ggml/src/ggml-common.h (layouts), ggml/src/ggml-quants.c
// (quantize_row_*_ref, dequantize_row_*).
//
// Parts, for x [H, T, D] and N = D / 32 blocks a row. They stand in the order of ggml's struct: the bytes of block n
// are those of every part at [h][t][n], one after the other.
//
//   type    parts (bytes a block)                   bits  d          code                    value
//   q8_0    scale fp16, codes 32 (int8)             8.5   amax/127   round(x/d)              q*d
//   q4_0    scale fp16, codes 16                    4.5   peak/-8    min(15, x/d + 8.5)      (q-8)*d
//   q4_1    scale fp16, min fp16, codes 16          5     range/15   min(15, (x-m)/d + .5)   q*d + m
//   q5_0    scale fp16, high 4, codes 16            5.5   peak/-16   min(31, x/d + 16.5)     (q-16)*d
//   q5_1    scale fp16, min fp16, high 4, codes 16  6     range/31   (x-m)/d + .5            q*d + m
//   iq4_nl  scale fp16, codes 16                    4.5   see below  nearest of 16 levels    level*d
//   nvfp4   scale 4 (UE4M3), codes 32; N = D / 64   4.5   amax/6     nearest E2M1            level*d
//   f16, bf16  codes: [H, T, D] of that type, half to even
//
// scale and min are [H, T, N], the rest [H, T, N, bytes] uint8. Byte j of codes holds value j (low nibble) and j + 16
// (high nibble); NVFP4 has a scale for 16 values, and byte 8s + j of its codes holds values 16s + j and 16s + j + 8.
// Bit j of the little-endian `high` is the fifth bit of code j. peak is the first value of the largest magnitude, with
// its sign; range is max - min, m is min.
//
// Arithmetic is float32. Codes are made from the float32 d (by a multiplication with 1 / d) and m, values from the
// stored ones; a code drops its fraction, except round(), which is half away from zero. iq4_nl: levels are those
// nearest to x / (peak / -127), the upper one at a tie; then d = sum(x^2 q x) / sum(x^2 q^2), summed in order, which is
// what the path that writes a cache does (ggml_quantize_chunk, for weight files, also searches other scales). NVFP4:
// the scale byte is rounded half up and, from 256 on, is that of 448; the lower level at a tie. Values beyond 6 * 448
// saturate, except that float32 cannot tell the levels apart from 5e10 on: then the code is zero.
//
// Code differs: a d or m beyond fp16 is stored as +-65504 (ggml: infinity). A d too small for 1 / d counts as zero
// (ggml: undefined). Where the refit of iq4_nl overflows, d stays peak / -127 (ggml: NaN); where no magnitude reaches
// 1e-15, d is 0 as in ggml and every code that of level 1 (ggml: what the block before left). NaN, infinity and values
// that span more than half of float32's range are refused with c10::Error; a CUDA kernel does not wait to say so and
// gives such blocks a scale of NaN, except NVFP4 (caches refuse NaN before: parts/finite.h).
class GgmlCodec final : public Codec {
 public:
  // Throws c10::Error for a head dim that holds no whole blocks.
  GgmlCodec(GgmlType type, int64_t head_dim);

  std::string name() const override { return "ggml"; }
  double nominal_bits() const override { return static_cast<double>(ggml_payload_bits(type_)); }
  std::vector<PartSpec> parts() const override;
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;
  std::unique_ptr<const RowReader> reader(const std::vector<at::Tensor>& parts) const override;

  GgmlType type() const { return type_; }

  // The same parts and values, bit for bit, with tensor operations: what encode() and decode() run off the CPU.
  std::vector<at::Tensor> encode_with_ops(const at::Tensor& x) const;
  at::Tensor decode_with_ops(const std::vector<at::Tensor>& parts) const;

 private:
  void check_input(const at::Tensor& x) const;

  GgmlType type_;
  int64_t head_dim_;
};

}  // namespace kvsweep
