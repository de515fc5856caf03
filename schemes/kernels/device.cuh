#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "schemes/kernels/rows.h"

namespace kvsweep {

constexpr int kOctet = 8;  // neighbouring channels that a thread takes together: their codes fill whole bytes
constexpr int kThreads = 256;
constexpr unsigned kWarp = 0xffffffff;

__host__ __device__ constexpr int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

__device__ __forceinline__ float load_float(const void* data, int64_t at, FloatType type) {
  if (type == FloatType::kHalf) return __half2float(static_cast<const __half*>(data)[at]);
  if (type == FloatType::kBFloat16) return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[at]);
  return static_cast<const float*>(data)[at];
}

// x: a value of the type.
__device__ __forceinline__ void store_float(void* data, int64_t at, FloatType type, float x) {
  if (type == FloatType::kHalf)
    static_cast<__half*>(data)[at] = __float2half_rn(x);
  else if (type == FloatType::kBFloat16)
    static_cast<__nv_bfloat16*>(data)[at] = __float2bfloat16_rn(x);
  else
    static_cast<float*>(data)[at] = x;
}

// codec/narrow_tensor.h: a result of arithmetic in the type (fp16's may leave its range), and what it takes in.
__device__ __forceinline__ float narrow_result(float x, FloatType type) {
  return type == FloatType::kHalf ? nearest_half_unbounded(x) : nearest(x, type);
}

__device__ __forceinline__ float narrow_input(float x, FloatType type) {
  const float limit = type == FloatType::kHalf ? kLargestHalf : 0x1p125F;
  return narrow_result(x < -limit ? -limit : x > limit ? limit : x, type);
}

__device__ __forceinline__ bool aligned(const void* data, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

// The `count` values from `at` on, zeros behind them.
__device__ __forceinline__ void load_octet(const void* data, int64_t at, FloatType type, int count,
                                           float (&x)[kOctet]) {
  if (type == FloatType::kFloat) {
    const float* from = static_cast<const float*>(data) + at;
    if (count == kOctet && aligned(from, 16)) {
      const float4 a = *reinterpret_cast<const float4*>(from), b = *reinterpret_cast<const float4*>(from + 4);
      x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
      return;
    }
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(data) + at;
    if (count == kOctet && aligned(from, 16)) {
      const uint4 word = *reinterpret_cast<const uint4*>(from);
      const uint32_t words[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        const auto bits = static_cast<uint16_t>(words[i / 2] >> (16 * (i % 2)));
        x[i] = type == FloatType::kHalf ? __half2float(__ushort_as_half(bits))
                                        : __uint_as_float(static_cast<uint32_t>(bits) << 16);
      }
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < kOctet; ++i) x[i] = i < count ? load_float(data, at + i, type) : 0;
}

__device__ __forceinline__ void store_octet(float* to, int count, const float (&x)[kOctet]) {
  if (count == kOctet && aligned(to, 16)) {
    *reinterpret_cast<float4*>(to) = make_float4(x[0], x[1], x[2], x[3]);
    *reinterpret_cast<float4*>(to + 4) = make_float4(x[4], x[5], x[6], x[7]);
    return;
  }
#pragma unroll
  for (int i = 0; i < kOctet; ++i)
    if (i < count) to[i] = x[i];
}

// The lowest `bytes` bytes of a word, at most 8, lowest first.
__device__ __forceinline__ void store_bytes(uint8_t* to, int bytes, uint64_t word) {
  if (bytes == 4 && aligned(to, 4))
    *reinterpret_cast<uint32_t*>(to) = static_cast<uint32_t>(word);
  else if (bytes == 2 && aligned(to, 2))
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(word);
  else if (bytes == 8 && aligned(to, 8))
    *reinterpret_cast<uint64_t*>(to) = word;
  else
    for (int i = 0; i < bytes; ++i) to[i] = static_cast<uint8_t>(word >> (8 * i));
}

__device__ __forceinline__ uint64_t load_bytes(const uint8_t* from, int bytes) {
  if (bytes == 4 && aligned(from, 4)) return *reinterpret_cast<const uint32_t*>(from);
  if (bytes == 2 && aligned(from, 2)) return *reinterpret_cast<const uint16_t*>(from);
  if (bytes == 8 && aligned(from, 8)) return *reinterpret_cast<const uint64_t*>(from);
  uint64_t word = 0;
  for (int i = 0; i < bytes; ++i) word |= static_cast<uint64_t>(from[i]) << (8 * i);
  return word;
}

// A thread's octet, when threads take the octets of [H, T, D] one after the other.
struct OctetPlace {
  int row, head, token, channel, count;  // row: of [H * T]

  __device__ OctetPlace(int at, int64_t tokens, int64_t dim) {
    const int octets = ceil_div(static_cast<int>(dim), kOctet);
    row = at / octets;
    channel = at % octets * kOctet;
    count = min(kOctet, static_cast<int>(dim) - channel);
    head = row / static_cast<int>(tokens);
    token = row % static_cast<int>(tokens);
  }
};

inline int octet_count(int64_t heads, int64_t tokens, int64_t dim) {
  return static_cast<int>(heads * tokens) * ceil_div(static_cast<int>(dim), kOctet);
}

// The largest power of two up to `most` and a warp.
inline int team_size(int64_t most) {
  int lanes = 1;
  while (lanes < 32 && 2 * lanes <= most) lanes *= 2;
  return lanes;
}

__device__ __forceinline__ void load_octet(const DeviceRows& rows, const OctetPlace& place, float (&x)[kOctet]) {
  load_octet(rows.data, place.head * rows.head_stride + place.token * rows.token_stride + place.channel, rows.type,
             place.count, x);
}

// Over `lanes` neighbouring threads, a power of two up to 32; each gets the result.
template <class T, class Merge>
__device__ __forceinline__ T team_merge(T x, int lanes, const Merge& merge) {
  for (int step = lanes / 2; step > 0; step /= 2) x = merge(x, __shfl_xor_sync(kWarp, x, step));
  return x;
}

__device__ __forceinline__ float team_max(float x, int lanes) {
  return team_merge(x, lanes, [](float a, float b) { return a < b ? b : a; });
}

}  // namespace kvsweep
