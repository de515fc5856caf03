#include "schemes/codec/nvfp4.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <cmath>

#include "schemes/codec/cuda_launch.h"
#include "schemes/codec/float8.h"
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
  return encode_with_ops(x);
}

std::vector<at::Tensor> NvFp4Codec::encode_with_ops(const at::Tensor& x) const {
  check_input(x);
  const int64_t heads = x.size(0), tokens = x.size(1);
  const at::Tensor blocks = x.to(at::kFloat).reshape({heads, tokens, head_dim_ / kBlock, kBlock});
  const at::Tensor largest = blocks.abs().amax(-1);
  TORCH_CHECK(largest.isfinite().all().item<bool>(), "nvfp4: NaN or infinity in an input of sizes ", x.sizes());
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
  return parts[0].is_cpu() ? decode_on_cpu(parts) : decode_with_ops(parts);
}

at::Tensor NvFp4Codec::decode_on_cpu(const std::vector<at::Tensor>& parts) const {
  const at::Tensor codes = parts[0].contiguous();
  const at::Tensor step = (from_float8(parts[1], Float8Format::kE4M3) * constant(tensor_scale_, parts[1])).contiguous();
  const at::Tensor out = at::empty({codes.size(0), codes.size(1), head_dim_}, codes.options().dtype(at::kFloat));
  const auto* in = codes.const_data_ptr<uint8_t>();
  const auto* steps = step.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, step.numel(), kGrainBlocks, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      for (int64_t i = 0; i < kBlock / 2; ++i) {
        const uint8_t pair = in[block * kBlock / 2 + i];
        to[block * kBlock + 2 * i] = kLevels[pair & 15] * steps[block];
        to[block * kBlock + 2 * i + 1] = kLevels[pair >> 4] * steps[block];
      }
  });
  return out;
}

at::Tensor NvFp4Codec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  const int64_t heads = parts[0].size(0), tokens = parts[0].size(1);
  const at::Tensor codes = at::stack({parts[0].bitwise_and(15), parts[0].bitwise_right_shift(4)}, -1)
                               .view({heads, tokens, head_dim_ / kBlock, kBlock});
  const at::Tensor step = from_float8(parts[1], Float8Format::kE4M3) * constant(tensor_scale_, parts[1]);
  return (from_e2m1(codes) * step.unsqueeze(-1)).view({heads, tokens, head_dim_});
}

}  // namespace kvsweep
