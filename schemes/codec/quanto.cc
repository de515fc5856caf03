#include "schemes/codec/quanto.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "schemes/codec/bitpack.h"
#include "schemes/codec/cuda_launch.h"
#include "schemes/codec/narrow_tensor.h"
#include "schemes/codec/quanto_cpu.h"
#include "schemes/codec/row_reader.h"
#include "schemes/kernels/quanto.h"

namespace kvsweep {
namespace {

constexpr int64_t kParallelValues = 1 << 14;  // values below which a second thread costs more than it saves

float top_of(int64_t bits) {
  return static_cast<float>((int64_t{1} << bits) - 1);
}

// A tensor, so that every device divides: by a host number, CUDA multiplies with its reciprocal.
at::Tensor constant(float value, const at::Tensor& like) {
  return at::full({1}, value, like.options());
}

class QuantoReader final : public RowReader {
 public:
  QuantoReader(const QuantoOptions& options, int64_t heads, int64_t tokens, int64_t dim,
               const std::vector<at::Tensor>& parts)
      : options_(options),
        heads_(heads),
        tokens_(tokens),
        dim_(dim),
        codes_(parts[0].contiguous()),
        scale_(parts[1].contiguous()),
        shift_(parts[2].contiguous()) {}

  int64_t heads() const override { return heads_; }
  void read(int64_t head, int64_t first, int64_t count, float* out) const override {
    const int64_t row = head * tokens_ + first, group = row * dim_ / options_.group;
    const auto levels = [group](const at::Tensor& from) {
      return static_cast<const char*>(from.const_data_ptr()) + group * from.element_size();
    };
    quanto_decode_rows(codes_.const_data_ptr<uint8_t>() + row * dim_ * options_.bits / 8, levels(scale_),
                       levels(shift_), options_.dtype, options_.bits, count, dim_, options_.group, out);
  }

 private:
  QuantoOptions options_;
  int64_t heads_, tokens_, dim_;
  at::Tensor codes_, scale_, shift_;
};

#ifdef KVSWEEP_CUDA
QuantoShape shape_of(const QuantoOptions& options, const ValueGroups& groups) {
  QuantoShape shape;
  shape.bits = options.bits;
  shape.group = options.group;
  shape.rows = groups.rows;
  shape.dim = groups.dim;
  shape.by_rows = options.cut == GroupCut::kRows;
  shape.type = float_type(options.dtype);
  return shape;
}

std::vector<at::Tensor> encode_with_kernel(const QuantoOptions& options, const ValueGroups& groups,
                                           const at::Tensor& x) {
  const auto metadata = x.options().dtype(options.dtype);
  const std::vector<at::Tensor> parts = {
      at::empty({packed_bytes(groups.values(), options.bits)}, x.options().dtype(at::kByte)),
      at::empty({groups.count()}, metadata), at::empty({groups.count()}, metadata)};
  if (x.numel() == 0) return parts;
  at::Tensor held;
  QuantoEncode job;
  job.shape = shape_of(options, groups);
  const DeviceRows rows = rows_of(x.contiguous(), held);
  job.x = rows.data;
  job.x_type = rows.type;
  job.codes = parts[0].mutable_data_ptr<uint8_t>();
  job.scale = parts[1].mutable_data_ptr();
  job.shift = parts[2].mutable_data_ptr();
  launch_on(x, [&job](void* stream) { quanto_encode_cuda(job, stream); });
  return parts;
}

at::Tensor decode_with_kernel(const QuantoOptions& options, const ValueGroups& groups,
                              const std::vector<at::Tensor>& parts, at::IntArrayRef sizes) {
  const at::Tensor out = at::empty(sizes, parts[0].options().dtype(at::kFloat));
  if (out.numel() == 0) return out;
  const at::Tensor codes = parts[0].contiguous(), scale = parts[1].contiguous(), shift = parts[2].contiguous();
  QuantoDecode job;
  job.shape = shape_of(options, groups);
  job.codes = codes.const_data_ptr<uint8_t>();
  job.scale = scale.const_data_ptr();
  job.shift = shift.const_data_ptr();
  job.out = out.mutable_data_ptr<float>();
  launch_on(out, [&job](void* stream) { quanto_decode_cuda(job, stream); });
  return out;
}
#endif

}  // namespace

QuantoCodec::QuantoCodec(QuantoOptions options, int64_t heads, int64_t head_dim)
    : options_(options), heads_(heads), head_dim_(head_dim) {
  TORCH_CHECK(options.bits == 2 || options.bits == 4, "quanto: ", options.bits, " bits; allowed: 2, 4");
  TORCH_CHECK(options.group >= 1, "quanto: group ", options.group, " is less than 1");
  TORCH_CHECK(options.cut != GroupCut::kStrided, "quanto: has no strided groups");
  TORCH_CHECK(heads >= 1 && head_dim >= 4, "quanto: ", heads, " heads of ", head_dim, " dims");
  largest_value(options.dtype);
}

std::vector<PartSpec> QuantoCodec::parts() const {
  return {{"codes", ByteRole::kCodes}, {"scale", ByteRole::kScales}, {"shift", ByteRole::kZeros}};
}

ValueGroups QuantoCodec::groups_of(int64_t tokens) const {
  return {options_.cut, options_.group, heads_ * tokens, head_dim_};
}

// A token has at least 8 bits of codes, more than pad a stream.
int64_t QuantoCodec::tokens_of(const std::vector<at::Tensor>& parts) const {
  TORCH_CHECK(parts.size() == 3, "quanto: ", parts.size(), " parts, not 3");
  return 8 * parts[0].numel() / (options_.bits * heads_ * head_dim_);
}

std::vector<at::Tensor> QuantoCodec::encode(const at::Tensor& x) const {
#ifdef KVSWEEP_CUDA
  if (x.is_cuda()) {
    check_values("quanto", x, heads_, head_dim_);
    return encode_with_kernel(options_, groups_of(x.size(1)), x);
  }
#endif
  if (!x.is_cpu()) return encode_with_ops(x);
  const ValueGroups groups = groups_of(x.size(1));
  const at::Tensor grouped = groups.gather(flat_values("quanto", x, heads_, head_dim_)).contiguous();
  at::Tensor codes = at::empty({groups.values()}, x.options().dtype(at::kByte));
  at::Tensor scale = at::empty({groups.count()}, x.options().dtype(at::kFloat)), shift = at::empty_like(scale);
  const auto* in = grouped.const_data_ptr<float>();
  auto* out = codes.mutable_data_ptr<uint8_t>();
  auto *to_scale = scale.mutable_data_ptr<float>(), *to_shift = shift.mutable_data_ptr<float>();
  const auto encode_range = [&](int64_t first_group, int64_t first_value, int64_t count, int64_t many) {
    at::parallel_for(0, many, kParallelValues / std::max<int64_t>(count, 1) + 1, [&](int64_t begin, int64_t end) {
      const int64_t value = first_value + begin * count, group = first_group + begin;
      quanto_encode_groups(in + value, end - begin, count, top_of(options_.bits), options_.dtype, to_scale + group,
                           to_shift + group, out + value);
    });
  };
  encode_range(0, 0, groups.full, groups.full_groups);
  encode_range(groups.full_groups, groups.full_groups * groups.full, groups.rest, groups.rest_groups);
  return {pack_stream(groups.scatter(codes), options_.bits), scale.to(options_.dtype), shift.to(options_.dtype)};
}

at::Tensor QuantoCodec::decode(const std::vector<at::Tensor>& parts) const {
  const int64_t tokens = tokens_of(parts);
#ifdef KVSWEEP_CUDA
  if (parts[0].is_cuda()) return decode_with_kernel(options_, groups_of(tokens), parts, {heads_, tokens, head_dim_});
#endif
  if (!parts[0].is_cpu()) return decode_with_ops(parts);
  if (const auto rows = reader(parts)) return decode_all(*rows, tokens, head_dim_);
  const ValueGroups groups = groups_of(tokens);
  const at::Tensor codes = unpack_stream(parts[0], options_.bits, groups.values());
  const at::Tensor scale = parts[1].to(at::kFloat), shift = parts[2].to(at::kFloat);
  at::Tensor out = at::empty({heads_, tokens, head_dim_}, scale.options());
  const auto* in = codes.const_data_ptr<uint8_t>();
  const auto *from_scale = scale.const_data_ptr<float>(), *from_shift = shift.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  const int64_t length = groups.segment(), segments = (groups.values() + length - 1) / length;
  at::parallel_for(0, segments, kParallelValues / length + 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const int64_t value = s * length, count = std::min(length, groups.values() - value), at = groups.first_of(s);
      quanto_decode_segment(in + value, count, options_.dtype, from_scale + at, from_shift + at, groups.step(),
                            to + value);
    }
  });
  return out;
}

std::unique_ptr<const RowReader> QuantoCodec::reader(const std::vector<at::Tensor>& parts) const {
  const bool whole = head_dim_ % options_.group == 0 && options_.group * options_.bits % 8 == 0;
  if (options_.cut != GroupCut::kConsecutive || !whole) return nullptr;
  return std::make_unique<QuantoReader>(options_, heads_, tokens_of(parts), head_dim_, parts);
}

std::vector<at::Tensor> QuantoCodec::encode_with_ops(const at::Tensor& x) const {
  const ValueGroups groups = groups_of(x.size(1));
  const at::ScalarType type = options_.dtype;
  const double limit = largest_value(type);
  const at::Tensor values =
      nearest(groups.gather(flat_values("quanto", x, heads_, head_dim_)).clamp(-limit, limit), type);
  const int64_t whole = groups.full_groups * groups.full;
  std::vector<at::Tensor> lows, highs;
  for (const at::Tensor& part :
       {values.narrow(0, 0, whole).view({groups.full_groups, groups.full}),
        values.narrow(0, whole, values.numel() - whole).view({groups.rest_groups, groups.rest})})
    if (part.numel() > 0) {
      lows.push_back(part.amin(1));
      highs.push_back(part.amax(1));
    }
  const at::Tensor none = at::empty({0}, values.options());
  const at::Tensor low = lows.empty() ? none : at::cat(lows), high = highs.empty() ? none : at::cat(highs);
  const float top = top_of(options_.bits);
  const at::Tensor scale = nearest(nearest(high - low, type) / constant(top, values), type);
  const at::Tensor steps = nearest(nearest(values - groups.spread(low), type) / groups.spread(scale), type);
  const at::Tensor codes = at::where(steps > 0, steps, at::zeros_like(steps)).clamp_max(top).round().to(at::kByte);
  return {pack_stream(groups.scatter(codes), options_.bits), scale.to(type), low.neg().to(type)};
}

at::Tensor QuantoCodec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  const int64_t tokens = tokens_of(parts);
  const ValueGroups groups = groups_of(tokens);
  const at::Tensor codes = groups.gather(unpack_stream(parts[0], options_.bits, groups.values())).to(at::kFloat);
  const at::Tensor scaled = nearest(codes * groups.spread(parts[1].to(at::kFloat)), options_.dtype);
  const at::Tensor values = nearest(scaled - groups.spread(parts[2].to(at::kFloat)), options_.dtype);
  return groups.scatter(values).reshape({heads_, tokens, head_dim_});
}

}  // namespace kvsweep
