#pragma once

#include <span>
#include <string_view>

#include "harness/core/codec.h"
#include "schemes/codec/lattice_cpu.h"

namespace kvsweep {

struct HiggsShape;

// A grid of `points` vectors for normal values that makes their mean squared error small.
struct LatticeGrid {
  std::string_view name;  // "EDEN2-16"
  int64_t dim = 0, points = 0;
  const float* values = nullptr;  // [points, dim]
};

// EDEN2-16, EDEN2-64, EDEN2-256 and EDEN4-256: 2, 3, 4 and 2 bits a value.
std::span<const LatticeGrid> lattice_grids();
// Throws c10::Error for a grid that is not among them.
const LatticeGrid& lattice_grid(int64_t dim, int64_t points);

struct HiggsOptions {
  int64_t dim = 2, points = 16;           // of the grid: d and n
  int64_t group = 64;                     // h: a power of two, a multiple of d
  at::ScalarType norm_type = at::kFloat;  // kFloat or kHalf
  // Grid values times norm are clamped to the range of fp16. Without it, as in the original's code, they overflow where
  // the norm is beyond 65504 / max|grid|, and the block decodes to NaN.
  bool saturate = true;
};

// HIGGS: vector quantization of each token's channels, the heads side by side (C = H * D), which a Hadamard transform
// has made nearly normal. Source: arXiv 2411.17525 and the HiggsQuantizer of AQUA-KV (arXiv 2501.19392;
// goodevening13/aquakv, aquakv/quantizers.py). C is padded with zeros to blocks of h channels. One block x, in float32:
//
//   sigma = |x|  rounded to its stored type;  y = H x / sigma, H of +1 and -1 without random signs: values nearly
//   N(0, 1);  y is cut into vectors of d:  code = argmax_j 2 <y, g_j> - |g_j|^2, the first of equals
//   decoded: v = fp16(g_code * sigma);  x ~ fp16(H v / h)
//
// Edges. A block of zeros, or one whose norm is stored as zero, has code 0 and decodes to zeros. A norm beyond its type
// saturates. NaN and infinity give a NaN or a saturated norm: caches refuse them before (parts/finite.h).
// Paper differs: norms are counted as 16 bits; the code, and so the default here, keeps them in float32.
//
// Parts, for x [H, T, D]: one row a token, since blocks span heads. P = C padded to a multiple of h,
//   codes [1, T, packed_bytes(P / d, log2 n)] uint8 (bitpack.h),  norms [1, T, P / h]
// Bytes a value: (log2(n) / d / 8 + bytes of a norm / h) * P / C.
class HiggsCodec final : public Codec {
 public:
  // Throws c10::Error on options outside their range.
  HiggsCodec(HiggsOptions options, int64_t heads, int64_t head_dim);

  std::string name() const override { return "higgs"; }
  double nominal_bits() const override { return static_cast<double>(code_bits()) / static_cast<double>(options_.dim); }
  std::vector<PartSpec> parts() const override { return {{"codes", ByteRole::kCodes}, {"norms", ByteRole::kScales}}; }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override;
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;
  // Of blocks that lie in one head, in whole bytes.
  std::unique_ptr<const RowReader> reader(const std::vector<at::Tensor>& parts) const override;

  // Codes of one token, bits of one code.
  int64_t codes() const { return loops_.padded / options_.dim; }
  int64_t code_bits() const { return loops_.code_bits; }

  // What encode() and decode() run where there are no loops of our own. Sums of a score may be rounded differently, so
  // that a vector between two points may have the other's code; all else is the same bit for bit.
  std::vector<at::Tensor> encode_with_ops(const at::Tensor& x) const;
  at::Tensor decode_with_ops(const std::vector<at::Tensor>& parts) const;

 private:
  void check_input(const at::Tensor& x) const;
  at::Tensor tokens_of(const at::Tensor& x) const;
  at::Tensor heads_of(const at::Tensor& tokens) const;

  // Of a program with kernels.
  bool has_kernel(const at::Tensor& x) const;
  HiggsShape shape() const;
  std::vector<at::Tensor> encode_with_kernel(const at::Tensor& x) const;
  at::Tensor decode_with_kernel(const std::vector<at::Tensor>& parts) const;

  HiggsOptions options_;
  int64_t heads_, head_dim_;
  const LatticeGrid& grid_;
  HiggsLoops loops_;
};

}  // namespace kvsweep
