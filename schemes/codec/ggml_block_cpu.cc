#include "schemes/codec/ggml_block_cpu.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "harness/core/cpu_clones.h"
#include "schemes/kernels/narrow_float.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

constexpr int kBlock = 32, kHalf = kBlock / 2;

template <GgmlType kType>
struct Traits {
  static constexpr bool kHasMin = kType == GgmlType::kQ4_1 || kType == GgmlType::kQ5_1;
  static constexpr bool kHasHigh = kType == GgmlType::kQ5_0 || kType == GgmlType::kQ5_1;
  static constexpr bool kEight = kType == GgmlType::kQ8_0;
  static constexpr int kCodeBytes = kEight ? kBlock : kHalf;
  static constexpr int kTop = kHasHigh ? 31 : 15;
  static constexpr int kZeroCode = (kTop + 1) / 2;  // of the types without a minimum
};

struct Range {
  float low, high;
  bool usable;
};

template <int kValues>
KVSWEEP_INLINE Range range_of(const float* x) {
  constexpr int kLanes = 16;
  float low[kLanes], high[kLanes], poison[kLanes];
  for (int k = 0; k < kLanes; ++k) {
    low[k] = high[k] = x[k];
    poison[k] = x[k] * 0.0F;
  }
  for (int i = kLanes; i < kValues; i += kLanes)
#pragma GCC unroll 1  // as a loop it vectorises
    for (int k = 0; k < kLanes; ++k) {
      low[k] = x[i + k] < low[k] ? x[i + k] : low[k];
      high[k] = x[i + k] > high[k] ? x[i + k] : high[k];
      poison[k] += x[i + k] * 0.0F;
    }
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k) {
      low[k] = low[k + width] < low[k] ? low[k + width] : low[k];
      high[k] = high[k + width] > high[k] ? high[k + width] : high[k];
      poison[k] += poison[k + width];
    }
  return {low[0], high[0], poison[0] == 0 && high[0] - low[0] <= std::numeric_limits<float>::max() / 2};
}

KVSWEEP_INLINE float peak_of(const float* x, const Range& range) {
  if (range.high != -range.low) return range.high > -range.low ? range.high : range.low;
  if (range.high == 0) return 0;
  for (int j = 0;; ++j)
    if (std::fabs(x[j]) == range.high) return x[j];
}

KVSWEEP_INLINE float reciprocal_or_zero(float d) {
  const float id = 1 / d;
  return std::fabs(id) <= std::numeric_limits<float>::max() ? id : 0;
}

KVSWEEP_INLINE float fp16_range(float d) {
  return std::clamp(d, -65504.0F, 65504.0F);
}

KVSWEEP_INLINE void pack_nibbles(const uint8_t* q, uint8_t* codes) {
  for (int j = 0; j < kHalf; ++j) codes[j] = static_cast<uint8_t>((q[j] & 15) | (q[j + kHalf] << 4));
}

KVSWEEP_INLINE void store_bits(uint32_t bits, uint8_t* high) {
  for (int i = 0; i < 4; ++i) high[i] = static_cast<uint8_t>(bits >> (8 * i));
}

KVSWEEP_INLINE uint32_t load_bits(const uint8_t* high) {
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(high[i]) << (8 * i);
  return bits;
}

// Levels nearest to x / (peak / first level), then the scale that fits them best.
KVSWEEP_INLINE float encode_iq4_nl(const float* x, const Range& range, uint8_t* q) {
  const float peak = peak_of(x, range), first = peak / kIq4NlLevels[0];
  const bool empty = std::fabs(peak) < kIq4NlEmpty;
  const float id = empty ? 0 : 1 / first;
  float level[kBlock];
  int code[kBlock];
  for (int j = 0; j < kBlock; ++j) {
    code[j] = 0;
    level[j] = kIq4NlLevels[0];
  }
  for (int k = 1; k < 16; ++k) {
    const float middle = kIq4NlLevels[k - 1] + kIq4NlLevels[k], step = kIq4NlLevels[k] - kIq4NlLevels[k - 1];
    for (int j = 0; j < kBlock; ++j) {
      const float y = x[j] * id;
      const bool above = y + y >= middle;
      code[j] += above ? 1 : 0;
      level[j] += above ? step : 0.0F;
    }
  }
  float top = 0, bottom = 0, top_of[kBlock], bottom_of[kBlock];
  for (int j = 0; j < kBlock; ++j) {
    q[j] = static_cast<uint8_t>(code[j]);
    const float weighted = x[j] * x[j] * level[j];
    top_of[j] = weighted * x[j];
    bottom_of[j] = weighted * level[j];
  }
  for (int j = 0; j < kBlock; ++j) {
    top += top_of[j];
    bottom += bottom_of[j];
  }
  if (empty) return 0;
  const float d = top / bottom;
  return std::fabs(d) <= std::numeric_limits<float>::max() ? d : first;
}

template <GgmlType kType>
KVSWEEP_INLINE bool encode_block(const float* x, float* scale, float* min, uint8_t* high, uint8_t* codes) {
  using T = Traits<kType>;
  const Range range = range_of<kBlock>(x);
  if (!range.usable) return false;
  if constexpr (T::kEight) {
    const float d = std::max(range.high, -range.low) / 127, id = reciprocal_or_zero(d);
    *scale = fp16_range(d);
    for (int j = 0; j < kBlock; ++j) {
      const float y = x[j] * id;
      const int whole = static_cast<int>(y);
      const float rest = y - static_cast<float>(whole);
      codes[j] = static_cast<uint8_t>(whole + (rest >= 0.5F ? 1 : 0) - (rest <= -0.5F ? 1 : 0));
    }
    return true;
  }
  uint8_t q[kBlock];
  if constexpr (kType == GgmlType::kIq4Nl) {
    *scale = fp16_range(encode_iq4_nl(x, range, q));
  } else {
    const float d = T::kHasMin ? (range.high - range.low) / T::kTop : peak_of(x, range) / -T::kZeroCode;
    const float id = reciprocal_or_zero(d), zero = T::kHasMin ? range.low : 0,
                half = T::kHasMin ? 0.5F : T::kZeroCode + 0.5F;
    *scale = fp16_range(d);
    if (T::kHasMin) *min = fp16_range(range.low);
    for (int j = 0; j < kBlock; ++j) {
      const int code = static_cast<int>((T::kHasMin ? x[j] - zero : x[j]) * id + half);
      q[j] = static_cast<uint8_t>(code < T::kTop ? code : T::kTop);
    }
  }
  pack_nibbles(q, codes);
  if constexpr (T::kHasHigh) {
    uint32_t bits = 0;
    for (uint32_t j = 0; j < kBlock; ++j) bits |= static_cast<uint32_t>(q[j] >> 4) << j;
    store_bits(bits, high);
  }
  return true;
}

template <GgmlType kType>
KVSWEEP_INLINE void decode_block(float scale, float min, const uint8_t* high, const uint8_t* codes, float* out) {
  using T = Traits<kType>;
  if constexpr (T::kEight) {
    for (int j = 0; j < kBlock; ++j) out[j] = static_cast<float>(static_cast<int8_t>(codes[j])) * scale;
    return;
  }
  if constexpr (kType == GgmlType::kIq4Nl) {
    for (int j = 0; j < kHalf; ++j) out[j] = kIq4NlLevels[codes[j] & 15] * scale;
    for (int j = 0; j < kHalf; ++j) out[j + kHalf] = kIq4NlLevels[codes[j] >> 4] * scale;
    return;
  }
  int q[kBlock];
  for (int j = 0; j < kHalf; ++j) q[j] = codes[j] & 15;
  for (int j = 0; j < kHalf; ++j) q[j + kHalf] = codes[j] >> 4;
  if constexpr (T::kHasHigh) {
    const uint32_t bits = load_bits(high);
    for (int j = 0; j < kBlock; ++j) q[j] |= static_cast<int>((bits >> j) & 1U) << 4;
  }
  if constexpr (T::kHasMin) {
    for (int j = 0; j < kBlock; ++j) out[j] = static_cast<float>(q[j]) * scale + min;
  } else {
    for (int j = 0; j < kBlock; ++j) out[j] = static_cast<float>(q[j] - T::kZeroCode) * scale;
  }
}

KVSWEEP_INLINE uint8_t to_ue4m3(float x) {
  if (!(x > 0)) return 0;
  if (x >= 256) return kUe4m3Top;
  if (x < 0x1p-6F) return static_cast<uint8_t>(std::min(static_cast<int>(x * 512 + 0.5F), 7));
  const uint32_t rounded = (std::bit_cast<uint32_t>(x) + (1U << 19)) >> 20;  // exponent, three bits of mantissa
  return static_cast<uint8_t>(std::min<uint32_t>(rounded - (120U << 3), kUe4m3Top));
}

KVSWEEP_INLINE bool encode_nvfp4(const float* x, uint8_t* scales, uint8_t* codes) {
  constexpr int kValues = 64, kGroup = 16;
  float d[kValues], magnitude[kValues], nearest[kValues];
  int q[kValues];
  for (int s = 0; s < kValues / kGroup; ++s) {
    const Range range = range_of<kGroup>(x + s * kGroup);
    if (!range.usable) return false;
    scales[s] = to_ue4m3(std::max(range.high, -range.low) / 6);
    std::fill_n(d + s * kGroup, kGroup, kUe4m3Halves[scales[s]]);
  }
  for (int j = 0; j < kValues; ++j) {
    magnitude[j] = nearest[j] = std::fabs(x[j]);
    q[j] = 0;
  }
  for (int k = 1; k < 8; ++k)
    for (int j = 0; j < kValues; ++j) {
      const float error = std::fabs(kNvfp4Levels[static_cast<size_t>(k)] * d[j] - magnitude[j]);
      q[j] = error < nearest[j] ? k : q[j];
      nearest[j] = error < nearest[j] ? error : nearest[j];
    }
  for (int j = 0; j < kValues; ++j) q[j] |= (x[j] < 0) & (q[j] != 0) ? 8 : 0;
  for (int s = 0; s < kValues; s += kGroup)
    for (int j = 0; j < kGroup / 2; ++j)
      codes[s / 2 + j] = static_cast<uint8_t>(q[s + j] | (q[s + j + kGroup / 2] << 4));
  return true;
}

KVSWEEP_INLINE void decode_nvfp4(const uint8_t* scales, const uint8_t* codes, float* out) {
  for (int s = 0; s < 4; ++s, codes += 8, out += 16) {
    const float d = kUe4m3Halves[scales[s]];
    for (int j = 0; j < 8; ++j) out[j] = kNvfp4Levels[codes[j] & 15] * d;
    for (int j = 0; j < 8; ++j) out[j + 8] = kNvfp4Levels[codes[j] >> 4] * d;
  }
}

template <class T>
KVSWEEP_INLINE T* at_block(T* part, int64_t block, int64_t bytes) {
  return part == nullptr ? nullptr : part + block * bytes;
}

template <GgmlType kType>
KVSWEEP_INLINE bool encode_rows(const float* x, int64_t row_stride, int64_t rows, int64_t dim,
                                const GgmlRows<float, uint8_t>& to) {
  bool ok = true;
  for (int64_t row = 0, block = 0; row < rows; ++row)
    for (int64_t at = 0; at < dim; at += ggml_block_values(kType), ++block) {
      const float* from = x + row * row_stride + at;
      if constexpr (kType == GgmlType::kNvfp4)
        ok &= encode_nvfp4(from, to.scale_bytes + 4 * block, to.codes + 32 * block);
      else
        ok &= encode_block<kType>(from, to.scale + block, at_block(to.min, block, 1), at_block(to.high, block, 4),
                                  to.codes + block * Traits<kType>::kCodeBytes);
    }
  return ok;
}

template <GgmlType kType>
KVSWEEP_INLINE void decode_rows(const GgmlRows<const uint16_t, const uint8_t>& from, int64_t blocks, float* out) {
  for (int64_t block = 0; block < blocks; ++block, out += ggml_block_values(kType)) {
    if constexpr (kType == GgmlType::kNvfp4)
      decode_nvfp4(from.scale_bytes + 4 * block, from.codes + 32 * block, out);
    else
      decode_block<kType>(half_to_float(from.scale[block]), from.min == nullptr ? 0 : half_to_float(from.min[block]),
                          at_block(from.high, block, 4), from.codes + block * Traits<kType>::kCodeBytes, out);
  }
}

}  // namespace

KVSWEEP_CPU_CLONES bool ggml_encode_rows(GgmlType type, const float* x, int64_t row_stride, int64_t rows, int64_t dim,
                                         const GgmlRows<float, uint8_t>& to) {
  switch (type) {
    case GgmlType::kQ8_0:
      return encode_rows<GgmlType::kQ8_0>(x, row_stride, rows, dim, to);
    case GgmlType::kQ4_0:
      return encode_rows<GgmlType::kQ4_0>(x, row_stride, rows, dim, to);
    case GgmlType::kQ4_1:
      return encode_rows<GgmlType::kQ4_1>(x, row_stride, rows, dim, to);
    case GgmlType::kQ5_0:
      return encode_rows<GgmlType::kQ5_0>(x, row_stride, rows, dim, to);
    case GgmlType::kQ5_1:
      return encode_rows<GgmlType::kQ5_1>(x, row_stride, rows, dim, to);
    case GgmlType::kIq4Nl:
      return encode_rows<GgmlType::kIq4Nl>(x, row_stride, rows, dim, to);
    case GgmlType::kNvfp4:
      return encode_rows<GgmlType::kNvfp4>(x, row_stride, rows, dim, to);
    default:
      return false;  // f16 and bf16 have no blocks
  }
}

KVSWEEP_CPU_CLONES void ggml_decode_rows(GgmlType type, const GgmlRows<const uint16_t, const uint8_t>& from,
                                         int64_t rows, int64_t dim, float* out) {
  const int64_t blocks = rows * dim / ggml_block_values(type);
  switch (type) {
    case GgmlType::kQ8_0:
      return decode_rows<GgmlType::kQ8_0>(from, blocks, out);
    case GgmlType::kQ4_0:
      return decode_rows<GgmlType::kQ4_0>(from, blocks, out);
    case GgmlType::kQ4_1:
      return decode_rows<GgmlType::kQ4_1>(from, blocks, out);
    case GgmlType::kQ5_0:
      return decode_rows<GgmlType::kQ5_0>(from, blocks, out);
    case GgmlType::kQ5_1:
      return decode_rows<GgmlType::kQ5_1>(from, blocks, out);
    case GgmlType::kIq4Nl:
      return decode_rows<GgmlType::kIq4Nl>(from, blocks, out);
    case GgmlType::kNvfp4:
      return decode_rows<GgmlType::kNvfp4>(from, blocks, out);
    default:
      return;
  }
}

}  // namespace kvsweep
