#pragma once

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

namespace kvsweep {

// Half to even, saturating.
__device__ __forceinline__ uint8_t to_float8(float x, bool e5m2) {
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, e5m2 ? __NV_E5M2 : __NV_E4M3);
}

__device__ __forceinline__ float from_float8(uint8_t byte, bool e5m2) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(byte, e5m2 ? __NV_E5M2 : __NV_E4M3)));
}

}  // namespace kvsweep
