#include "schemes/codec/float8.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "schemes/codec/cuda_launch.h"
#include "schemes/codec/float8_cpu.h"
#include "schemes/codec/row_reader.h"
#include "schemes/kernels/float8.h"

namespace kvsweep {
namespace {

constexpr int64_t kGrain = 16384;  // values that are worth a thread

at::ScalarType type_of(Float8Format format) {
  return format == Float8Format::kE4M3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2;
}

// A tensor, so that every device divides: by a host number, CUDA multiplies with its reciprocal.
at::Tensor constant(double value, const at::Tensor& like) {
  return at::full({1}, value, like.options().dtype(at::kFloat));
}

class Float8Reader final : public RowReader {
 public:
  // scale: [1 or H, 1, 1], or [H, T, 1]
  Float8Reader(bool e5m2, const at::Tensor& codes, const at::Tensor& scale)
      : e5m2_(e5m2), codes_(codes), scale_(scale.expand({codes.size(0), -1, -1})), one_scale_(scale.size(1) == 1) {}

  int64_t heads() const override { return codes_.heads(); }
  void read(int64_t head, int64_t first, int64_t count, float* out) const override {
    const int64_t dim = codes_.row_bytes();
    if (one_scale_)
      return float8_decode(codes_.at<uint8_t>(head, first), count * dim, e5m2_, *scale_.at<float>(head, 0), out);
    for (int64_t t = 0; t < count; ++t)
      float8_decode(codes_.at<uint8_t>(head, first + t), dim, e5m2_, *scale_.at<float>(head, first + t), out + t * dim);
  }

 private:
  bool e5m2_;
  PartRows codes_, scale_;
  bool one_scale_;
};

#ifdef KVSWEEP_CUDA
Float8Scales scales_for_kernel(Float8Format format, const at::Tensor& scale) {
  Float8Scales scales;
  scales.e5m2 = format == Float8Format::kE5M2;
  scales.top = static_cast<float>(float8_top(format));
  if (!scale.defined()) return scales;
  scales.fixed = scale.const_data_ptr<float>();
  scales.fixed_stride = scale.size(0) == 1 ? 0 : scale.stride(0);
  return scales;
}
#endif

[[noreturn]] void refuse(const at::Tensor& x) {
  TORCH_CHECK(false, "float8: NaN or infinity in an input of sizes ", x.sizes());
}

}  // namespace

double float8_top(Float8Format format) {
  return format == Float8Format::kE4M3 ? 448 : 57344;
}

at::Tensor to_float8(const at::Tensor& x, Float8Format format) {
  const double top = float8_top(format);
  return x.clamp(-top, top).to(type_of(format)).view(at::kByte);
}

at::Tensor from_float8(const at::Tensor& bytes, Float8Format format) {
  if (!bytes.is_cpu()) return bytes.view(type_of(format)).to(at::kFloat);
  // All 256 values, converted once: one at a time the conversion costs ten times a look into a table.
  static const auto tables = [] {
    std::array<std::array<float, 256>, 2> all{};
    for (const Float8Format one : {Float8Format::kE4M3, Float8Format::kE5M2}) {
      const at::Tensor values = at::arange(256, at::kByte).view(type_of(one)).to(at::kFloat);
      std::copy_n(values.const_data_ptr<float>(), 256, all[one == Float8Format::kE4M3 ? 0 : 1].data());
    }
    return all;
  }();
  const std::array<float, 256>& table = tables[format == Float8Format::kE4M3 ? 0 : 1];
  const at::Tensor from = bytes.contiguous();
  const at::Tensor out = at::empty(bytes.sizes(), bytes.options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
  const auto* in = from.const_data_ptr<uint8_t>();
  auto* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, from.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = table[in[i]];
  });
  return out;
}

Float8Codec::Float8Codec(Float8Format format, at::Tensor scale) : format_(format), scale_(std::move(scale)) {
  if (!scale_.defined()) return;
  TORCH_CHECK(scale_.dim() == 1 && scale_.scalar_type() == at::kFloat, "float8: scales of sizes ", scale_.sizes(),
              " and type ", scale_.scalar_type(), "; needs [1] or [H] Float");
  TORCH_CHECK(scale_.gt(0).logical_and(scale_.isfinite()).all().item<bool>(),
              "float8: a scale is not above zero or not finite");
  scale_ = scale_.view({-1, 1, 1});
}

std::vector<PartSpec> Float8Codec::parts() const {
  std::vector<PartSpec> parts = {{"codes", ByteRole::kCodes}};
  if (!scale_.defined()) parts.push_back({"scale", ByteRole::kScales});
  return parts;
}

void Float8Codec::check_input(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 3 && (!scale_.defined() || scale_.size(0) == 1 || scale_.size(0) == x.size(0)),
              "float8: needs [H, T, D]", scale_.defined() ? " of as many heads as scales" : "", ", got ", x.sizes());
}

std::vector<at::Tensor> Float8Codec::encode(const at::Tensor& x) const {
#ifdef KVSWEEP_CUDA
  if (x.is_cuda()) {
    check_input(x);
    std::vector<at::Tensor> parts = {at::empty(x.sizes(), x.options().dtype(at::kByte), at::MemoryFormat::Contiguous)};
    if (!scale_.defined()) parts.push_back(at::empty({x.size(0), x.size(1), 1}, x.options().dtype(at::kFloat)));
    if (x.numel() == 0) return parts;
    at::Tensor held;
    Float8Encode job;
    job.scales = scales_for_kernel(format_, scale_);
    job.x = rows_of(x, held);
    job.codes = parts[0].mutable_data_ptr<uint8_t>();
    if (!scale_.defined()) job.scale = parts[1].mutable_data_ptr<float>();
    launch_on(x, [&job](void* stream) { float8_encode_cuda(job, stream); });
    return parts;
  }
#endif
  if (!x.is_cpu()) return encode_with_ops(x);
  check_input(x);
  at::Tensor values = x.to(at::kFloat);
  if (values.stride(2) != 1) values = values.contiguous();
  const int64_t heads = x.size(0), tokens = x.size(1), dim = x.size(2);
  const bool scaled = !scale_.defined();
  const at::Tensor codes = at::empty(x.sizes(), x.options().dtype(at::kByte), at::MemoryFormat::Contiguous);
  const at::Tensor scale = scaled ? at::empty({heads, tokens, 1}, at::kFloat) : scale_.expand({heads, 1, 1}).clone();
  const auto* in = values.const_data_ptr<float>();
  auto* to = codes.mutable_data_ptr<uint8_t>();
  auto* scales = scale.mutable_data_ptr<float>();
  std::atomic<bool> finite = true;
  at::parallel_for(0, heads * tokens, kGrain / dim + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t head = row / tokens, token = row % tokens;
      if (!float8_encode(in + head * values.stride(0) + token * values.stride(1), dim, format_ == Float8Format::kE5M2,
                         scaled, scales + (scaled ? row : head), to + row * dim))
        finite = false;
    }
  });
  if (!finite) refuse(x);
  return scaled ? std::vector<at::Tensor>{codes, scale} : std::vector<at::Tensor>{codes};
}

std::vector<at::Tensor> Float8Codec::encode_with_ops(const at::Tensor& x) const {
  check_input(x);
  const at::Tensor values = x.to(at::kFloat);
  if (!values.isfinite().all().item<bool>()) refuse(x);
  if (scale_.defined()) return {to_float8(values / scale_, format_)};
  const at::Tensor largest = values.abs().amax(-1, true);
  const at::Tensor scale = (largest / constant(float8_top(format_), x)).clamp_min(kSmallestFloat8Scale);
  return {to_float8(values * (constant(1, x) / scale), format_), scale};
}

at::Tensor Float8Codec::decode(const std::vector<at::Tensor>& parts) const {
  TORCH_CHECK(parts.size() == this->parts().size(), "float8: ", parts.size(), " parts, not ", this->parts().size());
#ifdef KVSWEEP_CUDA
  if (parts[0].is_cuda()) {
    const at::Tensor out =
        at::empty(parts[0].sizes(), parts[0].options().dtype(at::kFloat), at::MemoryFormat::Contiguous);
    if (out.numel() == 0) return out;
    std::array<at::Tensor, 2> held;
    Float8Decode job;
    job.scales = scales_for_kernel(format_, scale_);
    job.heads = out.size(0);
    job.tokens = out.size(1);
    job.dim = out.size(2);
    job.codes = part_of(parts[0], held[0]);
    if (!scale_.defined()) job.scale = part_of(parts[1], held[1]);
    job.out = out.mutable_data_ptr<float>();
    launch_on(out, [&job](void* stream) { float8_decode_cuda(job, stream); });
    return out;
  }
#endif
  if (!parts[0].is_cpu()) return decode_with_ops(parts);
  return decode_all(*reader(parts), parts[0].size(1), parts[0].size(2));
}

std::unique_ptr<const RowReader> Float8Codec::reader(const std::vector<at::Tensor>& parts) const {
  return std::make_unique<Float8Reader>(format_ == Float8Format::kE5M2, parts.at(0),
                                        scale_.defined() ? scale_ : parts.at(1));
}

at::Tensor Float8Codec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  return from_float8(parts[0], format_).mul_(scale_.defined() ? scale_ : parts[1]);
}

}  // namespace kvsweep
