#include "schemes/codec/affine.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <atomic>
#include <limits>

#include "schemes/codec/affine_cpu.h"
#include "schemes/codec/bitpack.h"
#include "schemes/codec/cuda_launch.h"
#include "schemes/kernels/affine.h"

namespace kvsweep {
namespace {

constexpr int64_t kBlockValues = 4096;        // codes unpacked at a time: they stay in the first-level cache
constexpr int64_t kParallelValues = 1 << 15;  // values below which a second thread costs more than it saves

AffineShape shape_of(const AffineCodec& codec) {
  const AffineOptions& o = codec.options();
  AffineShape shape;
  shape.bits = o.bits;
  shape.group = o.group;
  shape.dim = codec.head_dim();
  shape.axis = o.axis;
  shape.form = o.form;
  shape.symmetric = o.symmetric;
  shape.half_arithmetic = o.arithmetic == at::kHalf;
  shape.metadata = float_type(o.metadata);
  shape.offset = static_cast<float>(codec.offset());
  shape.top = static_cast<float>(codec.top());
  shape.empty_scale = codec.empty_scale();
  return shape;
}

AffineBlock block_of(const AffineCodec& codec) {
  const bool channel = codec.options().axis == GroupAxis::kChannel;
  return {shape_of(codec), channel ? codec.options().group : std::max<int64_t>(1, kBlockValues / codec.head_dim())};
}

// Calls work(head, first token, block) for blocks that cover [heads, tokens].
template <class Work>
void for_each_block(const AffineBlock& whole, int64_t heads, int64_t tokens, const Work& work) {
  const int64_t a_head = (tokens + whole.tokens - 1) / whole.tokens;
  const int64_t dim = whole.shape.dim, grain = kParallelValues / (whole.tokens * dim) + 1;
  at::parallel_for(0, heads * a_head, grain, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> codes(static_cast<size_t>(whole.tokens * dim));
    std::vector<float> scratch(static_cast<size_t>(5 * dim));
    for (int64_t i = begin; i < end; ++i) {
      AffineBlock block = whole;
      const int64_t first = i % a_head * whole.tokens;
      block.tokens = std::min(whole.tokens, tokens - first);
      work(i / a_head, first, block, codes.data(), scratch.data());
    }
  });
}

std::vector<int64_t> code_sizes(const AffineCodec& codec, int64_t heads, int64_t tokens) {
  const int64_t bytes = packed_bytes(codec.head_dim(), codec.options().bits), group = codec.group_tokens();
  if (codec.options().axis == GroupAxis::kChannel) return {heads, tokens / group, group, bytes};
  return {heads, tokens, bytes};
}

std::vector<int64_t> metadata_sizes(const AffineCodec& codec, int64_t heads, int64_t tokens) {
  const int64_t dim = codec.head_dim(), group = codec.options().group;
  if (codec.options().axis == GroupAxis::kChannel) return {heads, tokens / group, dim};
  return {heads, tokens, dim / group};
}

[[noreturn]] void refuse(const at::Tensor& x) {
  const at::Tensor bad = at::isfinite(x).logical_not().nonzero();
  TORCH_CHECK(bad.size(0) == 0, "affine: NaN or infinity at head ", bad[0][0].item<int64_t>(), ", token ",
              bad[0][1].item<int64_t>(), ", channel ", bad[0][2].item<int64_t>(), " of an input of sizes ", x.sizes());
  TORCH_CHECK(false, "affine: a group's values span more than half of float32's range");
}

// A tensor, so that every device divides: by a host number, CUDA multiplies with its reciprocal.
at::Tensor constant(double value, const at::Tensor& like) {
  return at::full({1}, value, like.options().dtype(at::kFloat));
}

// Rounded to the metadata's type, within its range.
at::Tensor stored(const at::Tensor& x, at::ScalarType type) {
  const double limit = type == at::kHalf       ? 65504
                       : type == at::kBFloat16 ? 0x1.FEp127
                                               : std::numeric_limits<float>::max();
  return x.clamp(-limit, limit).to(type);
}

// A result of the codec's arithmetic, as nearest_half_unbounded: where fp16 overflows, a power of two is taken out.
at::Tensor rounded(const at::Tensor& x, at::ScalarType arithmetic) {
  if (arithmetic != at::kHalf) return x;
  const at::Tensor half = x.to(at::kHalf).to(at::kFloat);
  return at::where(half.isfinite(), half, x.mul(0x1p-16).to(at::kHalf).to(at::kFloat).mul(0x1p16));
}

// A value of the input, as the arithmetic takes it in.
at::Tensor taken_in(const at::Tensor& x, at::ScalarType arithmetic) {
  return arithmetic == at::kHalf ? rounded(x.clamp(-65504, 65504), arithmetic) : x;
}

struct Levels {
  at::Tensor scale, zero;     // as stored
  at::Tensor divisor, shift;  // float32, what codes are made with: an empty group's divisor makes them all zero
};

Levels levels_of(const AffineCodec& codec, const at::Tensor& low, const at::Tensor& high) {
  const AffineOptions& o = codec.options();
  const auto round = [&o](const at::Tensor& x) { return rounded(x, o.arithmetic); };
  const bool reciprocal = o.form == AffineForm::kReciprocal;
  const auto top = static_cast<float>(codec.top());
  at::Tensor step;
  if (o.symmetric)
    step = at::maximum(high, -low) / constant(static_cast<double>(codec.offset()), low);
  else if (reciprocal)
    step = round((high - low) * constant(1 / top, low));
  else
    step = round(round(high - low) / constant(top, low));
  Levels levels;
  levels.scale = stored(step, o.metadata);
  levels.zero = stored(o.symmetric ? at::zeros_like(low) : low, o.metadata).add(0.0);  // no negative zero
  at::Tensor empty = levels.scale.eq(0);
  if (o.form == AffineForm::kZeroPoint) {
    levels.divisor = step;
    levels.shift = round(low.neg() / step);
    const at::Tensor point = levels.shift.to(o.metadata);
    empty = empty.logical_or(point.isfinite().logical_not());
    levels.zero = at::where(empty, levels.zero.neg(), point);
    levels.shift = levels.shift.masked_fill(empty, 0);
  } else {
    levels.divisor = levels.scale.to(at::kFloat);
    if (reciprocal) {
      levels.divisor = round(constant(1, low) / levels.divisor);
      empty = levels.divisor.isinf();  // of zero too
    }
    levels.shift = levels.zero.to(at::kFloat);
  }
  levels.divisor = levels.divisor.masked_fill(empty, reciprocal ? 0 : std::numeric_limits<double>::infinity());
  levels.scale = levels.scale.masked_fill(empty, codec.empty_scale());
  return levels;
}

#ifdef KVSWEEP_CUDA
std::vector<at::Tensor> encode_with_kernel(const AffineCodec& codec, const at::Tensor& x) {
  const std::vector<int64_t> sizes = metadata_sizes(codec, x.size(0), x.size(1));
  std::vector<at::Tensor> parts = {at::empty(code_sizes(codec, x.size(0), x.size(1)), x.options().dtype(at::kByte))};
  for (size_t i = 1; i < codec.parts().size(); ++i)
    parts.push_back(at::empty(sizes, x.options().dtype(codec.options().metadata)));
  if (x.numel() == 0) return parts;
  at::Tensor held;
  AffineEncode job;
  job.shape = shape_of(codec);
  job.x = rows_of(x, held);
  job.codes = parts[0].mutable_data_ptr<uint8_t>();
  job.scale = parts[1].mutable_data_ptr();
  if (parts.size() > 2) job.zero = parts[2].mutable_data_ptr();
  launch_on(x, [&job](void* stream) { affine_encode_cuda(job, stream); });
  return parts;
}

at::Tensor decode_with_kernel(const AffineCodec& codec, const std::vector<at::Tensor>& parts) {
  const int64_t heads = parts[0].size(0), tokens = parts[0].size(1) * codec.group_tokens();
  const at::Tensor out = at::empty({heads, tokens, codec.head_dim()}, parts[0].options().dtype(at::kFloat));
  if (out.numel() == 0) return out;
  std::array<at::Tensor, 3> held;
  AffineDecode job;
  job.shape = shape_of(codec);
  job.heads = heads;
  job.tokens = tokens;
  job.codes = part_of(parts[0], held[0]);
  job.scale = part_of(parts[1], held[1]);
  if (parts.size() > 2) job.zero = part_of(parts[2], held[2]);
  job.out = out.mutable_data_ptr<float>();
  launch_on(out, [&job](void* stream) { affine_decode_cuda(job, stream); });
  return out;
}
#endif

}  // namespace

AffineCodec::AffineCodec(AffineOptions options, int64_t head_dim) : options_(options), head_dim_(head_dim) {
  TORCH_CHECK(options.bits >= (options.symmetric ? 2 : 1) && options.bits <= 8, "affine: ", options.bits, " bits",
              options.symmetric ? " symmetric is outside [2, 8]" : " is outside [1, 8]");
  TORCH_CHECK(options.group >= 1, "affine: group ", options.group, " is less than 1");
  TORCH_CHECK(head_dim >= 1, "affine: head dim ", head_dim, " is less than 1");
  TORCH_CHECK(options.axis == GroupAxis::kChannel || head_dim % options.group == 0, "affine: group ", options.group,
              " does not divide the head dim ", head_dim);
  TORCH_CHECK(options.metadata == at::kHalf || options.metadata == at::kBFloat16 || options.metadata == at::kFloat,
              "affine: metadata of type ", options.metadata, "; allowed: Half, BFloat16, Float");
  TORCH_CHECK(options.arithmetic == at::kHalf || options.arithmetic == at::kFloat, "affine: arithmetic in ",
              options.arithmetic, "; allowed: Half, Float");
  TORCH_CHECK(!options.symmetric || (options.form == AffineForm::kMinimum && options.arithmetic == at::kFloat),
              "affine: symmetric codes are made in float32, without a zero-point");
}

std::vector<PartSpec> AffineCodec::parts() const {
  std::vector<PartSpec> parts = {{"codes", ByteRole::kCodes}, {"scale", ByteRole::kScales}};
  if (!options_.symmetric) parts.push_back({"zero", ByteRole::kZeros});
  return parts;
}

std::optional<PackedLayout> AffineCodec::layout() const {
  PackedLayout layout;
  layout.bits = options_.bits;
  layout.group = options_.group;
  layout.along_tokens = options_.axis == GroupAxis::kChannel;
  layout.zero = !options_.symmetric;
  layout.zero_point = options_.form == AffineForm::kZeroPoint;
  layout.half_arithmetic = options_.arithmetic == at::kHalf;
  layout.offset = static_cast<float>(offset());
  return layout;
}

void AffineCodec::check_input(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == head_dim_, "affine: needs [H, T, ", head_dim_, "], got ", x.sizes());
  TORCH_CHECK(x.size(1) % group_tokens() == 0, "affine: ", x.size(1), " tokens are not a multiple of the group ",
              group_tokens());
}

std::vector<at::Tensor> AffineCodec::encode(const at::Tensor& x) const {
  check_input(x);
#ifdef KVSWEEP_CUDA
  if (x.is_cuda()) return encode_with_kernel(*this, x);
#endif
  if (!x.is_cpu()) return encode_with_ops(x);
  at::Tensor values = x.to(at::kFloat);
  if (values.stride(2) != 1) values = values.contiguous();
  const int64_t heads = x.size(0), tokens = x.size(1);
  at::Tensor codes = at::empty(code_sizes(*this, heads, tokens), x.options().dtype(at::kByte));
  at::Tensor scale = at::empty(metadata_sizes(*this, heads, tokens), x.options().dtype(at::kFloat));
  at::Tensor zero = at::empty_like(scale);
  const int64_t code_stride = packed_bytes(head_dim_, options_.bits);
  const int64_t group_stride = scale.size(2), a_group = group_tokens();
  const auto* in = values.const_data_ptr<float>();
  auto* out = codes.mutable_data_ptr<uint8_t>();
  auto *to_scale = scale.mutable_data_ptr<float>(), *to_zero = zero.mutable_data_ptr<float>();
  std::atomic<bool> ok = true;
  for_each_block(
      block_of(*this), heads, tokens,
      [&](int64_t head, int64_t first, const AffineBlock& block, uint8_t* room, float* scratch) {
        const int64_t token = head * tokens + first, group = token / a_group * group_stride;
        if (!affine_encode_block(block, in + head * values.stride(0) + first * values.stride(1), values.stride(1),
                                 out + token * code_stride, to_scale + group, to_zero + group, room, scratch))
          ok = false;
      });
  if (!ok) refuse(x);
  if (options_.symmetric) return {codes, scale.to(options_.metadata)};
  return {codes, scale.to(options_.metadata), zero.to(options_.metadata)};
}

at::Tensor AffineCodec::decode(const std::vector<at::Tensor>& parts) const {
  TORCH_CHECK(parts.size() == this->parts().size(), "affine: ", parts.size(), " parts, not ", this->parts().size());
  const at::Tensor& codes = parts[0];
#ifdef KVSWEEP_CUDA
  if (codes.is_cuda()) return decode_with_kernel(*this, parts);
#endif
  if (!codes.is_cpu() || !codes[0].is_contiguous()) return decode_with_ops(parts);
  const at::Tensor scale = parts[1].to(at::kFloat).contiguous();
  const at::Tensor zero = options_.symmetric ? at::zeros_like(scale) : parts[2].to(at::kFloat).contiguous();
  const int64_t heads = codes.size(0), tokens = codes.size(1) * group_tokens();
  at::Tensor out = at::empty({heads, tokens, head_dim_}, codes.options().dtype(at::kFloat));
  const int64_t code_stride = packed_bytes(head_dim_, options_.bits);
  const int64_t group_stride = scale.size(2), a_group = group_tokens();
  const auto* in = codes.const_data_ptr<uint8_t>();
  const auto *from_scale = scale.const_data_ptr<float>(), *from_zero = zero.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  for_each_block(block_of(*this), heads, tokens,
                 [&](int64_t head, int64_t first, const AffineBlock& block, uint8_t* room, float*) {
                   const int64_t token = head * tokens + first, group = token / a_group * group_stride;
                   affine_decode_block(block, in + head * codes.stride(0) + first * code_stride, from_scale + group,
                                       from_zero + group, room, to + token * head_dim_);
                 });
  return out;
}

std::vector<at::Tensor> AffineCodec::encode_with_ops(const at::Tensor& x) const {
  check_input(x);
  const int64_t heads = x.size(0), tokens = x.size(1), group = options_.group;
  const bool channel = options_.axis == GroupAxis::kChannel;
  const std::vector<int64_t> sizes = channel ? std::vector<int64_t>{heads, tokens / group, group, head_dim_}
                                             : std::vector<int64_t>{heads, tokens, head_dim_ / group, group};
  at::Tensor groups = x.to(at::kFloat).reshape(sizes);
  const int64_t along = channel ? 2 : 3;
  const at::Tensor low = groups.amin(along, true), high = groups.amax(along, true);
  if (!high.sub(low).le(std::numeric_limits<float>::max() / 2).all().item<bool>()) refuse(x);
  const at::ScalarType arithmetic = options_.arithmetic;
  const auto round = [arithmetic](const at::Tensor& y) { return rounded(y, arithmetic); };
  const Levels levels = levels_of(*this, taken_in(low, arithmetic), taken_in(high, arithmetic));
  groups = taken_in(groups, arithmetic);
  at::Tensor y;
  switch (options_.form) {
    case AffineForm::kMinimum:
      y = round(round(groups - levels.shift) / levels.divisor).round();
      break;
    case AffineForm::kReciprocal:
      y = round(round(groups - levels.shift) * levels.divisor).round();
      break;
    case AffineForm::kZeroPoint:
      y = round(round(round(groups / levels.divisor) + levels.shift) + 0.5).floor();
      break;
  }
  const double steps = static_cast<double>(offset()), most = static_cast<double>(top()) - steps;
  const at::Tensor codes = y.clamp(-steps, most).add(steps).to(at::kByte);
  const at::Tensor packed =
      pack_bits(codes.reshape({heads, tokens, head_dim_}), options_.bits).view(code_sizes(*this, heads, tokens));
  if (options_.symmetric) return {packed, levels.scale.squeeze(along)};
  return {packed, levels.scale.squeeze(along), levels.zero.squeeze(along)};
}

at::Tensor AffineCodec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  const bool channel = options_.axis == GroupAxis::kChannel;
  const int64_t along = channel ? 2 : 3;
  at::Tensor codes = unpack_bits(parts.at(0), options_.bits, head_dim_).to(at::kFloat);
  const int64_t heads = codes.size(0), tokens = codes.size(1) * group_tokens();
  if (!channel) codes = codes.view({heads, tokens, head_dim_ / options_.group, options_.group});
  const auto round = [this](const at::Tensor& y) { return rounded(y, options_.arithmetic); };
  const bool point = options_.form == AffineForm::kZeroPoint;
  at::Tensor out =
      round(point ? codes.sub(parts.at(2).to(at::kFloat).unsqueeze(along)) : codes.sub(static_cast<double>(offset())));
  out = round(out.mul(parts.at(1).to(at::kFloat).unsqueeze(along)));
  if (!point && !options_.symmetric) out = round(out.add(parts.at(2).to(at::kFloat).unsqueeze(along)));
  return out.reshape({heads, tokens, head_dim_});
}

}  // namespace kvsweep
