#include "schemes/codec/affine_cpu.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "schemes/codec/bitpack.h"
#include "schemes/codec/cpu_clones.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

constexpr int64_t kLanes = 16;

struct Range {
  float low, high;
  float poison;  // NaN when a value was NaN or infinite, else zero
};

struct Metadata {
  float scale, zero;
  float divisor;  // infinity for a degenerate group: every code comes out as zero
};

KVSWEEP_INLINE void widen(float x, float& low, float& high, float& poison) {
  low = x < low ? x : low;
  high = x > high ? x : high;
  poison += x * 0.0F;
}

// Lanes by hand: without -ffast-math the compiler must keep the order of a minimum.
KVSWEEP_INLINE Range range_of(const float* x, int64_t count) {
  float low[kLanes], high[kLanes], poison[kLanes];
  for (int64_t k = 0; k < kLanes; ++k) {
    low[k] = high[k] = x[0];
    poison[k] = 0;
  }
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) widen(x[i + k], low[k], high[k], poison[k]);
  for (; i < count; ++i) widen(x[i], low[0], high[0], poison[0]);
  Range range{low[0], high[0], poison[0]};
  for (int64_t k = 1; k < kLanes; ++k) {
    range.low = std::min(range.low, low[k]);
    range.high = std::max(range.high, high[k]);
    range.poison += poison[k];
  }
  return range;
}

KVSWEEP_INLINE bool usable(const Range& range) {
  return range.poison == 0 && range.high - range.low <= std::numeric_limits<float>::max() / 2;
}

float stored(float value, bool half) {
  if (!half) return value;
  constexpr float kLimit = 65504;
  return static_cast<float>(c10::Half(std::clamp(value, -kLimit, kLimit)));
}

KVSWEEP_INLINE Metadata metadata_of(const AffineBlock& block, float low, float high) {
  Metadata m{};
  if (block.symmetric) {
    m.scale = stored(std::max(high, -low) / block.offset, block.half_metadata);
  } else {
    m.zero = stored(low, block.half_metadata) + 0.0F;  // no negative zero
    m.scale = stored((high - low) / block.top, block.half_metadata);
  }
  m.divisor = m.scale;
  if (m.scale == 0) {
    m.scale = 1;
    m.divisor = std::numeric_limits<float>::infinity();
  }
  return m;
}

// kStep 0: one scale and zero for the row; 1: one for each value.
template <int kStep>
KVSWEEP_INLINE void encode_row(const AffineBlock& block, const float* x, int64_t count, const float* divisor,
                               const float* zero, uint8_t* codes) {
  constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer, half to even, in the lowest mantissa bits
  const float low = -block.offset, high = block.top - block.offset;
  const auto shift = static_cast<uint32_t>(block.offset);
  for (int64_t j = 0; j < count; ++j) {
    float y = (x[j] - zero[kStep * j]) / divisor[kStep * j];
    y = y < low ? low : y;
    y = y > high ? high : y;
    codes[j] = static_cast<uint8_t>(std::bit_cast<uint32_t>(y + kRound) + shift);
  }
}

template <int kStep>
KVSWEEP_INLINE void decode_row(const uint8_t* codes, int64_t count, float offset, const float* scale, const float* zero,
                               float* out) {
  for (int64_t j = 0; j < count; ++j)
    out[j] = (static_cast<float>(codes[j]) - offset) * scale[kStep * j] + zero[kStep * j];
}

KVSWEEP_INLINE bool encode_token_groups(const AffineBlock& block, const float* x, int64_t token_stride, float* scale,
                                        float* zero, uint8_t* codes) {
  for (int64_t t = 0; t < block.tokens; ++t, x += token_stride) {
    for (int64_t at = 0; at < block.dim; at += block.group, codes += block.group) {
      const Range range = range_of(x + at, block.group);
      if (!usable(range)) return false;
      const Metadata m = metadata_of(block, range.low, range.high);
      *scale++ = m.scale;
      *zero++ = m.zero;
      encode_row<0>(block, x + at, block.group, &m.divisor, &m.zero, codes);
    }
  }
  return true;
}

KVSWEEP_INLINE bool encode_channel_group(const AffineBlock& block, const float* x, int64_t token_stride, float* scale,
                                         float* zero, uint8_t* codes, float* scratch) {
  const int64_t dim = block.dim;
  float *low = scratch, *high = scratch + dim, *poison = scratch + 2 * dim, *divisor = scratch + 3 * dim;
  std::copy_n(x, dim, low);
  std::copy_n(x, dim, high);
  std::fill_n(poison, dim, 0.0F);
  for (int64_t t = 0; t < block.tokens; ++t)
    for (int64_t d = 0; d < dim; ++d) widen(x[t * token_stride + d], low[d], high[d], poison[d]);
  for (int64_t d = 0; d < dim; ++d) {
    if (!usable({low[d], high[d], poison[d]})) return false;
    const Metadata m = metadata_of(block, low[d], high[d]);
    scale[d] = m.scale;
    zero[d] = m.zero;
    divisor[d] = m.divisor;
  }
  for (int64_t t = 0; t < block.tokens; ++t)
    encode_row<1>(block, x + t * token_stride, dim, divisor, zero, codes + t * dim);
  return true;
}

}  // namespace

KVSWEEP_CPU_CLONES void affine_decode_block(const AffineBlock& block, const uint8_t* packed, const float* scale,
                                            const float* zero, uint8_t* codes, float* out) {
  const int64_t dim = block.dim, group = block.group;
  unpack_rows(packed, packed_bytes(dim, block.bits), block.tokens, dim, block.bits, codes, dim);
  if (block.channel_axis) {
    for (int64_t t = 0; t < block.tokens; ++t)
      decode_row<1>(codes + t * dim, dim, block.offset, scale, zero, out + t * dim);
    return;
  }
  for (int64_t g = 0; g < block.tokens * dim / group; ++g)
    decode_row<0>(codes + g * group, group, block.offset, scale + g, zero + g, out + g * group);
}

KVSWEEP_CPU_CLONES bool affine_encode_block(const AffineBlock& block, const float* x, int64_t token_stride,
                                            uint8_t* packed, float* scale, float* zero, uint8_t* codes,
                                            float* scratch) {
  const bool ok = block.channel_axis ? encode_channel_group(block, x, token_stride, scale, zero, codes, scratch)
                                     : encode_token_groups(block, x, token_stride, scale, zero, codes);
  if (ok) pack_rows(codes, block.dim, block.tokens, block.dim, block.bits, packed, packed_bytes(block.dim, block.bits));
  return ok;
}

}  // namespace kvsweep
