#include "schemes/codec/nvfp4.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <atomic>
#include <cmath>

#include "schemes/codec/cuda_launch.h"
#include "schemes/codec/float8.h"
#include "schemes/codec/float8_cpu.h"
#include "schemes/codec/row_reader.h"
#include "schemes/kernels/nvfp4.h"

namespace kvsweep {
namespace {

constexpr int64_t kBlock = 16;
constexpr int64_t kGrainBlocks = 1024;  // that are worth a thread
constexpr std::array<float, 16> kLevels = {0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6};

// A tensor, so that every device divides: by a host number, CUDA multiplies with its reciprocal.
at::Tensor constant(double value, const at::Tensor& like) {
  return at::full({1}, value, like.options().dtype(at::kFloat));
}

[[noreturn]] void refuse(const at::Tensor& x) {
  TORCH_CHECK(false, "nvfp4: NaN or infinity in an input of sizes ", x.sizes());
}

class NvFp4Reader final : public RowReader {
 public:
  NvFp4Reader(const at::Tensor& codes, const at::Tensor& scale, float tensor_scale)
      : codes_(codes), scale_(scale), tensor_scale_(tensor_scale) {}

  int64_t heads() const override { return codes_.heads(); }
  void read(int64_t head, int64_t first, int64_t count, float* out) const override {
    nvfp4_decode(codes_.at<uint8_t>(head, first), scale_.at<uint8_t>(head, first), count * scale_.row_bytes(),
                 tensor_scale_, out);
  }

 private:
  PartRows codes_, scale_;
  float tensor_scale_;
};

}  // namespace

// Between two levels the one with the even code takes the tie.
at::Tensor to_e2m1(const at::Tensor& x) {
  const at::Tensor magnitude = x.abs();
  at::Tensor codes = magnitude.gt(0.25).to(at::kByte);
  for (const double edge : {0.75, 1.75, 3.5}) codes.add_(magnitude.ge(edge));
  for (const double edge : {1.25, 2.5, 5.0}) codes.add_(magnitude.gt(edge));
  return codes.add_(x.lt(0), 8);
}

at::Tensor from_e2m1(const at::Tensor& codes) {
  const at::Tensor levels = at::tensor(at::ArrayRef<float>(kLevels.data(), kLevels.size()), at::kFloat);
  return levels.to(codes.device()).index_select(0, codes.to(at::kInt).flatten()).view(codes.sizes());
}

NvFp4Codec::NvFp4Codec(int64_t head_dim, float tensor_scale, NvFp4Scales scales)
    : head_dim_(head_dim), tensor_scale_(tensor_scale), scales_(scales) {
  TORCH_CHECK(head_dim >= 1 && head_dim % kBlock == 0, "nvfp4: head dim ", head_dim, " is no multiple of ", kBlock);
  TORCH_CHECK(std::isfinite(tensor_scale) && tensor_scale > 0, "nvfp4: tensor scale ", tensor_scale,
              " is not above zero");
}

void NvFp4Codec::check_input(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == head_dim_, "nvfp4: needs [H, T, ", head_dim_, "], got ", x.sizes());
}

std::vector<at::Tensor> NvFp4Codec::encode(const at::Tensor& x) const {
#ifdef KVSWEEP_CUDA
  if (x.is_cuda()) {
    check_input(x);
    const auto bytes = x.options().dtype(at::kByte);
    const std::vector<at::Tensor> parts = {at::empty({x.size(0), x.size(1), head_dim_ / 2}, bytes),
                                           at::empty({x.size(0), x.size(1), head_dim_ / kBlock}, bytes)};
    if (x.numel() == 0) return parts;
    at::Tensor held;
    NvFp4Encode job;
    job.x = rows_of(x, held);
    job.tensor_scale = tensor_scale_;
    job.smallest = smallest_scale();
    job.ones_for_zeros = scales_ == NvFp4Scales::kModelOpt;
    job.codes = parts[0].mutable_data_ptr<uint8_t>();
    job.scale = parts[1].mutable_data_ptr<uint8_t>();
    launch_on(x, [&job](void* stream) { nvfp4_encode_cuda(job, stream); });
    return parts;
  }
#endif
  return x.is_cpu() ? encode_on_cpu(x) : encode_with_ops(x);
}

std::vector<at::Tensor> NvFp4Codec::encode_on_cpu(const at::Tensor& x) const {
  check_input(x);
  at::Tensor values = x.to(at::kFloat);
  if (values.stride(2) != 1) values = values.contiguous();
  const int64_t heads = x.size(0), tokens = x.size(1), blocks = head_dim_ / kBlock;
  const at::Tensor codes = at::empty({heads, tokens, head_dim_ / 2}, at::kByte);
  const at::Tensor scale = at::empty({heads, tokens, blocks}, at::kByte);
  const auto* in = values.const_data_ptr<float>();
  auto *to = codes.mutable_data_ptr<uint8_t>(), *to_scale = scale.mutable_data_ptr<uint8_t>();
  std::atomic<bool> finite = true;
  at::parallel_for(0, heads * tokens, kGrainBlocks / blocks + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      if (!nvfp4_encode(in + row / tokens * values.stride(0) + row % tokens * values.stride(1), blocks, tensor_scale_,
                        smallest_scale(), scales_ == NvFp4Scales::kModelOpt, to + row * head_dim_ / 2,
                        to_scale + row * blocks))
        finite = false;
  });
  if (!finite) refuse(x);
  return {codes, scale};
}

std::vector<at::Tensor> NvFp4Codec::encode_with_ops(const at::Tensor& x) const {
  check_input(x);
  const int64_t heads = x.size(0), tokens = x.size(1);
  const at::Tensor blocks = x.to(at::kFloat).reshape({heads, tokens, head_dim_ / kBlock, kBlock});
  const at::Tensor largest = blocks.abs().amax(-1);
  if (!largest.isfinite().all().item<bool>()) refuse(x);
  const at::Tensor tensor_scale = constant(tensor_scale_, x);
  at::Tensor wanted = (largest / constant(6, x) / tensor_scale).clamp_min(smallest_scale());
  if (scales_ == NvFp4Scales::kModelOpt) wanted = wanted.masked_fill(largest.eq(0), 1);
  const at::Tensor scale = to_float8(wanted, Float8Format::kE4M3);
  const at::Tensor step = from_float8(scale, Float8Format::kE4M3) * tensor_scale;
  const at::Tensor pairs = to_e2m1(blocks / step.unsqueeze(-1)).view({heads, tokens, head_dim_ / 2, 2});
  return {pairs.select(-1, 0).bitwise_or(pairs.select(-1, 1).bitwise_left_shift(4)), scale};
}

at::Tensor NvFp4Codec::decode(const std::vector<at::Tensor>& parts) const {
  TORCH_CHECK(parts.size() == 2, "nvfp4: ", parts.size(), " parts, not 2");
#ifdef KVSWEEP_CUDA
  if (parts[0].is_cuda()) {
    const at::Tensor out =
        at::empty({parts[0].size(0), parts[0].size(1), head_dim_}, parts[0].options().dtype(at::kFloat));
    if (out.numel() == 0) return out;
    std::array<at::Tensor, 2> held;
    NvFp4Decode job;
    job.heads = out.size(0);
    job.tokens = out.size(1);
    job.dim = head_dim_;
    job.tensor_scale = tensor_scale_;
    job.codes = part_of(parts[0], held[0]);
    job.scale = part_of(parts[1], held[1]);
    job.out = out.mutable_data_ptr<float>();
    launch_on(out, [&job](void* stream) { nvfp4_decode_cuda(job, stream); });
    return out;
  }
#endif
  if (!parts[0].is_cpu()) return decode_with_ops(parts);
  return decode_all(*reader(parts), parts[0].size(1), head_dim_);
}

std::unique_ptr<const RowReader> NvFp4Codec::reader(const std::vector<at::Tensor>& parts) const {
  return std::make_unique<NvFp4Reader>(parts.at(0), parts.at(1), tensor_scale_);
}

at::Tensor NvFp4Codec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  const int64_t heads = parts[0].size(0), tokens = parts[0].size(1);
  const at::Tensor codes = at::stack({parts[0].bitwise_and(15), parts[0].bitwise_right_shift(4)}, -1)
                               .view({heads, tokens, head_dim_ / kBlock, kBlock});
  const at::Tensor step = from_float8(parts[1], Float8Format::kE4M3) * constant(tensor_scale_, parts[1]);
  return (from_e2m1(codes) * step.unsqueeze(-1)).view({heads, tokens, head_dim_});
}

}  // namespace kvsweep
