#include "schemes/codec/float8.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>

#include "schemes/codec/cuda_launch.h"
#include "schemes/kernels/float8.h"

namespace kvsweep {
namespace {

constexpr double kSmallestScale = 1e-6;
constexpr int64_t kGrain = 16384;  // values that are worth a thread

at::ScalarType type_of(Float8Format format) {
  return format == Float8Format::kE4M3 ? at::kFloat8_e4m3fn : at::kFloat8_e5m2;
}

// A tensor, so that every device divides: by a host number, CUDA multiplies with its reciprocal.
at::Tensor constant(double value, const at::Tensor& like) {
  return at::full({1}, value, like.options().dtype(at::kFloat));
}

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
  return encode_with_ops(x);
}

std::vector<at::Tensor> Float8Codec::encode_with_ops(const at::Tensor& x) const {
  check_input(x);
  const at::Tensor values = x.to(at::kFloat);
  TORCH_CHECK(values.isfinite().all().item<bool>(), "float8: NaN or infinity in an input of sizes ", x.sizes());
  if (scale_.defined()) return {to_float8(values / scale_, format_)};
  const at::Tensor largest = values.abs().amax(-1, true);
  const at::Tensor scale = (largest / constant(float8_top(format_), x)).clamp_min(kSmallestScale);
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
  return decode_with_ops(parts);
}

at::Tensor Float8Codec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  return from_float8(parts[0], format_).mul_(scale_.defined() ? scale_ : parts[1]);
}

}  // namespace kvsweep
