#include "schemes/kernels/ggml.h"

#include <limits>
#include <type_traits>

#include "schemes/kernels/device.cuh"

namespace kvsweep {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();

__constant__ std::array<float, 16> kIq4NlTable = kIq4NlLevels;
__constant__ std::array<float, 16> kNvfp4Table = kNvfp4Levels;
__constant__ std::array<float, 128> kUe4m3Table = kUe4m3Halves;

constexpr int block_values(GgmlType type) {
  return type == GgmlType::kNvfp4 ? 16 : 32;  // NVFP4: those of a scale
}
constexpr bool has_min(GgmlType type) {
  return type == GgmlType::kQ4_1 || type == GgmlType::kQ5_1;
}
constexpr bool has_high(GgmlType type) {
  return type == GgmlType::kQ5_0 || type == GgmlType::kQ5_1;
}
constexpr int top_code(GgmlType type) {
  return has_high(type) ? 31 : 15;
}
// Of the types without a minimum.
constexpr int zero_code(GgmlType type) {
  return (top_code(type) + 1) / 2;
}

struct Range {
  float low, high;
  bool usable;
};

__device__ Range range_of(const float (&x)[kOctet], int lanes) {
  float low = x[0], high = x[0], poison = 0;
#pragma unroll
  for (const float value : x) {
    low = value < low ? value : low;
    high = value > high ? value : high;
    poison += value * 0.0F;
  }
  low = team_merge(low, lanes, [](float a, float b) { return b < a ? b : a; });
  high = team_max(high, lanes);
  poison = team_merge(poison, lanes, [](float a, float b) { return a + b; });
  return {low, high, poison == 0 && high - low <= kLargest / 2};
}

// The first value of the largest magnitude, of a block of 32.
__device__ float peak_of(const float (&x)[kOctet], const Range& range, int lane) {
  int first = 64;  // twice the place, odd when the value there is negative
#pragma unroll
  for (int i = kOctet - 1; i >= 0; --i)
    if (fabsf(x[i]) == range.high) first = 2 * (lane * kOctet + i) + (x[i] < 0 ? 1 : 0);
  first = team_merge(first, 4, [](int a, int b) { return b < a ? b : a; });
  if (range.high != -range.low) return range.high > -range.low ? range.high : range.low;
  if (range.high == 0) return 0;
  return (first & 1) != 0 ? -range.high : range.high;
}

__device__ float reciprocal_or_zero(float d) {
  const float id = 1 / d;
  return fabsf(id) <= kLargest ? id : 0;
}

__device__ void store_scale(void* scale, int64_t block, float d, bool usable) {
  static_cast<__half*>(scale)[block] =
      __float2half_rn(usable ? saturated(d, FloatType::kHalf) : std::numeric_limits<float>::quiet_NaN());
}

// A sum over the 32 values of a block in their order.
__device__ float ordered_sum(const float (&x)[kOctet], int lane) {
  float sum = 0;
#pragma unroll
  for (int turn = 0; turn < 4; ++turn) {
    float mine = sum;
#pragma unroll
    for (const float value : x) mine = mine + value;
    sum = __shfl_sync(kWarp, mine, turn, 4);
  }
  return sum;
}

__device__ float encode_iq4_nl(const float (&x)[kOctet], const Range& range, int lane, uint32_t (&q)[kOctet]) {
  const float peak = peak_of(x, range, lane), first = peak / kIq4NlTable[0];
  const bool empty = fabsf(peak) < kIq4NlEmpty;
  const float id = empty ? 0 : 1 / first;
  float top_of[kOctet], bottom_of[kOctet];
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    const float y = x[i] * id;
    q[i] = 0;
#pragma unroll
    for (int k = 1; k < 16; ++k) q[i] += y + y >= kIq4NlTable[k - 1] + kIq4NlTable[k] ? 1 : 0;
    const float level = kIq4NlTable[q[i]], weighted = x[i] * x[i] * level;
    top_of[i] = weighted * x[i];
    bottom_of[i] = weighted * level;
  }
  const float top = ordered_sum(top_of, lane), bottom = ordered_sum(bottom_of, lane);
  if (empty) return 0;
  const float d = top / bottom;
  return fabsf(d) <= kLargest ? d : first;
}

__device__ uint8_t to_ue4m3(float x) {
  if (!(x > 0)) return 0;
  if (x >= 256) return kUe4m3Top;
  if (x < 0x1p-6F) return static_cast<uint8_t>(min(static_cast<int>(x * 512 + 0.5F), 7));
  const uint32_t rounded = (__float_as_uint(x) + (1U << 19)) >> 20;  // exponent, three bits of mantissa
  return static_cast<uint8_t>(min(rounded - (120U << 3), static_cast<uint32_t>(kUe4m3Top)));
}

__device__ uint8_t encode_nvfp4(const float (&x)[kOctet], const Range& range, uint32_t (&q)[kOctet]) {
  const uint8_t scale = to_ue4m3((range.high < -range.low ? -range.low : range.high) / 6);
  const float d = kUe4m3Table[scale];
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    const float magnitude = fabsf(x[i]);
    float nearest = magnitude;
    q[i] = 0;
#pragma unroll
    for (int k = 1; k < 8; ++k) {
      const float error = fabsf(kNvfp4Table[k] * d - magnitude);
      if (error < nearest) {
        nearest = error;
        q[i] = k;
      }
    }
    if (x[i] < 0 && q[i] != 0) q[i] |= 8;
  }
  return scale;
}

template <GgmlType kType>
__global__ void __launch_bounds__(kThreads) encode(GgmlEncode job, int octets) {
  constexpr int kValues = block_values(kType), kLanes = kValues / kOctet;
  const int at = blockIdx.x * kThreads + threadIdx.x, lane = at % kLanes;
  const bool valid = at < octets;
  const OctetPlace place(min(at, octets - 1), job.x.tokens, job.x.dim);
  const int64_t block = (place.row * job.x.dim + place.channel) / kValues;
  float x[kOctet];
  load_octet(job.x, place, x);
  const Range range = range_of(x, kLanes);
  uint32_t q[kOctet];
  if constexpr (kType == GgmlType::kQ8_0) {
    const float d = (range.high < -range.low ? -range.low : range.high) / 127, id = reciprocal_or_zero(d);
    uint64_t word = 0;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      const float y = x[i] * id;
      const int whole = static_cast<int>(y);
      const float rest = y - static_cast<float>(whole);
      const int code = whole + (rest >= 0.5F ? 1 : 0) - (rest <= -0.5F ? 1 : 0);
      word |= static_cast<uint64_t>(static_cast<uint8_t>(code)) << (8 * i);
    }
    if (valid) store_bytes(job.codes + block * 32 + lane * kOctet, kOctet, word);
    if (valid && lane == 0) store_scale(job.scale, block, d, range.usable);
    return;
  }
  if constexpr (kType == GgmlType::kNvfp4) {
    const uint8_t scale = encode_nvfp4(x, range, q);
    if (valid && lane == 0) static_cast<uint8_t*>(job.scale)[block] = scale;
  } else {
    float d;
    if constexpr (kType == GgmlType::kIq4Nl) {
      d = encode_iq4_nl(x, range, lane, q);
    } else {
      d = has_min(kType) ? (range.high - range.low) / top_code(kType) : peak_of(x, range, lane) / -zero_code(kType);
      const float id = reciprocal_or_zero(d), half = has_min(kType) ? 0.5F : zero_code(kType) + 0.5F;
#pragma unroll
      for (int i = 0; i < kOctet; ++i)
        q[i] = min(static_cast<int>((has_min(kType) ? x[i] - range.low : x[i]) * id + half), top_code(kType));
      if (has_min(kType) && valid && lane == 0) store_scale(job.min, block, range.low, true);
    }
    if (valid && lane == 0) store_scale(job.scale, block, d, range.usable);
  }
  // Half of the threads have low nibbles; the others pass theirs on.
  uint32_t nibbles = 0, high = 0;
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    nibbles |= (q[i] & 15) << (4 * i);
    high |= (q[i] >> 4 & 1) << i;
  }
  const uint32_t upper = __shfl_down_sync(kWarp, nibbles, kLanes / 2);
  if (!valid) return;
  if (has_high(kType)) job.high[block * 4 + lane] = static_cast<uint8_t>(high);
  if (lane >= kLanes / 2) return;
  uint64_t word = 0;
#pragma unroll
  for (int i = 0; i < kOctet; ++i)
    word |= static_cast<uint64_t>((nibbles >> (4 * i) & 15) | (upper >> (4 * i) & 15) << 4) << (8 * i);
  store_bytes(job.codes + block * (kValues / 2) + lane * kOctet, kOctet, word);
}

template <GgmlType kType>
__global__ void __launch_bounds__(kThreads) decode(GgmlDecode job, int octets) {
  constexpr int kValues = block_values(kType), kLanes = kValues / kOctet;
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= octets) return;
  const OctetPlace place(at, job.tokens, job.dim);
  const int lane = at % kLanes;
  const int64_t block = (place.token * job.dim + place.channel) / kValues;  // of the head
  const auto* codes = static_cast<const uint8_t*>(job.codes.data) + place.head * job.codes.head_stride;
  const auto half_at = [&](const DevicePart& part) {
    return __half2float(static_cast<const __half*>(part.data)[place.head * part.head_stride + block]);
  };
  float values[kOctet];
  if constexpr (kType == GgmlType::kQ8_0) {
    const uint64_t word = load_bytes(codes + block * 32 + lane * kOctet, kOctet);
    const float scale = half_at(job.scale);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) values[i] = static_cast<float>(static_cast<int8_t>(word >> (8 * i))) * scale;
  } else {
    constexpr int kHalf = kLanes / 2;
    const uint64_t word = load_bytes(codes + block * (kValues / 2) + lane % kHalf * kOctet, kOctet);
    const int shift = lane < kHalf ? 0 : 4;
    uint32_t q[kOctet];
#pragma unroll
    for (int i = 0; i < kOctet; ++i) q[i] = static_cast<uint32_t>(word >> (8 * i + shift)) & 15;
    if constexpr (has_high(kType)) {
      const uint32_t high =
          static_cast<const uint8_t*>(job.high.data)[place.head * job.high.head_stride + block * 4 + lane];
#pragma unroll
      for (int i = 0; i < kOctet; ++i) q[i] |= (high >> i & 1) << 4;
    }
    float scale;
    if constexpr (kType == GgmlType::kNvfp4)
      scale = kUe4m3Table[static_cast<const uint8_t*>(job.scale.data)[place.head * job.scale.head_stride + block]];
    else
      scale = half_at(job.scale);
    const float low = has_min(kType) ? half_at(job.min) : 0;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      if constexpr (kType == GgmlType::kNvfp4)
        values[i] = kNvfp4Table[q[i]] * scale;
      else if constexpr (kType == GgmlType::kIq4Nl)
        values[i] = kIq4NlTable[q[i]] * scale;
      else if constexpr (has_min(kType))
        values[i] = static_cast<float>(q[i]) * scale + low;
      else
        values[i] = static_cast<float>(static_cast<int>(q[i]) - zero_code(kType)) * scale;
    }
  }
  store_octet(job.out + place.row * job.dim + place.channel, kOctet, values);
}

// Calls work(a type's constant) for a type with blocks.
template <class Work>
void with_type(GgmlType type, const Work& work) {
  switch (type) {
    case GgmlType::kQ8_0:
      return work(std::integral_constant<GgmlType, GgmlType::kQ8_0>());
    case GgmlType::kQ4_0:
      return work(std::integral_constant<GgmlType, GgmlType::kQ4_0>());
    case GgmlType::kQ4_1:
      return work(std::integral_constant<GgmlType, GgmlType::kQ4_1>());
    case GgmlType::kQ5_0:
      return work(std::integral_constant<GgmlType, GgmlType::kQ5_0>());
    case GgmlType::kQ5_1:
      return work(std::integral_constant<GgmlType, GgmlType::kQ5_1>());
    case GgmlType::kIq4Nl:
      return work(std::integral_constant<GgmlType, GgmlType::kIq4Nl>());
    default:
      return work(std::integral_constant<GgmlType, GgmlType::kNvfp4>());
  }
}

}  // namespace

void ggml_encode_cuda(const GgmlEncode& job, void* stream) {
  const int octets = octet_count(job.x.heads, job.x.tokens, job.x.dim);
  with_type(job.type, [&](auto type) {
    encode<type.value><<<ceil_div(octets, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job, octets);
  });
}

void ggml_decode_cuda(const GgmlDecode& job, void* stream) {
  const int octets = octet_count(job.heads, job.tokens, job.dim);
  with_type(job.type, [&](auto type) {
    decode<type.value><<<ceil_div(octets, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job, octets);
  });
}

}  // namespace kvsweep
