#include "harness/files/float_bits.h"

namespace kvsweep {

void copy_f32(const uint8_t* bytes, int64_t values, float* out) {
  if (values > 0) std::memcpy(out, bytes, static_cast<size_t>(values) * sizeof(float));
}

void widen_f16(const uint8_t* __restrict bytes, int64_t values, float* __restrict out) {
  for (int64_t i = 0; i < values; ++i) out[i] = half_to_float(load_u16(bytes + 2 * i));
}

void widen_bf16(const uint8_t* __restrict bytes, int64_t values, float* __restrict out) {
  for (int64_t i = 0; i < values; ++i) out[i] = std::bit_cast<float>(uint32_t{load_u16(bytes + 2 * i)} << 16);
}

}  // namespace kvsweep
