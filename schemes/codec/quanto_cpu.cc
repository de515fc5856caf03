#include "schemes/codec/quanto_cpu.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "harness/core/cpu_clones.h"
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
  float lows[kRangeRows], highs[kRangeRows];
  for (int64_t g = 0; g < groups; ++g, x += count, codes += count) {
    const int64_t row = g % kRangeRows;
    if (row == 0) ranges_of(x, count, std::min(kRangeRows, groups - g), count, lows, highs);
    // Rounding keeps the order of values.
    const float low = taken<kType>(lows[row], limit), high = taken<kType>(highs[row], limit);
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

constexpr int64_t kLanes = 8;
using Lanes = float __attribute__((vector_size(4 * kLanes)));
using IntLanes = uint32_t __attribute__((vector_size(4 * kLanes)));

// A group has no more values than there are codes: each is rounded once, and eight codes at a time choose among them.
template <c10::ScalarType kType, int kBits>
KVSWEEP_INLINE void decode_rows(const uint8_t* packed, const void* scale, const void* shift, int64_t groups,
                                int64_t group, float* out) {
  constexpr uint32_t kMask = (1U << kBits) - 1;
  constexpr int kLevels = kBits == 2 ? kLanes : 2 * kLanes;         // whole vectors
  using Word = std::conditional_t<kBits == 2, uint16_t, uint32_t>;  // eight codes
  static_assert(sizeof(Word) == kBits && std::endian::native == std::endian::little);
  const IntLanes places = {0, kBits, 2 * kBits, 3 * kBits, 4 * kBits, 5 * kBits, 6 * kBits, 7 * kBits};
  const int64_t words = group / kLanes;
  for (int64_t g = 0; g < groups; ++g, packed += group * kBits / 8, out += group) {
    const float s = widened<kType>(scale, g), z = widened<kType>(shift, g);
    alignas(64) float values[2 * kLanes];
#pragma GCC unroll 1  // as a loop it vectorises
    for (int i = 0; i < kLevels; ++i) values[i] = nearest<kType>(nearest<kType>(static_cast<float>(i) * s) - z);
    Lanes levels[2];
    std::memcpy(levels, values, sizeof(levels));
    for (int64_t i = 0; i < words; ++i) {
      Word word;
      std::memcpy(&word, packed + i * kBits, sizeof(word));
      const IntLanes codes = (IntLanes{} + word) >> places & kMask;
      const Lanes y = kBits == 2 ? __builtin_shuffle(levels[0], codes) : __builtin_shuffle(levels[0], levels[1], codes);
      std::memcpy(out + i * kLanes, &y, sizeof(y));
    }
    for (int64_t i = words * kLanes; i < group; ++i) out[i] = values[packed[i * kBits / 8] >> (i * kBits % 8) & kMask];
  }
}

template <c10::ScalarType kType>
KVSWEEP_INLINE void decode_rows(const uint8_t* packed, const void* scale, const void* shift, int64_t bits,
                                int64_t groups, int64_t group, float* out) {
  if (bits == 2) {
    decode_rows<kType, 2>(packed, scale, shift, groups, group, out);
  } else {
    decode_rows<kType, 4>(packed, scale, shift, groups, group, out);
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
