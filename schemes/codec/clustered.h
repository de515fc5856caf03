#pragma once

#include <cstdint>
#include <vector>

#include "harness/core/codec.h"

namespace kvsweep {

struct ClusteredRows;
struct ClusteredShape;

// A layer's channels, those of all heads side by side (C = H * D, head by head), in another order and cut into
// clusters: cluster j holds the channels order[starts[j]] to order[starts[j + 1] - 1]. Clusters span heads and differ
// in size.
struct ChannelClusters {
  at::Tensor order;   // [C] int16, a permutation; undefined: as they are
  at::Tensor starts;  // [clusters + 1] int16: 0, rising, C

  // Neighbours in groups of `group`, which divides `channels`.
  static ChannelClusters neighbours(int64_t channels, int64_t group);
  int64_t count() const { return starts.size(0) - 1; }
  // Throws c10::Error when these are no clusters of so many channels.
  void check(int64_t channels) const;
};

struct ClusteredOptions {
  int64_t levels = 4;                     // 2..256: codes 0 to levels - 1
  bool trits = false;                     // levels 3 only: five codes in a byte instead of two bits a code
  double clip = 1;                        // (0, 1]: minimum and maximum are multiplied by it
  at::ScalarType arithmetic = at::kHalf;  // kHalf, kBFloat16 or kFloat
  bool fp8 = false;                       // metadata in E4M3 instead of the arithmetic's type
  bool codes_from_rounded = false;        // codes are made from the stored metadata
  bool saturate = true;                   // false: overflow as in the original, that is to infinity and NaN
};

// Asymmetric quantization of one token at a time, in groups of channels that need not be neighbours: SKVQ
// (arXiv 2405.06219) as SKVQuantProcessor.quant_pytorch of cat538/SKVQ computes it. R rounds to `arithmetic`, half to
// even, and is applied to the input and after every operation; N = levels - 1:
//
//   zero  = R(min * clip)                         scaling about zero: above it, zero lies below the minimum
//   scale = max(R(R(R(max * clip) - zero) / N), R(1e-5))
//   code  = round(clamp(R(R(x - zero) / scale), 0, N))
//   x     ~ R(R(code * scale) + zero)
//
// fp8 rounds scale and zero to E4M3 after the codes are made from them, or before (codes_from_rounded).
//
// Edges. A constant cluster has the scale 1e-5 and decodes to its zero, which is clipped; above zero, where clip puts
// it over its range, to N * 1e-5 more. An E4M3 scale may be zero (up to 2^-10): the cluster decodes to its zero, with
// codes 0 when they are made from it. Values beyond fp16's and metadata beyond E4M3's range saturate (65504, 448), so
// that decoded values are finite; the original has infinity and NaN there. NaN, infinity and, where `arithmetic` has
// float32's exponents, ranges of more than half of float32's are refused with c10::Error; a CUDA kernel does not wait
// to say so and gives such clusters a scale of NaN (caches refuse NaN before: parts/finite.h).
//
// Parts, for x [H, T, D]; channels in the clusters' order:
//   codes        [1, T, B] uint8: B = packed_bytes(C, bits), bits to hold a code (bitpack.h; levels 3 take two); trits:
//                B = ceil(C / 5), code i of a token is digit i % 5, lowest first, of byte i / 5 to the base 3
//   scale, zero  [1, T, clusters], E4M3 or `arithmetic`
// Bytes a token: B + 2 * clusters * (1, 2 or 4).
class ClusteredCodec final : public Codec {
 public:
  // device: where encode_with_ops() and decode_with_ops() compute.
  ClusteredCodec(ClusteredOptions options, int64_t heads, int64_t head_dim, const ChannelClusters& clusters,
                 at::Device device = at::kCPU);

  std::string name() const override { return "clustered"; }
  double nominal_bits() const override;
  std::vector<PartSpec> parts() const override {
    return {{"codes", ByteRole::kCodes}, {"scale", ByteRole::kScales}, {"zero", ByteRole::kZeros}};
  }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;

  const ClusteredOptions& options() const { return options_; }
  // [1, T, C] uint8, in the clusters' order.
  at::Tensor unpack(const at::Tensor& codes) const;

  // The same parts and values, bit for bit, with tensor operations: what encode() and decode() run where there is no
  // kernel of our own.
  std::vector<at::Tensor> encode_with_ops(const at::Tensor& x) const;
  at::Tensor decode_with_ops(const std::vector<at::Tensor>& parts) const;

  // Payload bits a code of so many levels: the smallest whole number that holds it, or 1.6 as trits.
  static double bits_of(int64_t levels, bool trits);

 private:
  ClusteredRows rows() const;
  // Of a program with kernels.
  bool has_kernel(const at::Tensor& x) const;
  ClusteredShape shape() const;
  std::vector<at::Tensor> encode_with_kernel(const at::Tensor& x) const;
  at::Tensor decode_with_kernel(const std::vector<at::Tensor>& parts) const;
  int64_t channels() const { return heads_ * head_dim_; }
  int64_t clusters() const { return static_cast<int64_t>(starts_.size()) - 1; }
  int64_t row_bytes() const;
  at::ScalarType metadata() const { return options_.fp8 ? at::kFloat8_e4m3fn : options_.arithmetic; }
  void check_input(const at::Tensor& x) const;
  at::Tensor pack(const at::Tensor& codes) const;
  at::Tensor rounded(const at::Tensor& x) const;
  at::Tensor stored(const at::Tensor& x) const;

  ClusteredOptions options_;
  int64_t heads_, head_dim_;
  std::vector<int32_t> order_, inverse_;  // empty: as they are
  std::vector<int32_t> starts_;
  // For tensor operations, int64: the order and its inverse (undefined: as they are), where clusters start, each
  // channel's cluster.
  at::Tensor order_index_, inverse_index_, starts_index_, cluster_index_;
};

}  // namespace kvsweep
