#include "schemes/kernels/affine.h"

#include "schemes/kernels/device.cuh"

namespace kvsweep {
namespace {

constexpr int kTile = 2048;   // values of a block, about: one octet for each thread
constexpr int kColumns = 32;  // channels of a block, groups along tokens
constexpr int kRows = kThreads / kColumns;

struct Range {
  float low, high, poison;  // poison: NaN when a value was NaN or infinite, else zero

  __device__ void add(float x) {
    low = x < low ? x : low;
    high = x > high ? x : high;
    poison += x * 0.0F;
  }
  __device__ void add(const Range& other) {
    low = other.low < low ? other.low : low;
    high = other.high > high ? other.high : high;
    poison += other.poison;
  }
};

constexpr Range kNone{std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), 0};

// Stores the metadata of group `at` and returns what its codes are made with.
template <class A, AffineForm kForm>
__device__ float2 store_levels(const AffineEncode& job, int64_t at, const Range& range) {
  const bool usable = range.poison == 0 && range.high - range.low <= std::numeric_limits<float>::max() / 2;
  AffineLevels levels{};
  if (usable) levels = affine_levels<A, kForm>(job.shape, range.low, range.high);
  store_float(job.scale, at, job.shape.metadata, usable ? levels.scale : std::numeric_limits<float>::quiet_NaN());
  if (job.zero != nullptr) store_float(job.zero, at, job.shape.metadata, levels.zero);
  return {levels.divisor, levels.shift};
}

template <class A, AffineForm kForm, class LevelsAt>
__device__ void store_codes(const AffineEncode& job, const float (&x)[kOctet], int count, uint8_t* to,
                            const LevelsAt& levels_at) {
  const float low = -job.shape.offset, high = job.shape.top - job.shape.offset;
  const auto offset = static_cast<uint32_t>(job.shape.offset);
  const int bits = static_cast<int>(job.shape.bits);
  uint64_t word = 0;
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    if (i >= count) break;
    const float2 levels = levels_at(i);
    const uint64_t code = affine_code<A, kForm>(x[i], levels.x, levels.y, low, high, offset);
    word |= code << (i * bits);
  }
  store_bytes(to, ceil_div(count * bits, 8), word);
}

// A block: `rows` tokens, whole rows. `lanes` neighbouring threads find a group's range, `unit` values at a time.
template <class A, AffineForm kForm>
__global__ void __launch_bounds__(kThreads) encode_token_groups(AffineEncode job, int rows, int lanes, int unit) {
  extern __shared__ float2 levels[];
  const int tokens = static_cast<int>(job.x.tokens), dim = static_cast<int>(job.x.dim);
  const int group = static_cast<int>(job.shape.group), bits = static_cast<int>(job.shape.bits);
  const int first = blockIdx.x * rows, a_row = dim / group;
  rows = min(rows, static_cast<int>(job.x.heads) * tokens - first);
  const auto start = [&](int row) {
    return (first + row) / tokens * job.x.head_stride + (first + row) % tokens * job.x.token_stride;
  };
  const int groups = rows * a_row, lane = threadIdx.x % lanes;
  for (int base = 0; base < groups; base += kThreads / lanes) {
    const int at = base + threadIdx.x / lanes;
    Range range = kNone;
    if (at < groups) {
      const int64_t from = start(at / a_row) + at % a_row * group;
      for (int i = lane * unit; i < group; i += lanes * unit) {
        float x[kOctet];
        load_octet(job.x.data, from + i, job.x.type, unit, x);
#pragma unroll
        for (int k = 0; k < kOctet; ++k)
          if (k < unit) range.add(x[k]);
      }
    }
    for (int step = lanes / 2; step > 0; step /= 2)
      range.add({__shfl_xor_sync(kWarp, range.low, step), __shfl_xor_sync(kWarp, range.high, step),
                 __shfl_xor_sync(kWarp, range.poison, step)});
    if (at < groups && lane == 0)
      levels[at] = store_levels<A, kForm>(job, static_cast<int64_t>(first) * a_row + at, range);
  }
  __syncthreads();
  const int octets = ceil_div(dim, kOctet), bytes = ceil_div(dim * bits, 8);
  for (int i = threadIdx.x; i < rows * octets; i += kThreads) {
    const int row = i / octets, channel = i % octets * kOctet, count = min(kOctet, dim - channel);
    float x[kOctet];
    load_octet(job.x.data, start(row) + channel, job.x.type, count, x);
    const float2* of_row = levels + row * a_row;
    uint8_t* to = job.codes + static_cast<int64_t>(first + row) * bytes + channel / kOctet * bits;
    int at = channel / group, left = group - channel % group;
    store_codes<A, kForm>(job, x, count, to, [&](int) {
      const float2 found = of_row[at];
      if (--left == 0) left = group, ++at;
      return found;
    });
  }
}

// A block: kColumns channels of one group.
template <class A, AffineForm kForm>
__global__ void __launch_bounds__(kThreads) encode_channel_groups(AffineEncode job) {
  __shared__ Range ranges[kRows][kColumns];
  __shared__ float2 levels[kColumns];
  const int group = static_cast<int>(job.shape.group), dim = static_cast<int>(job.x.dim);
  const int bits = static_cast<int>(job.shape.bits), a_head = static_cast<int>(job.x.tokens) / group;
  const int first = blockIdx.y * kColumns, columns = min(kColumns, dim - first);
  const int64_t from =
      blockIdx.x / a_head * job.x.head_stride + blockIdx.x % a_head * group * job.x.token_stride + first;
  const int column = threadIdx.x % kColumns, row = threadIdx.x / kColumns;
  if (column < columns) {
    Range range = kNone;
#pragma unroll 4
    for (int t = row; t < group; t += kRows)
      range.add(load_float(job.x.data, from + t * job.x.token_stride + column, job.x.type));
    ranges[row][column] = range;
  }
  __syncthreads();
  if (row == 0 && column < columns) {
    Range range = ranges[0][column];
    for (int r = 1; r < kRows; ++r) range.add(ranges[r][column]);
    levels[column] = store_levels<A, kForm>(job, static_cast<int64_t>(blockIdx.x) * dim + first + column, range);
  }
  __syncthreads();
  const int octets = ceil_div(columns, kOctet), bytes = ceil_div(dim * bits, 8);
  for (int i = threadIdx.x; i < group * octets; i += kThreads) {
    const int t = i / octets, channel = i % octets * kOctet, count = min(kOctet, columns - channel);
    float x[kOctet];
    load_octet(job.x.data, from + t * job.x.token_stride + channel, job.x.type, count, x);
    uint8_t* to =
        job.codes + (static_cast<int64_t>(blockIdx.x) * group + t) * bytes + (first + channel) / kOctet * bits;
    store_codes<A, kForm>(job, x, count, to, [&](int k) { return levels[channel + k]; });
  }
}

template <class A, AffineForm kForm>
__global__ void __launch_bounds__(kThreads) decode_octets(AffineDecode job, int octets) {
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= octets) return;
  const OctetPlace place(at, job.tokens, job.shape.dim);
  const int dim = static_cast<int>(job.shape.dim), group = static_cast<int>(job.shape.group);
  const int bits = static_cast<int>(job.shape.bits), bytes = ceil_div(dim * bits, 8);
  const bool channel_axis = job.shape.axis == GroupAxis::kChannel;
  const auto* codes = static_cast<const uint8_t*>(job.codes.data) + place.head * job.codes.head_stride;
  const uint64_t word = load_bytes(codes + static_cast<int64_t>(place.token) * bytes + place.channel / kOctet * bits,
                                   ceil_div(place.count * bits, 8));
  const int64_t metadata = channel_axis ? static_cast<int64_t>(place.token / group) * dim + place.channel
                                        : static_cast<int64_t>(place.token) * (dim / group) + place.channel / group;
  const int64_t scale_at = place.head * job.scale.head_stride + metadata;
  const int64_t zero_at = place.head * job.zero.head_stride + metadata;
  int left = channel_axis ? 1 : group - place.channel % group, of = 0;
  float scale = 0, zero = 0, values[kOctet];
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    if (i >= place.count) break;
    if (i == 0 || left == 0) {
      scale = load_float(job.scale.data, scale_at + of, job.shape.metadata);
      if (job.zero.data != nullptr) zero = load_float(job.zero.data, zero_at + of, job.shape.metadata);
      ++of;
      if (left == 0) left = channel_axis ? 1 : group;
    }
    --left;
    const auto code = static_cast<uint8_t>(word >> (i * bits) & ((1U << bits) - 1));
    values[i] = affine_value<A, kForm>(code, job.shape.offset, scale, zero);
  }
  store_octet(job.out + static_cast<int64_t>(place.row) * dim + place.channel, place.count, values);
}

template <class A, AffineForm kForm>
void encode(const AffineEncode& job, cudaStream_t stream) {
  const int dim = static_cast<int>(job.x.dim), group = static_cast<int>(job.shape.group);
  const int rows = static_cast<int>(job.x.heads * job.x.tokens);
  if (job.shape.axis == GroupAxis::kChannel) {
    encode_channel_groups<A, kForm><<<dim3(rows / group, ceil_div(dim, kColumns)), kThreads, 0, stream>>>(job);
    return;
  }
  const int a_block = kTile < dim ? 1 : kTile / dim;
  const int unit = group % kOctet == 0 ? kOctet : 1;
  const size_t shared = sizeof(float2) * static_cast<size_t>(a_block * (dim / group));
  encode_token_groups<A, kForm>
      <<<ceil_div(rows, a_block), kThreads, shared, stream>>>(job, a_block, team_size(group / unit), unit);
}

template <class A, AffineForm kForm>
void decode(const AffineDecode& job, cudaStream_t stream) {
  const int octets = octet_count(job.heads, job.tokens, job.shape.dim);
  decode_octets<A, kForm><<<ceil_div(octets, kThreads), kThreads, 0, stream>>>(job, octets);
}

}  // namespace

void affine_encode_cuda(const AffineEncode& job, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const bool half = job.shape.half_arithmetic;
  switch (job.shape.form) {
    case AffineForm::kReciprocal:
      return half ? encode<HalfArithmetic, AffineForm::kReciprocal>(job, on)
                  : encode<SingleArithmetic, AffineForm::kReciprocal>(job, on);
    case AffineForm::kZeroPoint:
      return half ? encode<HalfArithmetic, AffineForm::kZeroPoint>(job, on)
                  : encode<SingleArithmetic, AffineForm::kZeroPoint>(job, on);
    default:
      return half ? encode<HalfArithmetic, AffineForm::kMinimum>(job, on)
                  : encode<SingleArithmetic, AffineForm::kMinimum>(job, on);
  }
}

void affine_decode_cuda(const AffineDecode& job, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const bool half = job.shape.half_arithmetic;
  if (job.shape.form == AffineForm::kZeroPoint)
    return half ? decode<HalfArithmetic, AffineForm::kZeroPoint>(job, on)
                : decode<SingleArithmetic, AffineForm::kZeroPoint>(job, on);
  return half ? decode<HalfArithmetic, AffineForm::kMinimum>(job, on)
              : decode<SingleArithmetic, AffineForm::kMinimum>(job, on);
}

}  // namespace kvsweep
