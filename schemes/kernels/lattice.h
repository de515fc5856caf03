#pragma once

#include "schemes/kernels/rows.h"

namespace kvsweep {

// The loops of HiggsCodec over CUDA memory (codec/lattice.h states arithmetic and letters), in one kernel each, queued
// on a cudaStream_t. Launch errors are left for cudaGetLastError().
inline constexpr int64_t kMostHiggsChannels = 3072;  // P: those of a token stay in shared memory

struct HiggsShape {
  int64_t heads = 0, head_dim = 0, padded = 0, group = 0;
  int64_t dim = 0, points = 0, code_bits = 0;  // dim 2 or 4
  bool half_norms = false, saturate = true;
  float table[256 * 5] = {};  // [points, dim + 1]: 2 g_j, then |g_j|^2; goes with the launch
};

// Writes codes [T, packed_bytes(P / d, code_bits)] and norms [T, P / h].
struct HiggsEncode {
  HiggsShape shape;
  DeviceRows x;
  uint8_t* codes = nullptr;
  void* norms = nullptr;
};
void higgs_encode_cuda(const HiggsEncode& job, void* stream);

// Writes out [H, T, D].
struct HiggsDecode {
  HiggsShape shape;
  int64_t tokens = 0;
  const uint8_t* codes = nullptr;
  const void* norms = nullptr;
  float* out = nullptr;
};
void higgs_decode_cuda(const HiggsDecode& job, void* stream);

}  // namespace kvsweep
