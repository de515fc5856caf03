#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "schemes/kernels/host_device.h"

namespace kvsweep {

// float32 rounded to the nearest value of a narrower type, half to even, and given back as float32. Masks and selects
// instead of branches, so that loops over them vectorise. A sum, difference, product or quotient of two narrow values,
// rounded once like this, is what arithmetic in that type gives.

// fp16 with its subnormals, but without a largest value: 11 significant bits also beyond 65504. |x| below 2^100.
KVSWEEP_HD float nearest_half_unbounded(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  constexpr uint32_t kExponent = 0x7f800000, kSmallestNormal = (127 - 14) << 23, kOneAndAHalf = 1 << 22;
  // 1.5 * 2^(e + 13) for an x with exponent e: beside it float32 has the spacing of fp16 near x, and the sum rounds.
  const uint32_t exponent = (bits & kExponent) > kSmallestNormal ? bits & kExponent : kSmallestNormal;
  const float anchor = std::bit_cast<float>((exponent + (13U << 23)) | kOneAndAHalf);
  const float rounded = (x + anchor) - anchor;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(rounded) | (bits & 0x80000000U));  // keeps a negative zero
}

// fp16: 65520 and beyond become infinity, NaN stays NaN.
KVSWEEP_HD float nearest_half(float x) {
  constexpr uint32_t kToInfinity = 0x477ff000;  // 65520
  const float rounded = nearest_half_unbounded(x);
  return (std::bit_cast<uint32_t>(x) & 0x7fffffff) >= kToInfinity ? x * std::numeric_limits<float>::infinity()
                                                                  : rounded;
}

// bfloat16, subnormals and infinity included; NaN stays NaN.
KVSWEEP_HD float nearest_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  return x == x ? std::bit_cast<float>(rounded) : x;
}

// Bits of fp16 without infinity and NaN -> float32.
KVSWEEP_HD float half_to_float(uint16_t bits) {
  const uint32_t magnitude = (bits & 0x7fffU) << 13;
  // Exponents count from another zero; those of subnormals have none.
  const float normal = std::bit_cast<float>(magnitude + ((127U - 15) << 23));
  const float small = static_cast<float>(static_cast<int32_t>(bits & 0x3ffU)) * 0x1p-24F;
  const float value = magnitude < (1U << 23) ? small : normal;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | (bits & 0x8000U) << 16);
}

// Floats of eight bits: kMantissa bits behind an exponent of 7 - kMantissa bits, half to even, saturating at kTop; no
// NaN. E4M3 and E5M2 of the OCP specification (ml_dtypes' float8_e4m3fn, float8_e5m2).
template <int kMantissa>
struct Float8Bits {
  static constexpr int kBias = (1 << (6 - kMantissa)) - 1;
  static constexpr float kTop = kMantissa == 3 ? 448 : 57344;
  static constexpr uint32_t kRebias = static_cast<uint32_t>(127 - kBias);
  // The spacing of subnormals.
  static constexpr float kSmallest = std::bit_cast<float>((kRebias + 1 - kMantissa) << 23);

  KVSWEEP_HD static uint8_t encode(float x) {
    const uint32_t sign = std::bit_cast<uint32_t>(x) >> 24 & 0x80U;
    const float magnitude = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffffU);
    const float y = magnitude > kTop ? kTop : magnitude;
    constexpr uint32_t kExponent = 0x7f800000, kSmallestNormal = (kRebias + 1) << 23, kOneAndAHalf = 1 << 22;
    const uint32_t bits = std::bit_cast<uint32_t>(y) & kExponent;
    const uint32_t exponent = bits > kSmallestNormal ? bits : kSmallestNormal;
    const float anchor = std::bit_cast<float>((exponent + ((23U - kMantissa) << 23)) | kOneAndAHalf);
    const float rounded = (y + anchor) - anchor;
    const uint32_t normal = (std::bit_cast<uint32_t>(rounded) >> (23 - kMantissa)) - (kRebias << kMantissa);
    const auto small = static_cast<uint32_t>(static_cast<int32_t>(rounded * (1 / kSmallest)));
    return static_cast<uint8_t>((std::bit_cast<uint32_t>(rounded) < kSmallestNormal ? small : normal) | sign);
  }

  KVSWEEP_HD static float decode(uint8_t byte) {
    const uint32_t magnitude = byte & 0x7fU;
    const float normal = std::bit_cast<float>((magnitude << (23 - kMantissa)) + (kRebias << 23));
    const float small = static_cast<float>(static_cast<int32_t>(magnitude)) * kSmallest;
    const float value = magnitude < (1U << kMantissa) ? small : normal;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | (byte & 0x80U) << 24);
  }
};
using E4M3 = Float8Bits<3>;
using E5M2 = Float8Bits<2>;

enum class FloatType { kHalf, kBFloat16, kFloat };
inline constexpr float kLargestHalf = 65504, kLargestBFloat16 = 0x1.FEp127F;

// Beyond the type's range: infinity.
KVSWEEP_HD float nearest(float x, FloatType type) {
  return type == FloatType::kHalf ? nearest_half(x) : type == FloatType::kBFloat16 ? nearest_bfloat16(x) : x;
}

// Beyond the type's range: its largest value.
KVSWEEP_HD float saturated(float x, FloatType type) {
  const float limit = type == FloatType::kHalf       ? kLargestHalf
                      : type == FloatType::kBFloat16 ? kLargestBFloat16
                                                     : std::numeric_limits<float>::max();
  x = x < -limit ? -limit : x;
  return nearest(x > limit ? limit : x, type);
}

}  // namespace kvsweep
