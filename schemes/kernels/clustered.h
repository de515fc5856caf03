#pragma once

#include "schemes/kernels/rows.h"

namespace kvsweep {

// The loops of ClusteredCodec over CUDA memory (codec/clustered.h) where it saturates, in one kernel each, queued on a
// cudaStream_t. Launch errors are left for cudaGetLastError().
inline constexpr int64_t kMostClusteredChannels = 8192;  // those of a token stay in shared memory

struct ClusteredShape {
  int64_t heads = 0, dim = 0, clusters = 0;
  int64_t bits = 0;  // of a code; 0: trits
  float top = 0, clip = 1;
  FloatType arithmetic = FloatType::kHalf;
  bool fp8 = false, codes_from_rounded = false;
  // In device memory. Places are those in the clusters' order.
  const int64_t* order = nullptr;    // [heads * dim] channel at each place; null: as they are
  const int64_t* inverse = nullptr;  // [heads * dim] place of each channel; null: as they are
  const int64_t* starts = nullptr;   // [clusters + 1] places
  const int64_t* cluster = nullptr;  // [heads * dim] cluster of each place
};

// Writes codes [T, bytes of a row], scale and zero [T, clusters]. A cluster with NaN, infinity or too wide a range gets
// NaN as scale.
struct ClusteredEncode {
  ClusteredShape shape;
  DeviceRows x;
  uint8_t* codes = nullptr;
  void *scale = nullptr, *zero = nullptr;
};
void clustered_encode_cuda(const ClusteredEncode& job, void* stream);

// Writes out [H, T, D].
struct ClusteredDecode {
  ClusteredShape shape;
  int64_t tokens = 0;
  const uint8_t* codes = nullptr;
  const void *scale = nullptr, *zero = nullptr;
  float* out = nullptr;
};
void clustered_decode_cuda(const ClusteredDecode& job, void* stream);

}  // namespace kvsweep
