#include "schemes/codec/float8_cpu.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/bitpack.h"
#include "schemes/kernels/narrow_float.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

constexpr int64_t kLanes = 16, kBlock = 16;

// The largest magnitude; NaN when one is not finite.
KVSWEEP_INLINE float largest_of(const float* x, int64_t count) {
  float most[kLanes] = {}, poison[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) {
      const float magnitude = std::fabs(x[i + k]);
      most[k] = magnitude > most[k] ? magnitude : most[k];
      poison[k] += x[i + k] * 0.0F;
    }
  for (; i < count; ++i) {
    const float magnitude = std::fabs(x[i]);
    most[0] = magnitude > most[0] ? magnitude : most[0];
    poison[0] += x[i] * 0.0F;
  }
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
    for (int64_t k = 0; k < width; ++k) {
      most[k] = most[k + width] > most[k] ? most[k + width] : most[k];
      poison[k] += poison[k + width];
    }
  return most[0] + poison[0];
}

template <class Format>
KVSWEEP_INLINE bool encode(const float* x, int64_t count, bool scaled, float* scale, uint8_t* codes) {
  const float largest = largest_of(x, count);
  if (std::isnan(largest)) return false;
  if (!scaled) {
    for (int64_t i = 0; i < count; ++i) codes[i] = Format::encode(x[i] / *scale);
    return true;
  }
  const float wanted = largest / Format::kTop;
  *scale = wanted > kSmallestFloat8Scale ? wanted : kSmallestFloat8Scale;
  const float factor = 1 / *scale;
  for (int64_t i = 0; i < count; ++i) codes[i] = Format::encode(x[i] * factor);
  return true;
}

template <class Format>
KVSWEEP_INLINE void decode(const uint8_t* codes, int64_t count, float scale, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = Format::decode(codes[i]) * scale;
}

// Between two levels the one with the even code takes the tie.
KVSWEEP_INLINE uint32_t to_e2m1(float y) {
  const float m = std::fabs(y);
  const uint32_t code = uint32_t{m > 0.25F} + uint32_t{m >= 0.75F} + uint32_t{m > 1.25F} + uint32_t{m >= 1.75F} +
                        uint32_t{m > 2.5F} + uint32_t{m >= 3.5F} + uint32_t{m > 5.0F};
  return code | (y < 0 ? 8U : 0U);
}

// Two bits of exponent, one of mantissa; steps of 1/2 up to 1.
KVSWEEP_INLINE float from_e2m1(uint32_t code) {
  const uint32_t magnitude = code & 7;
  const float normal = std::bit_cast<float>((magnitude << 22) + (126U << 23));
  const float small = 0.5F * static_cast<float>(static_cast<int32_t>(magnitude));
  const float value = magnitude < 2 ? small : normal;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | (code & 8) << 28);
}

}  // namespace

KVSWEEP_CPU_CLONES bool float8_encode(const float* x, int64_t count, bool e5m2, bool scaled, float* scale,
                                      uint8_t* codes) {
  return e5m2 ? encode<E5M2>(x, count, scaled, scale, codes) : encode<E4M3>(x, count, scaled, scale, codes);
}

KVSWEEP_CPU_CLONES void float8_decode(const uint8_t* codes, int64_t count, bool e5m2, float scale, float* out) {
  if (e5m2)
    decode<E5M2>(codes, count, scale, out);
  else
    decode<E4M3>(codes, count, scale, out);
}

KVSWEEP_CPU_CLONES bool nvfp4_encode(const float* x, int64_t blocks, float tensor_scale, float smallest,
                                     bool ones_for_zeros, uint8_t* codes, uint8_t* scales) {
  constexpr int64_t kStep = 8;  // blocks that are packed at a time
  uint8_t unpacked[kStep * kBlock];
  bool ok = true;
  for (int64_t first = 0; first < blocks; first += kStep) {
    const int64_t count = std::min(kStep, blocks - first);
    float largest[kStep] = {}, step[kStep];
    uint8_t scale[kStep];
    for (int64_t b = 0; b < count; ++b) {
      largest[b] = largest_of(x + (first + b) * kBlock, kBlock);
      ok &= !std::isnan(largest[b]);
    }
    for (int64_t b = 0; b < kStep; ++b) {
      float wanted = largest[b] / 6 / tensor_scale;
      wanted = wanted > smallest ? wanted : smallest;
      wanted = ones_for_zeros && largest[b] == 0 ? 1 : wanted;
      scale[b] = E4M3::encode(wanted);
      step[b] = E4M3::decode(scale[b]) * tensor_scale;
    }
    for (int64_t b = 0; b < count; ++b) {
      const float* from = x + (first + b) * kBlock;
      uint32_t code[kBlock];
      for (int64_t i = 0; i < kBlock; ++i) code[i] = to_e2m1(from[i] / step[b]);
      for (int64_t i = 0; i < kBlock; ++i) unpacked[b * kBlock + i] = static_cast<uint8_t>(code[i]);
      scales[first + b] = scale[b];
    }
    pack_rows(unpacked, kBlock, count, kBlock, 4, codes + first * kBlock / 2, kBlock / 2);
  }
  return ok;
}

KVSWEEP_CPU_CLONES void nvfp4_decode(const uint8_t* codes, const uint8_t* scales, int64_t blocks, float tensor_scale,
                                     float* out) {
  for (int64_t b = 0; b < blocks; ++b, codes += kBlock / 2, out += kBlock) {
    const float step = E4M3::decode(scales[b]) * tensor_scale;
    uint8_t code[kBlock];  // here: a call for each block would cost five times the loop
    for (int64_t i = 0; i < kBlock / 2; ++i) {
      code[2 * i] = codes[i] & 15;
      code[2 * i + 1] = codes[i] >> 4;
    }
    for (int64_t i = 0; i < kBlock; ++i) out[i] = from_e2m1(code[i]) * step;
  }
}

}  // namespace kvsweep
