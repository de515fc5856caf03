#pragma once

#include <cstdint>

#include "schemes/kernels/narrow_float.h"

namespace kvsweep {

// Values of a codec's input in device memory, [H, T, D] with neighbouring channels side by side. Strides count values.
struct DeviceRows {
  const void* data = nullptr;
  FloatType type = FloatType::kFloat;
  int64_t head_stride = 0, token_stride = 0;
  int64_t heads = 0, tokens = 0, dim = 0;
};

// One stored part: what belongs to a head lies side by side, the heads head_stride elements apart.
struct DevicePart {
  const void* data = nullptr;
  int64_t head_stride = 0;
};

}  // namespace kvsweep
