#pragma once

#include "schemes/kernels/rows.h"

namespace kvsweep {

// The loops of HqqCodec over CUDA memory (codec/hqq.h) for groups of one length, queued on a cudaStream_t. Launch
// errors are left for cudaGetLastError(). Values are flattened and without gaps.
inline constexpr int64_t kMostHqqGroup = 1024;

struct HqqShape {
  int64_t groups = 0, count = 0;  // values of a group
  bool strided = false;           // a group: every groups-th value, else values that follow one another
  float top = 0;
  int64_t slot = 0;  // bits of a code's slot; 0: ten codes of 3 bits in an int32
  FloatType type = FloatType::kHalf;
};

// In device memory.
struct HqqState {
  float best;           // smallest mean error so far
  int32_t going;        // whether the search goes on
  int32_t blocks_done;  // of an iteration
};
// Blocks of the search's kernel: as many partial sums.
int64_t hqq_blocks(const HqqShape& shape);

// Writes codes, scale (1 / s) and zero of the type. s, z: room for [groups]; sums: room for hqq_blocks().
struct HqqEncode {
  HqqShape shape;
  const void* x = nullptr;
  FloatType x_type = FloatType::kFloat;
  int iterations = 0;
  float *s = nullptr, *z = nullptr;
  double* sums = nullptr;
  HqqState* state = nullptr;
  void *codes = nullptr, *scale = nullptr, *zero = nullptr;
};
void hqq_encode_cuda(const HqqEncode& job, void* stream);

struct HqqDecode {
  HqqShape shape;
  const void *codes = nullptr, *scale = nullptr, *zero = nullptr;
  float* out = nullptr;
};
void hqq_decode_cuda(const HqqDecode& job, void* stream);

}  // namespace kvsweep
