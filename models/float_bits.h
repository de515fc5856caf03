#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace kvsweep {

// Exact value of an IEEE 754 binary16, NaN payloads included. Integer selects instead of branches, so that loops over
// it vectorise; no denormal float32 appears on the way, so flush-to-zero modes do not change it.
inline float half_to_float(uint16_t half) {
  const uint32_t magnitude = uint32_t{half & 0x7fffu} << 13;  // exponent and mantissa where float32 has them
  const uint32_t rebias = magnitude >= (31u << 23) ? 2 * (127u - 15u) << 23 : (127u - 15u) << 23;
  const uint32_t normal = magnitude + rebias;
  const uint32_t subnormal = std::bit_cast<uint32_t>(static_cast<float>(half & 0x3ff) * 0x1p-24f);
  const uint32_t bits = magnitude < (1u << 23) ? subnormal : normal;
  return std::bit_cast<float>(bits | uint32_t{half & 0x8000u} << 16);
}

inline float bfloat16_to_float(uint16_t value) {
  return std::bit_cast<float>(uint32_t{value} << 16);
}

// Little-endian loads at any alignment.
inline uint16_t load_u16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}
static_assert(std::endian::native == std::endian::little, "model files are little-endian and read without swapping");

}  // namespace kvsweep
