#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace kvsweep {

static_assert(std::endian::native == std::endian::little, "model files are little-endian and read without swapping");

// Exact value of an IEEE 754 binary16, NaN payloads included. Masks instead of branches, so that loops over it
// vectorise; no denormal float32 appears on the way, so flush-to-zero modes do not change it.
inline float half_to_float(uint16_t half) {
  constexpr uint32_t kRebias = (127 - 15) << 23;
  const uint32_t magnitude = uint32_t{half & 0x7fffu} << 13;  // exponent and mantissa where float32 has them
  const uint32_t is_special = 0u - uint32_t{magnitude >= (31u << 23)};
  const uint32_t is_subnormal = 0u - uint32_t{magnitude < (1u << 23)};
  const uint32_t normal = magnitude + kRebias + (is_special & kRebias);
  const uint32_t subnormal = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int>(half & 0x3ff)) * 0x1p-24f);
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  return std::bit_cast<float>((is_subnormal & subnormal) | (~is_subnormal & normal) | sign);
}

// A little-endian load at any alignment.
inline uint16_t load_u16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// `values` numbers of a file, at any alignment, to float32.
void copy_f32(const uint8_t* bytes, int64_t values, float* out);
void widen_f16(const uint8_t* bytes, int64_t values, float* out);
void widen_bf16(const uint8_t* bytes, int64_t values, float* out);

}  // namespace kvsweep
