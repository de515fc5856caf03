#pragma once

#include <array>
#include <cstdint>

namespace kvsweep {

// Types that llama.cpp stores a KV cache in (common/arg.cpp), and ggml's NVFP4 block, which it does not take there.
enum class GgmlType { kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kIq4Nl, kNvfp4 };

inline constexpr std::array<float, 16> kIq4NlLevels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                       1,    13,   25,  38,  53,  69,  89,  113};
inline constexpr float kIq4NlEmpty = 1e-15F;  // magnitudes below have no scale
// Twice the values of E2M1; a scale counts half.
inline constexpr std::array<float, 16> kNvfp4Levels = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
inline constexpr uint8_t kUe4m3Top = 0x7E;  // 448
// Half of what a scale byte says: four bits of exponent with bias 7, three of mantissa.
inline constexpr std::array<float, 128> kUe4m3Halves = [] {
  std::array<float, 128> halves{};
  float unit = 0x1p-10F;
  for (int code = 0; code < 128; ++code) {
    if (code >= 16 && code % 8 == 0) unit *= 2;
    halves[static_cast<size_t>(code)] = static_cast<float>(code < 8 ? code : 8 + code % 8) * unit;
  }
  return halves;
}();

}  // namespace kvsweep
