#include "schemes/codec/hqq.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "schemes/codec/bitpack.h"
#include "schemes/codec/cuda_launch.h"
#include "schemes/codec/hqq_cpu.h"
#include "schemes/codec/narrow_tensor.h"
#include "schemes/kernels/hqq.h"

namespace kvsweep {
namespace {

constexpr int kIterations = 20;
constexpr int64_t kBlockValues = 1 << 13;     // of an iteration at a time: they stay in the second-level cache
constexpr int64_t kParallelValues = 1 << 13;  // values below which a second thread costs more than it saves
constexpr int64_t kWordCodes = 10;            // codes of 3 bits in an int32

// Bits of a slot; 0: ten codes of 3 bits in an int32.
int64_t slot_of(double bits) {
  return bits == 3 ? 0 : bits > 4 ? 8 : static_cast<int64_t>(std::ceil(bits));
}

at::Tensor shifts(const at::Tensor& like) {
  return at::arange(0, 3 * kWordCodes, 3, like.options().dtype(at::kLong));
}

at::Tensor pack_words(const at::Tensor& codes) {
  const int64_t words = (codes.numel() + kWordCodes - 1) / kWordCodes;
  at::Tensor padded = at::zeros({words * kWordCodes}, codes.options().dtype(at::kLong));
  padded.narrow(0, 0, codes.numel()).copy_(codes);
  return padded.view({words, kWordCodes}).bitwise_left_shift(shifts(codes)).sum(1).to(at::kInt);
}

at::Tensor unpack_words(const at::Tensor& words, int64_t count) {
  const at::Tensor codes = words.to(at::kLong).unsqueeze(1).bitwise_right_shift(shifts(words)).bitwise_and(7);
  return codes.to(at::kByte).view({-1}).narrow(0, 0, count);
}

// A tensor, so that every device divides: by a host number, CUDA multiplies with its reciprocal.
at::Tensor constant(double value, const at::Tensor& like) {
  return at::full({1}, value, like.options());
}

// Neighbouring groups of one length that are summed alike.
struct GroupRange {
  int64_t first_group = 0, groups = 0, first_value = 0, count = 0;
  SumOrder order = SumOrder::kRow;
};

// All groups: in each range some.
std::vector<GroupRange> ranges_of(const ValueGroups& groups) {
  const bool rows = groups.cut == GroupCut::kConsecutive;
  const int64_t full = groups.full_groups, first = rows ? full : full / kHqqLanes * kHqqLanes;
  std::vector<GroupRange> ranges;
  for (const GroupRange& range :
       {GroupRange{0, first, 0, groups.full, rows ? SumOrder::kRow : SumOrder::kColumn},
        GroupRange{first, full - first, first * groups.full, groups.full, SumOrder::kLastColumns},
        GroupRange{full, groups.rest_groups, full * groups.full, groups.rest, SumOrder::kRow}})
    if (range.groups > 0) ranges.push_back(range);
  return ranges;
}

// Calls work for ranges of at most about `values` values that cover all groups, on several threads.
template <class Work>
void for_groups(const ValueGroups& groups, int64_t values, const Work& work) {
  for (const GroupRange& all : ranges_of(groups)) {
    const int64_t most = std::max<int64_t>(1, values / all.count);
    at::parallel_for(0, all.groups, kParallelValues / all.count + 1, [&](int64_t begin, int64_t end) {
      for (int64_t from = begin; from < end; from += most) {
        GroupRange some = all;
        some.first_group += from;
        some.groups = std::min(most, end - from);
        some.first_value += from * all.count;
        work(some);
      }
    });
  }
}

float mean_of(const at::Tensor& values) {
  const int64_t chunks = values.numel() / kHqqChunk;
  const auto* in = values.const_data_ptr<float>();
  std::vector<float> sums(static_cast<size_t>(chunks * kHqqLanes));
  at::parallel_for(0, chunks, 4 * kParallelValues / kHqqChunk, [&](int64_t begin, int64_t end) {
    hqq_chunk_sums(in + begin * kHqqChunk, end - begin, sums.data() + begin * kHqqLanes);
  });
  return hqq_total(in, values.numel(), sums.data()) / static_cast<float>(values.numel());
}

// A range, for tensor operations.
struct Block {
  at::Tensor values;  // [groups, count]
  at::Tensor scale, zero;
  SumOrder order = SumOrder::kRow;
};

at::Tensor codes_of(const Block& block, float top) {
  return (block.values * block.scale + block.zero).round().clamp(0, top);
}

// [groups, count] -> [groups, 1], added in the order of the CPU's loops (hqq_cpu.h).
at::Tensor sums_of(const at::Tensor& x, SumOrder order) {
  const int64_t lanes = order == SumOrder::kRow ? kHqqLanes : order == SumOrder::kColumn ? 1 : 4;
  const int64_t vector = order == SumOrder::kRow ? 8 : 1, count = x.size(1);
  at::Tensor first = at::zeros({x.size(0), lanes}, x.options()), sums = at::zeros_like(first);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    first.add_(x.narrow(1, i, lanes));
    if ((i / lanes + 1) % 16 != 0) continue;
    sums.add_(first);
    first.zero_();
  }
  sums.add_(first);
  const at::Tensor lowest = sums.narrow(1, 0, vector);
  for (; i + vector <= count; i += vector) lowest.add_(x.narrow(1, i, vector));
  for (int64_t from = vector; from < lanes; from += vector) lowest.add_(sums.narrow(1, from, vector));
  at::Tensor total = at::zeros({x.size(0), 1}, x.options());
  for (; i < count; ++i) total.add_(x.narrow(1, i, 1));
  for (int64_t k = 0; k < vector; ++k) total.add_(sums.narrow(1, k, 1));
  return total;
}

// -> sum of |e|
at::Tensor refine(Block& block, float top, const at::Tensor& going) {
  const at::Tensor codes = codes_of(block, top);
  const at::Tensor e = block.values - (codes - block.zero) / block.scale, magnitude = e.abs();
  const at::Tensor power = magnitude.to(at::kDouble).pow(static_cast<double>(-0.3F)).to(at::kFloat);
  const at::Tensor shrunk = (magnitude - power * 0.1).clamp_min(0) * e.sign();
  const at::Tensor sums = sums_of(codes - (block.values - shrunk) * block.scale, block.order);
  block.zero = at::where(going, sums / constant(static_cast<double>(block.values.size(1)), sums), block.zero);
  return magnitude.sum(at::kDouble);
}

}  // namespace

HqqCodec::HqqCodec(HqqOptions options, int64_t heads, int64_t head_dim)
    : options_(options), heads_(heads), head_dim_(head_dim) {
  constexpr double kBits[] = {1, 1.58, 2, 3, 4, 5, 6, 8};
  TORCH_CHECK(std::find(std::begin(kBits), std::end(kBits), options.bits) != std::end(kBits), "hqq: ", options.bits,
              " bits; allowed: 1, 1.58, 2, 3, 4, 5, 6, 8");
  TORCH_CHECK(options.group >= 1, "hqq: group ", options.group, " is less than 1");
  TORCH_CHECK(options.cut != GroupCut::kRows, "hqq: has no groups of rows");
  TORCH_CHECK(heads >= 1 && heads * head_dim >= kWordCodes, "hqq: ", heads, " heads of ", head_dim, " dims");
  largest_value(options.dtype);
}

double HqqCodec::nominal_bits() const {
  const int64_t slot = slot_of(options_.bits);
  return slot == 0 ? 32.0 / kWordCodes : static_cast<double>(slot);
}

std::vector<PartSpec> HqqCodec::parts() const {
  return {{"codes", ByteRole::kCodes}, {"scale", ByteRole::kScales}, {"zero", ByteRole::kZeros}};
}

ValueGroups HqqCodec::groups_of(int64_t tokens) const {
  return {options_.cut, options_.group, heads_ * tokens, head_dim_};
}

float HqqCodec::top() const {
  return static_cast<float>(std::nearbyint(std::exp2(options_.bits) - 1));
}

// A token has more codes than pad a stream.
int64_t HqqCodec::tokens_of(const std::vector<at::Tensor>& parts) const {
  TORCH_CHECK(parts.size() == 3, "hqq: ", parts.size(), " parts, not 3");
  const int64_t slot = slot_of(options_.bits);
  const int64_t room = slot == 0 ? kWordCodes * parts[0].numel() : 8 * parts[0].numel() / slot;
  return room / (heads_ * head_dim_);
}

at::Tensor HqqCodec::codes(const std::vector<at::Tensor>& parts) const {
  const int64_t tokens = tokens_of(parts), count = heads_ * tokens * head_dim_, slot = slot_of(options_.bits);
  const at::Tensor flat = slot == 0 ? unpack_words(parts[0], count) : unpack_stream(parts[0], slot, count);
  return flat.view({heads_, tokens, head_dim_});
}

std::vector<at::Tensor> HqqCodec::stored(const ValueGroups& groups, const at::Tensor& grouped_codes,
                                         const at::Tensor& scale, const at::Tensor& zero) const {
  const at::Tensor flat = groups.scatter(grouped_codes);
  const int64_t slot = slot_of(options_.bits);
  const auto narrow = [&](const at::Tensor& x) {
    return (options_.dtype == at::kHalf ? x.clamp(-65504, 65504) : x).to(options_.dtype);
  };
  return {slot == 0 ? pack_words(flat) : pack_stream(flat, slot), narrow(constant(1, scale) / scale), narrow(zero)};
}

#ifdef KVSWEEP_CUDA
bool HqqCodec::has_kernel(const at::Tensor& x, const ValueGroups& groups) const {
  return x.is_cuda() && groups.values() > 0 && groups.rest_groups == 0 && groups.full <= kMostHqqGroup;
}

HqqShape HqqCodec::shape_of(const ValueGroups& groups) const {
  HqqShape shape;
  shape.groups = groups.full_groups;
  shape.count = groups.full;
  shape.strided = groups.cut == GroupCut::kStrided;
  shape.top = top();
  shape.slot = slot_of(options_.bits);
  shape.type = float_type(options_.dtype);
  return shape;
}

std::vector<at::Tensor> HqqCodec::encode_with_kernel(const at::Tensor& x, const ValueGroups& groups) const {
  const auto in = [&x](at::ScalarType type) { return x.options().dtype(type); };
  HqqEncode job;
  job.shape = shape_of(groups);
  const int64_t slot = job.shape.slot, words = (groups.values() + kWordCodes - 1) / kWordCodes;
  const std::vector<at::Tensor> parts = {
      slot == 0 ? at::empty({words}, in(at::kInt)) : at::empty({packed_bytes(groups.values(), slot)}, in(at::kByte)),
      at::empty({groups.count()}, in(options_.dtype)), at::empty({groups.count()}, in(options_.dtype))};
  const at::Tensor search = at::empty({2, groups.count()}, in(at::kFloat));
  const int64_t blocks = hqq_blocks(job.shape);
  const at::Tensor sums = at::empty({blocks + 2}, in(at::kDouble));
  static_assert(sizeof(HqqState) <= 2 * sizeof(double), "the state stands behind the sums");
  at::Tensor held;
  const DeviceRows rows = rows_of(x.contiguous(), held);
  job.x = rows.data;
  job.x_type = rows.type;
  job.iterations = kIterations;
  job.s = search.mutable_data_ptr<float>();
  job.z = job.s + groups.count();
  job.sums = sums.mutable_data_ptr<double>();
  job.state = reinterpret_cast<HqqState*>(job.sums + blocks);
  job.codes = parts[0].mutable_data_ptr();
  job.scale = parts[1].mutable_data_ptr();
  job.zero = parts[2].mutable_data_ptr();
  launch_on(x, [&job](void* stream) { hqq_encode_cuda(job, stream); });
  return parts;
}

at::Tensor HqqCodec::decode_with_kernel(const std::vector<at::Tensor>& parts, const ValueGroups& groups) const {
  const at::Tensor codes = parts[0].contiguous(), scale = parts[1].contiguous(), zero = parts[2].contiguous();
  const at::Tensor out = at::empty({heads_, groups.rows / heads_, head_dim_}, codes.options().dtype(at::kFloat));
  HqqDecode job;
  job.shape = shape_of(groups);
  job.codes = codes.const_data_ptr();
  job.scale = scale.const_data_ptr();
  job.zero = zero.const_data_ptr();
  job.out = out.mutable_data_ptr<float>();
  launch_on(out, [&job](void* stream) { hqq_decode_cuda(job, stream); });
  return out;
}
#endif

std::vector<at::Tensor> HqqCodec::encode(const at::Tensor& x) const {
#ifdef KVSWEEP_CUDA
  check_values("hqq", x, heads_, head_dim_);
  if (has_kernel(x, groups_of(x.size(1)))) return encode_with_kernel(x, groups_of(x.size(1)));
#endif
  if (!x.is_cpu()) return encode_with_ops(x);
  const ValueGroups groups = groups_of(x.size(1));
  const double limit = largest_value(options_.dtype);
  const at::Tensor flat = groups.gather(flat_values("hqq", x, heads_, head_dim_));
  const at::Tensor values = nearest(flat.clamp(-limit, limit), options_.dtype).contiguous();
  at::Tensor codes = at::empty({groups.values()}, x.options().dtype(at::kByte));
  at::Tensor scale = at::empty({groups.count()}, values.options());
  at::Tensor zero = at::empty_like(scale), magnitudes = at::empty_like(values);
  at::Tensor settled = at::zeros({groups.count()}, codes.options());
  const auto* in = values.const_data_ptr<float>();
  auto *s = scale.mutable_data_ptr<float>(), *z = zero.mutable_data_ptr<float>();
  auto* magnitude = magnitudes.mutable_data_ptr<float>();
  auto *done = settled.mutable_data_ptr<uint8_t>(), *out = codes.mutable_data_ptr<uint8_t>();
  for_groups(groups, groups.values(), [&](const GroupRange& r) {
    hqq_start(in + r.first_value, r.groups, r.count, top(), s + r.first_group, z + r.first_group);
  });
  float best = std::numeric_limits<float>::infinity();
  for (int i = 0; i < kIterations && groups.values() > 0; ++i) {
    for_groups(groups, kBlockValues, [&](const GroupRange& r) {
      const at::Tensor errors = at::empty({r.groups * r.count}, values.options()), picked = at::empty_like(errors);
      std::vector<int32_t> pick(static_cast<size_t>(r.groups));
      HqqBlock block;
      block.groups = r.groups;
      block.count = r.count;
      block.top = top();
      block.order = r.order;
      block.values = in + r.first_value;
      block.scale = s + r.first_group;
      block.zero = z + r.first_group;
      block.settled = done + r.first_group;
      block.magnitudes = magnitude + r.first_value;
      block.errors = errors.mutable_data_ptr<float>();
      block.picked = picked.mutable_data_ptr<float>();
      block.pick = pick.data();
      // ATen's own power, so that the search ends in the original's bits.
      const at::Tensor powers = picked.narrow(0, 0, hqq_errors(block) * r.count).pow(-0.3);
      hqq_update(block, powers.const_data_ptr<float>());
    });
    const float mean = mean_of(groups.scatter(magnitudes));
    if (!(mean < best)) break;
    best = mean;
  }
  for_groups(groups, groups.values(), [&](const GroupRange& r) {
    hqq_encode(in + r.first_value, r.groups, r.count, top(), s + r.first_group, z + r.first_group, out + r.first_value);
  });
  return stored(groups, codes, scale, zero);
}

at::Tensor HqqCodec::decode(const std::vector<at::Tensor>& parts) const {
#ifdef KVSWEEP_CUDA
  if (has_kernel(parts.at(0), groups_of(tokens_of(parts))))
    return decode_with_kernel(parts, groups_of(tokens_of(parts)));
#endif
  if (!parts.at(0).is_cpu()) return decode_with_ops(parts);
  const at::Tensor codes = this->codes(parts);
  const ValueGroups groups = groups_of(codes.size(1));
  const at::Tensor scale = parts[1].to(at::kFloat), zero = parts[2].to(at::kFloat);
  at::Tensor out = at::empty(codes.sizes(), scale.options());
  const auto* in = codes.const_data_ptr<uint8_t>();
  const auto *from_scale = scale.const_data_ptr<float>(), *from_zero = zero.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  const int64_t length = groups.segment(), segments = (groups.values() + length - 1) / length;
  at::parallel_for(0, segments, kParallelValues / length + 1, [&](int64_t begin, int64_t end) {
    for (int64_t segment = begin; segment < end; ++segment) {
      const int64_t value = segment * length, count = std::min(length, groups.values() - value);
      const int64_t at = groups.first_of(segment);
      hqq_decode_segment(in + value, count, options_.dtype, from_scale + at, from_zero + at, groups.step(), to + value);
    }
  });
  return out;
}

std::vector<at::Tensor> HqqCodec::encode_with_ops(const at::Tensor& x) const {
  const ValueGroups groups = groups_of(x.size(1));
  const double limit = largest_value(options_.dtype);
  const at::Tensor flat = groups.gather(flat_values("hqq", x, heads_, head_dim_));
  const at::Tensor values = nearest(flat.clamp(-limit, limit), options_.dtype);
  std::vector<Block> blocks;
  for (const GroupRange& range : ranges_of(groups)) {
    const at::Tensor part =
        values.narrow(0, range.first_value, range.groups * range.count).view({range.groups, range.count});
    const at::Tensor low = part.amin(1, true), spread = part.amax(1, true) - low;
    const at::Tensor scale =
        at::where(spread <= 1e-4F, at::ones_like(spread), spread.reciprocal() * top()).clamp_max(2e4);
    blocks.push_back({part, scale, low.neg() * scale, range.order});
  }
  const auto numbers = values.options();
  at::Tensor best = at::full({1}, std::numeric_limits<float>::infinity(), numbers);
  at::Tensor going = at::ones({1}, numbers.dtype(at::kBool));  // on the device, so that no iteration waits for the host
  for (int i = 0; i < kIterations && !blocks.empty(); ++i) {
    at::Tensor sum = at::zeros({1}, numbers.dtype(at::kDouble));
    for (Block& block : blocks) sum = sum + refine(block, top(), going);
    const at::Tensor mean = (sum / static_cast<double>(values.numel())).to(at::kFloat);
    going = going.logical_and(mean < best);
    best = at::where(going, mean, best);
  }
  std::vector<at::Tensor> codes = {at::empty({0}, numbers.dtype(at::kByte))}, scales = {at::empty({0}, numbers)};
  std::vector<at::Tensor> zeros = scales;
  for (const Block& block : blocks) {
    codes.push_back(codes_of(block, top()).to(at::kByte).view({-1}));
    scales.push_back(block.scale.view({-1}));
    zeros.push_back(block.zero.view({-1}));
  }
  return stored(groups, at::cat(codes), at::cat(scales), at::cat(zeros));
}

at::Tensor HqqCodec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  const at::Tensor codes = this->codes(parts);
  const ValueGroups groups = groups_of(codes.size(1));
  const at::Tensor shifted =
      nearest(groups.gather(codes.view({-1})).to(at::kFloat) - groups.spread(parts[2].to(at::kFloat)), options_.dtype);
  const at::Tensor values = nearest(shifted * groups.spread(parts[1].to(at::kFloat)), options_.dtype);
  return groups.scatter(values).reshape(codes.sizes());
}

}  // namespace kvsweep
