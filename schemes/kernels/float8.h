#pragma once

#include "schemes/kernels/rows.h"

namespace kvsweep {

// The loops of Float8Codec over CUDA memory (codec/float8.h), in one kernel each, queued on a cudaStream_t. Launch
// errors are left for cudaGetLastError().
struct Float8Scales {
  bool e5m2 = false;
  float top = 0;                 // of the format
  const float* fixed = nullptr;  // [H] or, with stride 0, [1]; null: each token of each head has its own
  int64_t fixed_stride = 0;
};

// Writes codes [H, T, D] and, without fixed scales, scale [H, T].
struct Float8Encode {
  Float8Scales scales;
  DeviceRows x;
  uint8_t* codes = nullptr;
  float* scale = nullptr;
};
void float8_encode_cuda(const Float8Encode& job, void* stream);

// Writes out [H, T, D].
struct Float8Decode {
  Float8Scales scales;
  int64_t heads = 0, tokens = 0, dim = 0;
  DevicePart codes, scale;
  float* out = nullptr;
};
void float8_decode_cuda(const Float8Decode& job, void* stream);

}  // namespace kvsweep
