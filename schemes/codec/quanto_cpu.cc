#include "schemes/codec/quanto_cpu.h"

#include <algorithm>
#include <bit>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/bitpack.h"
#include "schemes/codec/narrow_tensor.h"
#include "schemes/codec/value_range.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer, half to even, in the lowest mantissa bits

template <c10::ScalarType kType>
KVSWEEP_INLINE float taken(float x, float limit) {
  x = x < -limit ? -limit : x;
  return nearest<kType>(x > limit ? limit : x);
}

template <c10::ScalarType kType>
KVSWEEP_INLINE void encode(const float* x, int64_t groups, int64_t count, float top, float* scale, float* shift,
                           uint8_t* codes) {
  const float limit = kType == at::kHalf ? 65504.0F : 0x1p125F;
  for (int64_t g = 0; g < groups; ++g, x += count, codes += count) {
    const ValueRange range = range_of(x, count);  // rounding keeps the order of values
    const float low = taken<kType>(range.low, limit), high = taken<kType>(range.high, limit);
    const float s = nearest<kType>(nearest<kType>(high - low) / top);
    scale[g] = s;
    shift[g] = -low;
    for (int64_t j = 0; j < count; ++j) {
      float y = nearest<kType>(nearest<kType>(taken<kType>(x[j], limit) - low) / s);
      y = y > 0 ? y : 0;  // also 0 / 0
      y = y < top ? y : top;
      codes[j] = static_cast<uint8_t>(std::bit_cast<uint32_t>(y + kRound));
    }
  }
}

template <c10::ScalarType kType, int kStep>
KVSWEEP_INLINE void decode(const uint8_t* codes, int64_t count, const float* scale, const float* shift, float* out) {
  for (int64_t j = 0; j < count; ++j)
    out[j] = nearest<kType>(nearest<kType>(static_cast<float>(codes[j]) * scale[kStep * j]) - shift[kStep * j]);
}

template <c10::ScalarType kType>
KVSWEEP_INLINE void decode(const uint8_t* codes, int64_t count, const float* scale, const float* shift, int64_t step,
                           float* out) {
  if (step == 0) {
    decode<kType, 0>(codes, count, scale, shift, out);
  } else {
    decode<kType, 1>(codes, count, scale, shift, out);
  }
}

// Metadata of a group as float32.
template <c10::ScalarType kType>
KVSWEEP_INLINE float widened(const void* stored, int64_t group) {
  if constexpr (kType == at::kFloat) return static_cast<const float*>(stored)[group];
  const uint16_t bits = static_cast<const uint16_t*>(stored)[group];
  if constexpr (kType == at::kBFloat16) return std::bit_cast<float>(uint32_t{bits} << 16);
  return half_to_float(bits);
}

template <c10::ScalarType kType>
KVSWEEP_INLINE void decode_rows(const uint8_t* packed, const void* scale, const void* shift, int64_t bits,
                                int64_t groups, int64_t group, float* out) {
  constexpr int64_t kMostCodes = 2048;  // that are unpacked at a time
  uint8_t codes[kMostCodes];
  const int64_t step = std::max<int64_t>(1, kMostCodes / group), bytes = group * bits / 8;
  for (int64_t first = 0; first < groups; first += step) {
    const int64_t count = std::min(step, groups - first);
    unpack_rows(packed + first * bytes, bytes, count, group, bits, codes, group);
    for (int64_t g = 0; g < count; ++g) {
      const float s = widened<kType>(scale, first + g), z = widened<kType>(shift, first + g);
      const uint8_t* from = codes + g * group;
      float* to = out + (first + g) * group;
      for (int64_t i = 0; i < group; ++i) to[i] = nearest<kType>(nearest<kType>(static_cast<float>(from[i]) * s) - z);
    }
  }
}

}  // namespace

KVSWEEP_CPU_CLONES void quanto_decode_rows(const uint8_t* packed, const void* scale, const void* shift,
                                           c10::ScalarType dtype, int64_t bits, int64_t rows, int64_t dim,
                                           int64_t group, float* out) {
  const int64_t groups = rows * dim / group;
  if (dtype == at::kHalf) {
    decode_rows<at::kHalf>(packed, scale, shift, bits, groups, group, out);
  } else if (dtype == at::kBFloat16) {
    decode_rows<at::kBFloat16>(packed, scale, shift, bits, groups, group, out);
  } else {
    decode_rows<at::kFloat>(packed, scale, shift, bits, groups, group, out);
  }
}

KVSWEEP_CPU_CLONES void quanto_encode_groups(const float* x, int64_t groups, int64_t count, float top,
                                             c10::ScalarType dtype, float* scale, float* shift, uint8_t* codes) {
  if (dtype == at::kHalf) {
    encode<at::kHalf>(x, groups, count, top, scale, shift, codes);
  } else if (dtype == at::kBFloat16) {
    encode<at::kBFloat16>(x, groups, count, top, scale, shift, codes);
  } else {
    encode<at::kFloat>(x, groups, count, top, scale, shift, codes);
  }
}

KVSWEEP_CPU_CLONES void quanto_decode_segment(const uint8_t* codes, int64_t count, c10::ScalarType dtype,
                                              const float* scale, const float* shift, int64_t step, float* out) {
  if (dtype == at::kHalf) {
    decode<at::kHalf>(codes, count, scale, shift, step, out);
  } else if (dtype == at::kBFloat16) {
    decode<at::kBFloat16>(codes, count, scale, shift, step, out);
  } else {
    decode<at::kFloat>(codes, count, scale, shift, step, out);
  }
}

}  // namespace kvsweep
