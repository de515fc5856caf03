#pragma once

#include <cstdint>

namespace kvsweep {

// The loops of Float8Codec and NvFp4Codec over CPU memory; float8.h and nvfp4.h state the arithmetic.

// `count` values; scaled: their largest magnitude decides (see kSmallestFloat8Scale) and *scale is written, else it is
// read. False, and nothing useful written, for NaN and infinity.
bool float8_encode(const float* x, int64_t count, bool e5m2, bool scaled, float* scale, uint8_t* codes);
void float8_decode(const uint8_t* codes, int64_t count, bool e5m2, float scale, float* out);
inline constexpr float kSmallestFloat8Scale = 1e-6F;

// `blocks` blocks of 16 values. smallest, ones_for_zeros: see NvFp4Scales. False for NaN and infinity.
bool nvfp4_encode(const float* x, int64_t blocks, float tensor_scale, float smallest, bool ones_for_zeros,
                  uint8_t* codes, uint8_t* scales);
void nvfp4_decode(const uint8_t* codes, const uint8_t* scales, int64_t blocks, float tensor_scale, float* out);

}  // namespace kvsweep
