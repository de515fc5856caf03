#include "schemes/codec/clustered.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <limits>

#include "schemes/codec/bitpack.h"
#include "schemes/codec/clustered_cpu.h"
#include "schemes/codec/cuda_launch.h"
#include "schemes/kernels/clustered.h"

namespace kvsweep {
namespace {

constexpr int64_t kBlockValues = 4096;        // codes unpacked at a time: they stay in the first-level cache
constexpr int64_t kParallelValues = 1 << 14;  // values below which a second thread costs more than it saves
constexpr int64_t kTritsAByte = 5;

// Calls work(first token, tokens, room for their codes, scratch) for blocks of tokens.
template <class Work>
void for_each_block(int64_t tokens, int64_t channels, const Work& work) {
  const int64_t block = std::max<int64_t>(1, kBlockValues / channels), blocks = (tokens + block - 1) / block;
  at::parallel_for(0, blocks, kParallelValues / (block * channels) + 1, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> codes(static_cast<size_t>(block * channels));
    std::vector<float> scratch(static_cast<size_t>(3 * (channels + kClusteredSlack)));
    for (int64_t i = begin; i < end; ++i)
      work(i * block, std::min(block, tokens - i * block), codes.data(), scratch.data());
  });
}

[[noreturn]] void refuse(const at::Tensor& x) {
  const at::Tensor bad = at::isfinite(x).logical_not().nonzero();
  TORCH_CHECK(bad.size(0) == 0, "clustered: NaN or infinity at head ", bad[0][0].item<int64_t>(), ", token ",
              bad[0][1].item<int64_t>(), ", channel ", bad[0][2].item<int64_t>(), " of an input of sizes ", x.sizes());
  TORCH_CHECK(false, "clustered: a cluster's values span more than half of float32's range");
}

std::vector<int32_t> integers(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kCPU, at::kInt).contiguous();
  return {wide.const_data_ptr<int32_t>(), wide.const_data_ptr<int32_t>() + wide.numel()};
}

}  // namespace

ChannelClusters ChannelClusters::neighbours(int64_t channels, int64_t group) {
  TORCH_CHECK(group >= 1 && channels % group == 0, "clustered: group ", group, " does not divide ", channels,
              " channels");
  return {{}, at::arange(0, channels + 1, group, at::kShort)};
}

void ChannelClusters::check(int64_t channels) const {
  TORCH_CHECK(channels >= 1 && channels <= std::numeric_limits<int16_t>::max(), "clustered: ", channels,
              " channels are outside [1, ", std::numeric_limits<int16_t>::max(), "]");
  TORCH_CHECK(starts.defined() && starts.scalar_type() == at::kShort && starts.dim() == 1 && starts.size(0) >= 2,
              "clustered: starts of clusters have to be a row of int16");
  const std::vector<int32_t> at = integers(starts);
  TORCH_CHECK(at.front() == 0 && at.back() == channels, "clustered: clusters cover channels ", at.front(), " to ",
              at.back(), " of ", channels);
  TORCH_CHECK(std::adjacent_find(at.begin(), at.end(), std::greater_equal<>()) == at.end(),
              "clustered: a cluster is empty");
  if (!order.defined()) return;
  TORCH_CHECK(order.scalar_type() == at::kShort && order.dim() == 1, "clustered: the order has to be a row of int16");
  std::vector<int32_t> sorted = integers(order);
  std::sort(sorted.begin(), sorted.end());
  bool whole = static_cast<int64_t>(sorted.size()) == channels;
  for (size_t i = 0; whole && i < sorted.size(); ++i) whole = sorted[i] == static_cast<int32_t>(i);
  TORCH_CHECK(whole, "clustered: the order is no permutation of ", channels, " channels");
}

ClusteredCodec::ClusteredCodec(ClusteredOptions options, int64_t heads, int64_t head_dim,
                               const ChannelClusters& clusters, at::Device device)
    : options_(options), heads_(heads), head_dim_(head_dim) {
  TORCH_CHECK(options.levels >= 2 && options.levels <= 256, "clustered: ", options.levels,
              " levels are outside [2, 256]");
  TORCH_CHECK(!options.trits || options.levels == 3, "clustered: ", options.levels, " levels are not stored as trits");
  TORCH_CHECK(options.clip > 0 && options.clip <= 1, "clustered: clip ", options.clip, " is outside (0, 1]");
  TORCH_CHECK(
      options.arithmetic == at::kHalf || options.arithmetic == at::kBFloat16 || options.arithmetic == at::kFloat,
      "clustered: arithmetic in ", options.arithmetic, "; allowed: Half, BFloat16, Float");
  clusters.check(channels());
  starts_ = integers(clusters.starts);
  const auto longs = at::dtype(at::kLong).device(device);
  starts_index_ = clusters.starts.to(longs);
  const at::Tensor sizes = starts_index_.diff();
  cluster_index_ = at::arange(this->clusters(), longs).repeat_interleave(sizes, 0, channels());
  if (!clusters.order.defined()) return;
  order_ = integers(clusters.order);
  order_index_ = clusters.order.to(longs);
  inverse_index_ = order_index_.argsort();
  inverse_ = integers(inverse_index_);
}

double ClusteredCodec::bits_of(int64_t levels, bool trits) {
  return trits ? 8.0 / kTritsAByte : static_cast<double>(std::bit_width(static_cast<uint32_t>(levels - 1)));
}

double ClusteredCodec::nominal_bits() const {
  return bits_of(options_.levels, options_.trits);
}

int64_t ClusteredCodec::row_bytes() const {
  if (options_.trits) return (channels() + kTritsAByte - 1) / kTritsAByte;
  return packed_bytes(channels(), static_cast<int64_t>(nominal_bits()));
}

ClusteredRows ClusteredCodec::rows() const {
  ClusteredRows rows;
  rows.heads = heads_;
  rows.dim = head_dim_;
  rows.clusters = clusters();
  rows.order = order_.empty() ? nullptr : order_.data();
  rows.inverse = inverse_.empty() ? nullptr : inverse_.data();
  rows.starts = starts_.data();
  rows.top = static_cast<float>(options_.levels - 1);
  rows.clip = static_cast<float>(options_.clip);
  rows.arithmetic = options_.arithmetic;
  rows.fp8 = options_.fp8;
  rows.codes_from_rounded = options_.codes_from_rounded;
  rows.saturate = options_.saturate;
  return rows;
}

void ClusteredCodec::check_input(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 3 && x.size(0) == heads_ && x.size(2) == head_dim_, "clustered: needs [", heads_, ", T, ",
              head_dim_, "], got ", x.sizes());
}

#ifdef KVSWEEP_CUDA
bool ClusteredCodec::has_kernel(const at::Tensor& x) const {
  return x.is_cuda() && starts_index_.is_cuda() && options_.saturate && channels() <= kMostClusteredChannels;
}

ClusteredShape ClusteredCodec::shape() const {
  const auto places = [](const at::Tensor& index) {
    return index.defined() ? index.const_data_ptr<int64_t>() : nullptr;
  };
  ClusteredShape shape;
  shape.heads = heads_;
  shape.dim = head_dim_;
  shape.clusters = clusters();
  shape.bits = options_.trits ? 0 : static_cast<int64_t>(nominal_bits());
  shape.top = static_cast<float>(options_.levels - 1);
  shape.clip = static_cast<float>(options_.clip);
  shape.arithmetic = float_type(options_.arithmetic);
  shape.fp8 = options_.fp8;
  shape.codes_from_rounded = options_.codes_from_rounded;
  shape.order = places(order_index_);
  shape.inverse = places(inverse_index_);
  shape.starts = places(starts_index_);
  shape.cluster = places(cluster_index_);
  return shape;
}

std::vector<at::Tensor> ClusteredCodec::encode_with_kernel(const at::Tensor& x) const {
  const auto in = [&x](at::ScalarType type) { return x.options().dtype(type); };
  const int64_t tokens = x.size(1);
  const std::vector<at::Tensor> parts = {at::empty({1, tokens, row_bytes()}, in(at::kByte)),
                                         at::empty({1, tokens, clusters()}, in(metadata())),
                                         at::empty({1, tokens, clusters()}, in(metadata()))};
  if (tokens == 0) return parts;
  at::Tensor held;
  ClusteredEncode job;
  job.shape = shape();
  job.x = rows_of(x, held);
  job.codes = parts[0].mutable_data_ptr<uint8_t>();
  job.scale = parts[1].mutable_data_ptr();
  job.zero = parts[2].mutable_data_ptr();
  launch_on(x, [&job](void* stream) { clustered_encode_cuda(job, stream); });
  return parts;
}

at::Tensor ClusteredCodec::decode_with_kernel(const std::vector<at::Tensor>& parts) const {
  const at::Tensor codes = parts[0].contiguous(), scale = parts.at(1).contiguous(), zero = parts.at(2).contiguous();
  const int64_t tokens = codes.size(1);
  const at::Tensor out = at::empty({heads_, tokens, head_dim_}, codes.options().dtype(at::kFloat));
  if (tokens == 0) return out;
  ClusteredDecode job;
  job.shape = shape();
  job.tokens = tokens;
  job.codes = codes.const_data_ptr<uint8_t>();
  job.scale = scale.const_data_ptr();
  job.zero = zero.const_data_ptr();
  job.out = out.mutable_data_ptr<float>();
  launch_on(out, [&job](void* stream) { clustered_decode_cuda(job, stream); });
  return out;
}
#endif

std::vector<at::Tensor> ClusteredCodec::encode(const at::Tensor& x) const {
  check_input(x);
#ifdef KVSWEEP_CUDA
  if (has_kernel(x)) return encode_with_kernel(x);
#endif
  if (!x.is_cpu()) return encode_with_ops(x);
  at::Tensor values = x.to(at::kFloat);
  if (values.stride(2) != 1) values = values.contiguous();
  const int64_t tokens = x.size(1), bytes = row_bytes();
  const at::Tensor packed = at::empty({1, tokens, bytes}, at::kByte);
  const at::Tensor scale = at::empty({1, tokens, clusters()}, at::kFloat), zero = at::empty_like(scale);
  const ClusteredRows by = rows();
  const auto* in = values.const_data_ptr<float>();
  auto* out = packed.mutable_data_ptr<uint8_t>();
  auto *to_scale = scale.mutable_data_ptr<float>(), *to_zero = zero.mutable_data_ptr<float>();
  std::atomic<bool> ok = true;
  for_each_block(tokens, channels(), [&](int64_t first, int64_t count, uint8_t* codes, float* scratch) {
    if (!clustered_encode(by, in + first * values.stride(1), values.stride(0), values.stride(1), count, codes,
                          to_scale + first * clusters(), to_zero + first * clusters(), scratch)) {
      ok = false;
    } else if (options_.trits) {
      pack_trits(codes, count, channels(), out + first * bytes);
    } else {
      pack_rows(codes, channels(), count, channels(), static_cast<int64_t>(nominal_bits()), out + first * bytes, bytes);
    }
  });
  if (!ok) refuse(x);
  return {packed, scale.to(metadata()), zero.to(metadata())};
}

at::Tensor ClusteredCodec::decode(const std::vector<at::Tensor>& parts) const {
#ifdef KVSWEEP_CUDA
  if (has_kernel(parts.at(0))) return decode_with_kernel(parts);
#endif
  if (!parts.at(0).is_cpu()) return decode_with_ops(parts);
  const at::Tensor packed = parts[0].contiguous();
  const at::Tensor scale = parts.at(1).to(at::kFloat).contiguous(), zero = parts.at(2).to(at::kFloat).contiguous();
  const int64_t tokens = packed.size(1), bytes = row_bytes();
  const at::Tensor out = at::empty({heads_, tokens, head_dim_}, at::kFloat);
  const ClusteredRows by = rows();
  const auto* in = packed.const_data_ptr<uint8_t>();
  const auto *from_scale = scale.const_data_ptr<float>(), *from_zero = zero.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  for_each_block(tokens, channels(), [&](int64_t first, int64_t count, uint8_t* codes, float* scratch) {
    if (options_.trits) {
      unpack_trits(in + first * bytes, count, channels(), codes);
    } else {
      unpack_rows(in + first * bytes, bytes, count, channels(), static_cast<int64_t>(nominal_bits()), codes,
                  channels());
    }
    clustered_decode(by, codes, from_scale + first * clusters(), from_zero + first * clusters(), count,
                     to + first * head_dim_, tokens * head_dim_, scratch);
  });
  return out;
}

at::Tensor ClusteredCodec::pack(const at::Tensor& codes) const {
  if (!options_.trits) return pack_bits(codes, static_cast<int64_t>(nominal_bits()));
  const at::Tensor digits = at::constant_pad_nd(codes, {0, row_bytes() * kTritsAByte - channels()});
  const at::Tensor weights = at::tensor({1, 3, 9, 27, 81}, codes.options());
  return digits.view({1, codes.size(1), row_bytes(), kTritsAByte}).mul(weights).sum(-1, false, at::kByte);
}

at::Tensor ClusteredCodec::unpack(const at::Tensor& codes) const {
  if (!options_.trits) return unpack_bits(codes, static_cast<int64_t>(nominal_bits()), channels());
  const at::Tensor weights = at::tensor({1, 3, 9, 27, 81}, codes.options());
  const at::Tensor digits = codes.unsqueeze(-1).floor_divide(weights).remainder(3);
  return digits.flatten(2).narrow(2, 0, channels());
}

at::Tensor ClusteredCodec::rounded(const at::Tensor& x) const {
  if (options_.arithmetic == at::kFloat) return x;
  const bool clamps = options_.saturate && options_.arithmetic == at::kHalf;
  return (clamps ? x.clamp(-65504, 65504) : x).to(options_.arithmetic).to(at::kFloat);
}

at::Tensor ClusteredCodec::stored(const at::Tensor& x) const {
  return (options_.fp8 && options_.saturate ? x.clamp(-448, 448) : x).to(metadata());
}

std::vector<at::Tensor> ClusteredCodec::encode_with_ops(const at::Tensor& x) const {
  check_input(x);
  const int64_t tokens = x.size(1);
  const auto options = x.options();
  if (tokens == 0) {
    const at::Tensor none = at::empty({1, 0, clusters()}, options.dtype(metadata()));
    return {at::empty({1, 0, row_bytes()}, options.dtype(at::kByte)), none, none};
  }
  // Channels before tokens: clusters are runs of rows.
  at::Tensor values = rounded(x.transpose(1, 2).to(at::kFloat).reshape({channels(), tokens}));
  if (order_index_.defined()) values = values.index_select(0, order_index_);
  const at::Tensor low = at::segment_reduce(values, "min", {}, {}, starts_index_, 0, /*unsafe=*/true);
  const at::Tensor high = at::segment_reduce(values, "max", {}, {}, starts_index_, 0, /*unsafe=*/true);
  const at::Tensor top = at::full({1}, static_cast<double>(options_.levels - 1), options.dtype(at::kFloat));
  at::Tensor zero = rounded(low * options_.clip);
  const at::Tensor width = rounded(rounded(high * options_.clip) - zero);
  at::Tensor fits = x.isfinite().all();
  if (options_.arithmetic != at::kHalf) fits = fits.logical_and(width.le(std::numeric_limits<float>::max() / 2).all());
  if (!fits.item<bool>()) refuse(x);
  at::Tensor scale = at::maximum(rounded(width / top), rounded(at::full({1}, 1e-5, top.options())));
  const at::Tensor kept_scale = stored(scale), kept_zero = stored(zero);
  if (options_.codes_from_rounded) {
    scale = kept_scale.to(at::kFloat);
    scale = scale.masked_fill(scale.eq(0), std::numeric_limits<double>::infinity());
    zero = kept_zero.to(at::kFloat);
  }
  const at::Tensor steps =
      rounded(values - zero.index_select(0, cluster_index_)) / scale.index_select(0, cluster_index_);
  const at::Tensor codes = rounded(steps.clamp(0, options_.levels - 1)).round().to(at::kByte);
  const auto by_token = [](const at::Tensor& rows) { return rows.t().contiguous().unsqueeze(0); };
  return {pack(by_token(codes)), by_token(kept_scale), by_token(kept_zero)};
}

at::Tensor ClusteredCodec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  const at::Tensor scale = parts.at(1).to(at::kFloat).index_select(2, cluster_index_);
  const at::Tensor zero = parts.at(2).to(at::kFloat).index_select(2, cluster_index_);
  at::Tensor values = rounded(rounded(unpack(parts.at(0)).to(at::kFloat) * scale) + zero);
  if (inverse_index_.defined()) values = values.index_select(2, inverse_index_);
  return values.view({-1, heads_, head_dim_}).transpose(0, 1).contiguous();
}

}  // namespace kvsweep
