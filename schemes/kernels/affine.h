#pragma once

#include "schemes/kernels/affine_math.h"
#include "schemes/kernels/rows.h"

namespace kvsweep {

// The loops of AffineCodec over CUDA memory (codec/affine.h: arithmetic and layout), in one kernel each, queued on a
// cudaStream_t. Launch errors are left for cudaGetLastError().

// Writes codes, scale and zero (of the metadata's type, without gaps; zero is null when symmetric). A group with NaN,
// infinity or too wide a range gets NaN as scale: nothing waits here for the device to say so.
struct AffineEncode {
  AffineShape shape;
  DeviceRows x;
  uint8_t* codes = nullptr;
  void *scale = nullptr, *zero = nullptr;
};
void affine_encode_cuda(const AffineEncode& job, void* stream);

// Writes out [H, T, D]. zero: null data when symmetric.
struct AffineDecode {
  AffineShape shape;
  int64_t heads = 0, tokens = 0;
  DevicePart codes, scale, zero;
  float* out = nullptr;
};
void affine_decode_cuda(const AffineDecode& job, void* stream);

}  // namespace kvsweep
