#include "schemes/codec/affine.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <limits>

#include "schemes/codec/affine_cpu.h"
#include "schemes/codec/bitpack.h"

namespace kvsweep {
namespace {

constexpr int64_t kBlockValues = 4096;        // codes unpacked at a time: they stay in the first-level cache
constexpr int64_t kParallelValues = 1 << 15;  // values below which a second thread costs more than it saves

AffineBlock block_of(const AffineCodec& codec) {
  const AffineOptions& o = codec.options();
  AffineBlock block;
  block.dim = codec.head_dim();
  block.bits = o.bits;
  block.group = o.group;
  block.channel_axis = o.axis == GroupAxis::kChannel;
  block.symmetric = o.symmetric;
  block.half_metadata = o.metadata == at::kHalf;
  block.offset = static_cast<float>(codec.offset());
  block.top = static_cast<float>(codec.top());
  block.tokens = block.channel_axis ? o.group : std::max<int64_t>(1, kBlockValues / block.dim);
  return block;
}

// Calls work(head, first token, block) for blocks that cover [heads, tokens].
template <class Work>
void for_each_block(const AffineBlock& whole, int64_t heads, int64_t tokens, const Work& work) {
  const int64_t a_head = (tokens + whole.tokens - 1) / whole.tokens;
  const int64_t grain = kParallelValues / (whole.tokens * whole.dim) + 1;
  at::parallel_for(0, heads * a_head, grain, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> codes(static_cast<size_t>(whole.tokens * whole.dim));
    std::vector<float> scratch(static_cast<size_t>(4 * whole.dim));
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

at::Tensor stored(const at::Tensor& x, at::ScalarType type) {
  return type == at::kHalf ? x.clamp(-65504, 65504).to(type) : x;
}

}  // namespace

AffineCodec::AffineCodec(AffineOptions options, int64_t head_dim) : options_(options), head_dim_(head_dim) {
  TORCH_CHECK(options.bits >= (options.symmetric ? 2 : 1) && options.bits <= 8, "affine: ", options.bits, " bits",
              options.symmetric ? " symmetric is outside [2, 8]" : " is outside [1, 8]");
  TORCH_CHECK(options.group >= 1, "affine: group ", options.group, " is less than 1");
  TORCH_CHECK(head_dim >= 1, "affine: head dim ", head_dim, " is less than 1");
  TORCH_CHECK(options.axis == GroupAxis::kChannel || head_dim % options.group == 0, "affine: group ", options.group,
              " does not divide the head dim ", head_dim);
  TORCH_CHECK(options.metadata == at::kHalf || options.metadata == at::kFloat, "affine: metadata of type ",
              options.metadata, "; allowed: Half, Float");
}

std::vector<PartSpec> AffineCodec::parts() const {
  std::vector<PartSpec> parts = {{"codes", ByteRole::kCodes}, {"scale", ByteRole::kScales}};
  if (!options_.symmetric) parts.push_back({"zero", ByteRole::kZeros});
  return parts;
}

void AffineCodec::check_input(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == head_dim_, "affine: needs [H, T, ", head_dim_, "], got ", x.sizes());
  TORCH_CHECK(x.size(1) % group_tokens() == 0, "affine: ", x.size(1), " tokens are not a multiple of the group ",
              group_tokens());
}

std::vector<at::Tensor> AffineCodec::encode(const at::Tensor& x) const {
  check_input(x);
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
  const at::Tensor groups = x.to(at::kFloat).reshape(sizes);
  const int64_t along = channel ? 2 : 3;
  const at::Tensor low = groups.amin(along, true), high = groups.amax(along, true);
  if (!high.sub(low).le(std::numeric_limits<float>::max() / 2).all().item<bool>()) refuse(x);
  at::Tensor zero, scale;
  if (options_.symmetric) {
    scale = stored(at::maximum(high, -low) / constant(static_cast<double>(offset()), x), options_.metadata);
  } else {
    zero = stored(low, options_.metadata).add(0.0);
    scale = stored((high - low) / constant(static_cast<double>(top()), x), options_.metadata);
  }
  const at::Tensor degenerate = scale.eq(0);
  scale = scale.masked_fill(degenerate, 1);
  const at::Tensor divisor = scale.to(at::kFloat).masked_fill(degenerate, std::numeric_limits<double>::infinity());
  const at::Tensor shifted = options_.symmetric ? groups : groups - zero.to(at::kFloat);
  const double steps = static_cast<double>(offset()), most = static_cast<double>(top()) - steps;
  const at::Tensor codes = (shifted / divisor).round().clamp(-steps, most).add(steps).to(at::kByte);
  const at::Tensor packed =
      pack_bits(codes.reshape({heads, tokens, head_dim_}), options_.bits).view(code_sizes(*this, heads, tokens));
  if (options_.symmetric) return {packed, scale.squeeze(along)};
  return {packed, scale.squeeze(along), zero.squeeze(along)};
}

at::Tensor AffineCodec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  const bool channel = options_.axis == GroupAxis::kChannel;
  const int64_t along = channel ? 2 : 3;
  at::Tensor codes = unpack_bits(parts.at(0), options_.bits, head_dim_).to(at::kFloat);
  const int64_t heads = codes.size(0), tokens = codes.size(1) * group_tokens();
  if (!channel) codes = codes.view({heads, tokens, head_dim_ / options_.group, options_.group});
  at::Tensor out = codes.sub(static_cast<double>(offset())).mul(parts.at(1).to(at::kFloat).unsqueeze(along));
  if (!options_.symmetric) out = out.add(parts.at(2).to(at::kFloat).unsqueeze(along));
  return out.reshape({heads, tokens, head_dim_});
}

}  // namespace kvsweep
