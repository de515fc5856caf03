#include "schemes/codec/ggml_block.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>

#include "schemes/codec/bitpack.h"
#include "schemes/codec/cuda_launch.h"
#include "schemes/codec/ggml_block_cpu.h"
#include "schemes/codec/row_reader.h"
#include "schemes/kernels/ggml.h"

namespace kvsweep {
namespace {

constexpr int64_t kParallelValues = 1 << 15;  // values below which a second thread costs more than it saves
constexpr double kFp16Top = 65504;

bool has_min(GgmlType type) {
  return type == GgmlType::kQ4_1 || type == GgmlType::kQ5_1;
}

bool has_high(GgmlType type) {
  return type == GgmlType::kQ5_0 || type == GgmlType::kQ5_1;
}

// Of a part whose last dimension counts a block's bytes.
int64_t code_bytes(GgmlType type) {
  return type == GgmlType::kQ8_0 || type == GgmlType::kNvfp4 ? 32 : 16;
}

[[noreturn]] void refuse(const at::Tensor& x) {
  const at::Tensor bad = at::isfinite(x).logical_not().nonzero();
  TORCH_CHECK(bad.size(0) == 0, "ggml: NaN or infinity at head ", bad[0][0].item<int64_t>(), ", token ",
              bad[0][1].item<int64_t>(), ", channel ", bad[0][2].item<int64_t>(), " of an input of sizes ", x.sizes());
  TORCH_CHECK(false, "ggml: a block's values span more than half of float32's range");
}

at::ScalarType stored_type(GgmlType type) {
  return type == GgmlType::kF16 ? at::kHalf : at::kBFloat16;
}

// Saturating, half to even.
at::Tensor narrowed(const at::Tensor& x, at::ScalarType type) {
  const double top = type == at::kHalf ? kFp16Top : 0x1.FEp127;
  return x.clamp(-top, top).to(type);
}

// A tensor, so that every device divides: by a host number, CUDA multiplies with its reciprocal.
at::Tensor constant(double value, const at::Tensor& like) {
  return at::full({1}, value, like.options().dtype(at::kFloat));
}

template <class Table>
at::Tensor table_of(const Table& table, const at::Tensor& like) {
  return at::tensor(at::ArrayRef<float>(table.data(), table.size()), at::kFloat).to(like.device());
}

at::Tensor looked_up(const at::Tensor& table, const at::Tensor& codes) {
  return table.index_select(0, codes.to(at::kInt).flatten()).view(codes.sizes());
}

// [..., n] -> [..., n / 2]: the first half low, the second high.
at::Tensor nibbles(const at::Tensor& q) {
  const int64_t half = q.size(-1) / 2;
  return q.narrow(-1, 0, half).bitwise_and(15).bitwise_or(q.narrow(-1, half, half).bitwise_and(15).mul(16));
}

at::Tensor from_nibbles(const at::Tensor& codes) {
  return at::cat({codes.bitwise_and(15), codes.bitwise_right_shift(4)}, -1);
}

at::Tensor reciprocal_or_zero(const at::Tensor& d) {
  const at::Tensor id = constant(1, d) / d;
  return id.masked_fill(id.isfinite().logical_not(), 0);
}

// The first value of the largest magnitude of each block [..., n] -> [..., 1]; +0 where all are zero.
at::Tensor peak_of(const at::Tensor& blocks) {
  const at::Tensor magnitudes = blocks.abs(), largest = magnitudes.amax(-1, true);
  const int64_t n = blocks.size(-1);
  const at::Tensor places = at::arange(n, blocks.options().dtype(at::kLong)).expand(blocks.sizes());
  const at::Tensor first = places.masked_fill(magnitudes.lt(largest), n - 1).amin(-1, true);
  return blocks.gather(-1, first).masked_fill(largest.eq(0), 0);
}

at::Tensor to_ue4m3(const at::Tensor& x) {
  const at::Tensor tiny = x.mul(512).add(0.5).to(at::kInt).clamp_max(7);
  const at::Tensor rounded = x.view(at::kInt).add(1 << 19).bitwise_right_shift(20).sub(120 << 3).clamp_max(kUe4m3Top);
  const at::Tensor code = at::where(x.lt(0x1p-6), tiny, rounded);
  return code.masked_fill(x.ge(256), kUe4m3Top).to(at::kByte);
}

#ifdef KVSWEEP_CUDA
std::vector<at::Tensor> encode_with_kernel(GgmlType type, const at::Tensor& x) {
  const int64_t heads = x.size(0), tokens = x.size(1), blocks = x.size(2) / ggml_block_values(type);
  const auto bytes = x.options().dtype(at::kByte), halves = x.options().dtype(at::kHalf);
  std::vector<at::Tensor> parts = {type == GgmlType::kNvfp4 ? at::empty({heads, tokens, blocks, 4}, bytes)
                                                            : at::empty({heads, tokens, blocks}, halves)};
  if (has_min(type)) parts.push_back(at::empty({heads, tokens, blocks}, halves));
  if (has_high(type)) parts.push_back(at::empty({heads, tokens, blocks, 4}, bytes));
  parts.push_back(at::empty({heads, tokens, blocks, code_bytes(type)}, bytes));
  if (x.numel() == 0) return parts;
  at::Tensor held;
  GgmlEncode job;
  job.type = type;
  job.x = rows_of(x, held);
  job.scale = parts[0].mutable_data_ptr();
  if (has_min(type)) job.min = parts[1].mutable_data_ptr();
  if (has_high(type)) job.high = parts[parts.size() - 2].mutable_data_ptr<uint8_t>();
  job.codes = parts.back().mutable_data_ptr<uint8_t>();
  launch_on(x, [&job](void* stream) { ggml_encode_cuda(job, stream); });
  return parts;
}

at::Tensor decode_with_kernel(GgmlType type, const std::vector<at::Tensor>& parts, int64_t head_dim) {
  const at::Tensor out =
      at::empty({parts[0].size(0), parts[0].size(1), head_dim}, parts[0].options().dtype(at::kFloat));
  if (out.numel() == 0) return out;
  std::array<at::Tensor, 4> held;
  GgmlDecode job;
  job.type = type;
  job.heads = out.size(0);
  job.tokens = out.size(1);
  job.dim = head_dim;
  job.scale = part_of(parts[0], held[0]);
  if (has_min(type)) job.min = part_of(parts[1], held[1]);
  if (has_high(type)) job.high = part_of(parts[parts.size() - 2], held[2]);
  job.codes = part_of(parts.back(), held[3]);
  job.out = out.mutable_data_ptr<float>();
  launch_on(out, [&job](void* stream) { ggml_decode_cuda(job, stream); });
  return out;
}
#endif

class GgmlReader final : public RowReader {
 public:
  GgmlReader(GgmlType type, const std::vector<at::Tensor>& parts, int64_t head_dim)
      : type_(type), head_dim_(head_dim), parts_(parts.begin(), parts.end()) {}

  int64_t heads() const override { return parts_[0].heads(); }
  void read(int64_t head, int64_t first, int64_t count, float* out) const override {
    GgmlRows<const uint16_t, const uint8_t> from;
    if (type_ == GgmlType::kNvfp4)
      from.scale_bytes = parts_[0].at<uint8_t>(head, first);
    else
      from.scale = parts_[0].at<uint16_t>(head, first);
    if (has_min(type_)) from.min = parts_[1].at<uint16_t>(head, first);
    if (has_high(type_)) from.high = parts_[parts_.size() - 2].at<uint8_t>(head, first);
    from.codes = parts_.back().at<uint8_t>(head, first);
    ggml_decode_rows(type_, from, count, head_dim_, out);
  }

 private:
  GgmlType type_;
  int64_t head_dim_;
  std::vector<PartRows> parts_;
};

}  // namespace

GgmlType ggml_type(std::string_view name) {
  const auto at = std::find(kGgmlTypeNames.begin(), kGgmlTypeNames.end(), name);
  TORCH_CHECK(at != kGgmlTypeNames.end(), "ggml: no cache type ", name);
  return static_cast<GgmlType>(at - kGgmlTypeNames.begin());
}

int64_t ggml_payload_bits(GgmlType type) {
  if (!ggml_quantized(type)) return 16;
  return type == GgmlType::kQ8_0 ? 8 : has_high(type) ? 5 : 4;
}

GgmlCodec::GgmlCodec(GgmlType type, int64_t head_dim) : type_(type), head_dim_(head_dim) {
  TORCH_CHECK(head_dim >= 1 && head_dim % ggml_block_values(type) == 0, "ggml: head dim ", head_dim,
              " is no multiple of ", ggml_block_values(type));
}

std::vector<PartSpec> GgmlCodec::parts() const {
  if (!ggml_quantized(type_)) return {{"codes", ByteRole::kCodes}};
  std::vector<PartSpec> parts = {{"scale", ByteRole::kScales}};
  if (has_min(type_)) parts.push_back({"min", ByteRole::kZeros});
  if (has_high(type_)) parts.push_back({"high", ByteRole::kCodes});
  parts.push_back({"codes", ByteRole::kCodes});
  return parts;
}

void GgmlCodec::check_input(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == head_dim_, "ggml: needs [H, T, ", head_dim_, "], got ", x.sizes());
}

std::vector<at::Tensor> GgmlCodec::encode(const at::Tensor& x) const {
  check_input(x);
#ifdef KVSWEEP_CUDA
  if (x.is_cuda() && ggml_quantized(type_)) return encode_with_kernel(type_, x);
#endif
  if (!x.is_cpu() || !ggml_quantized(type_)) return encode_with_ops(x);
  at::Tensor values = x.to(at::kFloat);
  if (values.stride(2) != 1) values = values.contiguous();
  const int64_t heads = x.size(0), tokens = x.size(1), blocks = head_dim_ / ggml_block_values(type_);
  const auto floats = x.options().dtype(at::kFloat), bytes = x.options().dtype(at::kByte);
  const bool byte_scales = type_ == GgmlType::kNvfp4;
  at::Tensor scale = byte_scales ? at::empty({heads, tokens, blocks, 4}, bytes)  //
                                 : at::empty({heads, tokens, blocks}, floats);
  at::Tensor codes = at::empty({heads, tokens, blocks, code_bytes(type_)}, bytes), min, high;
  if (has_min(type_)) min = at::empty({heads, tokens, blocks}, floats);
  if (has_high(type_)) high = at::empty({heads, tokens, blocks, 4}, bytes);
  const auto* in = values.const_data_ptr<float>();
  std::atomic<bool> ok = true;
  at::parallel_for(0, heads * tokens, kParallelValues / head_dim_ + 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t head = begin / tokens, token = begin % tokens, rows = std::min(end - begin, tokens - token);
      GgmlRows<float, uint8_t> to;
      to.codes = codes.mutable_data_ptr<uint8_t>() + begin * blocks * code_bytes(type_);
      if (byte_scales) to.scale_bytes = scale.mutable_data_ptr<uint8_t>() + begin * blocks * 4;
      if (!byte_scales) to.scale = scale.mutable_data_ptr<float>() + begin * blocks;
      if (min.defined()) to.min = min.mutable_data_ptr<float>() + begin * blocks;
      if (high.defined()) to.high = high.mutable_data_ptr<uint8_t>() + begin * blocks * 4;
      if (!ggml_encode_rows(type_, in + head * values.stride(0) + token * values.stride(1), values.stride(1), rows,
                            head_dim_, to))
        ok = false;
      begin += rows;
    }
  });
  if (!ok) refuse(x);
  std::vector<at::Tensor> parts = {byte_scales ? scale : scale.to(at::kHalf)};
  if (min.defined()) parts.push_back(min.to(at::kHalf));
  if (high.defined()) parts.push_back(high);
  parts.push_back(codes);
  return parts;
}

at::Tensor GgmlCodec::decode(const std::vector<at::Tensor>& parts) const {
  TORCH_CHECK(parts.size() == this->parts().size(), "ggml: ", parts.size(), " parts, not ", this->parts().size());
#ifdef KVSWEEP_CUDA
  if (parts[0].is_cuda() && ggml_quantized(type_)) return decode_with_kernel(type_, parts, head_dim_);
#endif
  if (!parts[0].is_cpu() || !ggml_quantized(type_)) return decode_with_ops(parts);
  return decode_all(*reader(parts), parts[0].size(1), head_dim_);
}

std::unique_ptr<const RowReader> GgmlCodec::reader(const std::vector<at::Tensor>& parts) const {
  return ggml_quantized(type_) ? std::make_unique<GgmlReader>(type_, parts, head_dim_) : nullptr;
}

std::vector<at::Tensor> GgmlCodec::encode_with_ops(const at::Tensor& input) const {
  check_input(input);
  const at::Tensor x = input.to(at::kFloat);
  if (!ggml_quantized(type_)) {
    if (!x.isfinite().all().item<bool>()) refuse(x);
    return {narrowed(x, stored_type(type_))};
  }
  const int64_t heads = x.size(0), tokens = x.size(1);
  const bool nvfp4 = type_ == GgmlType::kNvfp4;
  const int64_t width = nvfp4 ? 16 : 32;
  const at::Tensor blocks = x.reshape({heads, tokens, head_dim_ / width, width});
  const at::Tensor low = blocks.amin(-1), high = blocks.amax(-1);
  if (!high.sub(low).le(std::numeric_limits<float>::max() / 2).all().item<bool>()) refuse(x);
  if (nvfp4) {
    const at::Tensor small = blocks.view({heads, tokens, head_dim_ / 64, 4, 16}), magnitudes = small.abs();
    const at::Tensor scale = to_ue4m3(magnitudes.amax(-1) / constant(6, x));
    const at::Tensor d = looked_up(table_of(kUe4m3Halves, x), scale).unsqueeze(-1);
    at::Tensor q = at::zeros_like(small), nearest = magnitudes;
    for (size_t k = 1; k < 8; ++k) {
      const at::Tensor error = d.mul(kNvfp4Levels[k]).sub(magnitudes).abs(), nearer = error.lt(nearest);
      q = q.masked_fill(nearer, static_cast<double>(k));
      nearest = at::where(nearer, error, nearest);
    }
    q = q.add(small.lt(0).logical_and(q.ne(0)).to(at::kFloat), 8).to(at::kByte);
    return {scale, nibbles(q).reshape({heads, tokens, head_dim_ / 64, 32})};
  }
  std::vector<at::Tensor> parts(1);
  at::Tensor q, d;
  if (type_ == GgmlType::kQ8_0) {
    d = blocks.abs().amax(-1, true) / constant(127, x);
    const at::Tensor y = blocks * reciprocal_or_zero(d), whole = y.trunc(), rest = y - whole;
    q = (whole + rest.ge(0.5).to(at::kFloat) - rest.le(-0.5).to(at::kFloat)).to(at::kChar).view(at::kByte);
  } else if (type_ == GgmlType::kIq4Nl) {
    const at::Tensor first = peak_of(blocks) / constant(kIq4NlLevels[0], x);
    const at::Tensor empty = blocks.abs().amax(-1, true).lt(kIq4NlEmpty);
    const at::Tensor doubled = (blocks * (constant(1, x) / first).masked_fill(empty, 0)).mul(2);
    q = at::zeros_like(blocks);
    for (size_t k = 1; k < 16; ++k) q.add_(doubled.ge(kIq4NlLevels[k - 1] + kIq4NlLevels[k]).to(at::kFloat));
    const at::Tensor level = looked_up(table_of(kIq4NlLevels, x), q);
    const at::Tensor weighted = blocks * blocks * level, top_of = weighted * blocks, bottom_of = weighted * level;
    at::Tensor top = at::zeros_like(first), bottom = at::zeros_like(first);
    for (int64_t j = 0; j < 32; ++j) {  // in order: a sum's bits depend on it
      top = top + top_of.narrow(-1, j, 1);
      bottom = bottom + bottom_of.narrow(-1, j, 1);
    }
    d = top / bottom;
    d = at::where(d.isfinite(), d, first).masked_fill(empty, 0);
    q = q.to(at::kByte);
  } else {
    const double codes = has_high(type_) ? 32 : 16;
    const at::Tensor m = blocks.amin(-1, true);
    d = has_min(type_) ? (blocks.amax(-1, true) - m) / constant(codes - 1, x)
                       : peak_of(blocks) / constant(-codes / 2, x);
    const at::Tensor y = (has_min(type_) ? blocks - m : blocks) * reciprocal_or_zero(d);
    q = y.add(has_min(type_) ? 0.5 : codes / 2 + 0.5).trunc().clamp_max(codes - 1).to(at::kByte);
    if (has_min(type_)) parts.push_back(narrowed(m, at::kHalf).squeeze(-1));
  }
  parts[0] = narrowed(d, at::kHalf).squeeze(-1);
  if (has_high(type_)) parts.push_back(pack_bits(q.bitwise_right_shift(4), 1));
  parts.push_back(type_ == GgmlType::kQ8_0 ? q : nibbles(q));
  return parts;
}

at::Tensor GgmlCodec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  if (!ggml_quantized(type_)) return parts.at(0).to(at::kFloat);
  const at::Tensor& codes = parts.back();
  const std::vector<int64_t> sizes = {codes.size(0), codes.size(1), head_dim_};
  if (type_ == GgmlType::kNvfp4) {
    const at::Tensor d = looked_up(table_of(kUe4m3Halves, codes), parts.at(0)).unsqueeze(-1);
    const at::Tensor q = from_nibbles(codes.reshape({sizes[0], sizes[1], head_dim_ / 64, 4, 8}));
    return (looked_up(table_of(kNvfp4Levels, codes), q) * d).reshape(sizes);
  }
  const at::Tensor d = parts.at(0).to(at::kFloat).unsqueeze(-1);
  if (type_ == GgmlType::kQ8_0) return (codes.contiguous().view(at::kChar).to(at::kFloat) * d).reshape(sizes);
  const at::Tensor low = from_nibbles(codes);
  if (type_ == GgmlType::kIq4Nl) return (looked_up(table_of(kIq4NlLevels, codes), low) * d).reshape(sizes);
  at::Tensor q = low.to(at::kFloat);
  if (has_high(type_)) q = q.add(unpack_bits(parts[parts.size() - 2], 1, 32).to(at::kFloat), 16);
  if (has_min(type_)) return (q * d + parts.at(1).to(at::kFloat).unsqueeze(-1)).reshape(sizes);
  return (q.sub(has_high(type_) ? 16 : 8) * d).reshape(sizes);
}

}  // namespace kvsweep
