#pragma once

#include "schemes/kernels/rows.h"

namespace kvsweep {

// The loops of NvFp4Codec over CUDA memory (codec/nvfp4.h), in one kernel each, queued on a cudaStream_t. Launch errors
// are left for cudaGetLastError(). NaN and infinity are not looked for.

// Writes codes [H, T, D / 2] and scale [H, T, D / 16].
struct NvFp4Encode {
  DeviceRows x;  // D a multiple of 16
  float tensor_scale = 1, smallest = 0;
  bool ones_for_zeros = false;  // a block of zeros has scale 1
  uint8_t *codes = nullptr, *scale = nullptr;
};
void nvfp4_encode_cuda(const NvFp4Encode& job, void* stream);

// Writes out [H, T, D].
struct NvFp4Decode {
  int64_t heads = 0, tokens = 0, dim = 0;
  float tensor_scale = 1;
  DevicePart codes, scale;
  float* out = nullptr;
};
void nvfp4_decode_cuda(const NvFp4Decode& job, void* stream);

}  // namespace kvsweep
