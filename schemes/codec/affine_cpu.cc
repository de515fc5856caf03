#include "schemes/codec/affine_cpu.h"

#include <algorithm>
#include <limits>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/bitpack.h"
#include "schemes/codec/value_range.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

KVSWEEP_INLINE void widen(float x, float& low, float& high, float& poison) {
  low = x < low ? x : low;
  high = x > high ? x : high;
  poison += x * 0.0F;  // NaN when a value was NaN or infinite, else zero
}

KVSWEEP_INLINE bool usable(float low, float high) {
  return high - low <= std::numeric_limits<float>::max() / 2;
}

// kStep 0: one divisor and shift for the row; 1: one for each value.
template <class A, AffineForm kForm, int kStep>
KVSWEEP_INLINE void encode_row(const AffineShape& shape, const float* x, int64_t count, const float* divisor,
                               const float* shift, uint8_t* codes) {
  const float low = -shape.offset, high = shape.top - shape.offset;
  const auto offset = static_cast<uint32_t>(shape.offset);
  for (int64_t j = 0; j < count; ++j)
    codes[j] = affine_code<A, kForm>(x[j], divisor[kStep * j], shift[kStep * j], low, high, offset);
}

template <class A, AffineForm kForm, int kStep>
KVSWEEP_INLINE void decode_row(const uint8_t* codes, int64_t count, float offset, const float* scale, const float* zero,
                               float* out) {
  for (int64_t j = 0; j < count; ++j)
    out[j] = affine_value<A, kForm>(codes[j], offset, scale[kStep * j], zero[kStep * j]);
}

template <class A, AffineForm kForm>
KVSWEEP_INLINE bool encode_token_groups(const AffineBlock& block, const float* x, int64_t token_stride, float* scale,
                                        float* zero, uint8_t* codes) {
  const int64_t dim = block.shape.dim, group = block.shape.group, groups = dim / group;
  float low[kRangeRows], high[kRangeRows];
  AffineLevels levels[kRangeRows];
  for (int64_t first = 0; first < block.tokens; first += kRangeRows) {
    const int64_t tokens = std::min(kRangeRows, block.tokens - first);
    for (int64_t g = 0; g < groups; ++g) {
      const float* from = x + first * token_stride + g * group;
      if (!ranges_of(from, token_stride, tokens, group, low, high)) return false;
      bool narrow = true;
      for (int64_t t = 0; t < tokens; ++t) {
        narrow &= usable(low[t], high[t]);
        levels[t] = affine_levels<A, kForm>(block.shape, low[t], high[t]);
      }
      if (!narrow) return false;
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t at = (first + t) * groups + g;
        scale[at] = levels[t].scale;
        zero[at] = levels[t].zero;
        encode_row<A, kForm, 0>(block.shape, from + t * token_stride, group, &levels[t].divisor, &levels[t].shift,
                                codes + at * group);
      }
    }
  }
  return true;
}

template <class A, AffineForm kForm>
KVSWEEP_INLINE bool encode_channel_group(const AffineBlock& block, const float* x, int64_t token_stride, float* scale,
                                         float* zero, uint8_t* codes, float* scratch) {
  const int64_t dim = block.shape.dim;
  float *low = scratch, *high = scratch + dim, *poison = scratch + 2 * dim;
  std::copy_n(x, dim, low);
  std::copy_n(x, dim, high);
  std::fill_n(poison, dim, 0.0F);
  for (int64_t t = 0; t < block.tokens; ++t)
    for (int64_t d = 0; d < dim; ++d) widen(x[t * token_stride + d], low[d], high[d], poison[d]);
  float *divisor = scratch + 3 * dim, *shift = scratch + 4 * dim;
  for (int64_t d = 0; d < dim; ++d) {
    if (poison[d] != 0 || !usable(low[d], high[d])) return false;
    const AffineLevels m = affine_levels<A, kForm>(block.shape, low[d], high[d]);
    scale[d] = m.scale;
    zero[d] = m.zero;
    divisor[d] = m.divisor;
    shift[d] = m.shift;
  }
  for (int64_t t = 0; t < block.tokens; ++t)
    encode_row<A, kForm, 1>(block.shape, x + t * token_stride, dim, divisor, shift, codes + t * dim);
  return true;
}

template <class A, AffineForm kForm>
KVSWEEP_INLINE bool encode_groups(const AffineBlock& block, const float* x, int64_t token_stride, float* scale,
                                  float* zero, uint8_t* codes, float* scratch) {
  return block.shape.axis == GroupAxis::kChannel
             ? encode_channel_group<A, kForm>(block, x, token_stride, scale, zero, codes, scratch)
             : encode_token_groups<A, kForm>(block, x, token_stride, scale, zero, codes);
}

template <class A>
KVSWEEP_INLINE bool encode(const AffineBlock& block, const float* x, int64_t token_stride, float* scale, float* zero,
                           uint8_t* codes, float* scratch) {
  switch (block.shape.form) {
    case AffineForm::kReciprocal:
      return encode_groups<A, AffineForm::kReciprocal>(block, x, token_stride, scale, zero, codes, scratch);
    case AffineForm::kZeroPoint:
      return encode_groups<A, AffineForm::kZeroPoint>(block, x, token_stride, scale, zero, codes, scratch);
    default:
      return encode_groups<A, AffineForm::kMinimum>(block, x, token_stride, scale, zero, codes, scratch);
  }
}

template <class A, AffineForm kForm>
KVSWEEP_INLINE void decode_groups(const AffineBlock& block, const uint8_t* codes, const float* scale, const float* zero,
                                  float* out) {
  const int64_t dim = block.shape.dim, group = block.shape.group;
  if (block.shape.axis == GroupAxis::kChannel) {
    for (int64_t t = 0; t < block.tokens; ++t)
      decode_row<A, kForm, 1>(codes + t * dim, dim, block.shape.offset, scale, zero, out + t * dim);
    return;
  }
  for (int64_t g = 0; g < block.tokens * dim / group; ++g)
    decode_row<A, kForm, 0>(codes + g * group, group, block.shape.offset, scale + g, zero + g, out + g * group);
}

template <class A>
KVSWEEP_INLINE void decode(const AffineBlock& block, const uint8_t* codes, const float* scale, const float* zero,
                           float* out) {
  if (block.shape.form == AffineForm::kZeroPoint)
    decode_groups<A, AffineForm::kZeroPoint>(block, codes, scale, zero, out);
  else
    decode_groups<A, AffineForm::kMinimum>(block, codes, scale, zero, out);
}

}  // namespace

KVSWEEP_CPU_CLONES void affine_decode_block(const AffineBlock& block, const uint8_t* packed, const float* scale,
                                            const float* zero, uint8_t* codes, float* out) {
  const int64_t dim = block.shape.dim, bits = block.shape.bits;
  unpack_rows(packed, packed_bytes(dim, bits), block.tokens, dim, bits, codes, dim);
  if (block.shape.half_arithmetic)
    decode<HalfArithmetic>(block, codes, scale, zero, out);
  else
    decode<SingleArithmetic>(block, codes, scale, zero, out);
}

KVSWEEP_CPU_CLONES bool affine_encode_block(const AffineBlock& block, const float* x, int64_t token_stride,
                                            uint8_t* packed, float* scale, float* zero, uint8_t* codes,
                                            float* scratch) {
  const int64_t dim = block.shape.dim, bits = block.shape.bits;
  const bool ok = block.shape.half_arithmetic
                      ? encode<HalfArithmetic>(block, x, token_stride, scale, zero, codes, scratch)
                      : encode<SingleArithmetic>(block, x, token_stride, scale, zero, codes, scratch);
  if (ok) pack_rows(codes, dim, block.tokens, dim, bits, packed, packed_bytes(dim, bits));
  return ok;
}

}  // namespace kvsweep
