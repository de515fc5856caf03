#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "schemes/kernels/narrow_float.h"

namespace kvsweep {

enum class GroupAxis {
  kToken,    // `group` neighbouring channels of one token share scale and zero
  kChannel,  // `group` neighbouring tokens of one channel do
};

enum class AffineForm {
  kMinimum,     // zero = min;           code = round((x - zero) / scale);       x ~ code * scale + zero
  kReciprocal,  // zero = min;           code = round((x - zero) * (1 / scale)); x ~ code * scale + zero
  kZeroPoint,   // zero = -min / scale;  code = floor(x / scale + zero + 1/2);   x ~ (code - zero) * scale
};

// What AffineCodec (codec/affine.h, which states the arithmetic) does with one group and one value.
struct AffineShape {
  int64_t bits = 0, group = 0, dim = 0;
  GroupAxis axis = GroupAxis::kToken;
  AffineForm form = AffineForm::kMinimum;
  bool symmetric = false, half_arithmetic = false;
  FloatType metadata = FloatType::kHalf;
  float offset = 0, top = 0, empty_scale = 1;  // of the codec
};

// The two kinds of arithmetic.
struct SingleArithmetic {
  KVSWEEP_HD static float input(float x) { return x; }
  KVSWEEP_HD static float round(float x) { return x; }
};
struct HalfArithmetic {
  KVSWEEP_HD static float input(float x) {
    x = x < -kLargestHalf ? -kLargestHalf : x;
    return round(x > kLargestHalf ? kLargestHalf : x);
  }
  KVSWEEP_HD static float round(float x) { return nearest_half_unbounded(x); }
};

struct AffineLevels {
  float scale, zero;     // as stored
  float divisor, shift;  // what codes are made with, see affine_steps()
};

// low, high: finite, not further apart than half of float32's range.
template <class A, AffineForm kForm>
KVSWEEP_HD AffineLevels affine_levels(const AffineShape& shape, float low, float high) {
  low = A::input(low);
  high = A::input(high);
  AffineLevels m{};
  float step;
  if (shape.symmetric) {
    step = (high < -low ? -low : high) / shape.offset;
  } else {
    m.zero = saturated(low, shape.metadata) + 0.0F;  // no negative zero
    step = kForm == AffineForm::kReciprocal ? A::round((high - low) * (1 / shape.top))
                                            : A::round(A::round(high - low) / shape.top);
  }
  m.scale = saturated(step, shape.metadata);
  bool empty = m.scale == 0;
  if constexpr (kForm == AffineForm::kZeroPoint) {
    m.divisor = step;
    m.shift = A::round(-low / step);
    const float point = nearest(m.shift, shape.metadata);
    empty = empty || !(point - point == 0);  // infinite, or NaN
    m.zero = empty ? -m.zero : point;
  } else {
    m.divisor = kForm == AffineForm::kReciprocal ? A::round(1 / m.scale) : m.scale;
    if (kForm == AffineForm::kReciprocal) empty = empty || m.divisor > std::numeric_limits<float>::max();
    m.shift = m.zero;
  }
  if (empty) {
    m.scale = shape.empty_scale;
    m.divisor = kForm == AffineForm::kReciprocal ? 0 : std::numeric_limits<float>::infinity();
    if (kForm == AffineForm::kZeroPoint) m.shift = 0;
  }
  return m;
}

// x in steps of the scale, from the lowest level; of an empty group less than one.
template <class A, AffineForm kForm>
KVSWEEP_HD float affine_steps(float x, float divisor, float shift) {
  x = A::input(x);
  if constexpr (kForm == AffineForm::kZeroPoint)
    return A::round(A::round(A::round(x / divisor) + shift) + 0.5F);
  else if constexpr (kForm == AffineForm::kReciprocal)
    return A::round(A::round(x - shift) * divisor);
  else
    return A::round(A::round(x - shift) / divisor);
}

// low, high: of the codes, before the offset is added.
template <class A, AffineForm kForm>
KVSWEEP_HD uint8_t affine_code(float x, float divisor, float shift, float low, float high, uint32_t offset) {
  constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer, half to even, in the lowest mantissa bits
  float y = affine_steps<A, kForm>(x, divisor, shift);
  y = y < low ? low : y;
  y = y > high ? high : y;
  return kForm == AffineForm::kZeroPoint ? static_cast<uint8_t>(static_cast<int32_t>(y))
                                         : static_cast<uint8_t>(std::bit_cast<uint32_t>(y + kRound) + offset);
}

template <class A, AffineForm kForm>
KVSWEEP_HD float affine_value(uint8_t stored, float offset, float scale, float zero) {
  const auto code = static_cast<float>(stored);
  if constexpr (kForm == AffineForm::kZeroPoint)
    return A::round(A::round(code - zero) * scale);
  else
    return A::round(A::round((code - offset) * scale) + zero);
}

}  // namespace kvsweep
