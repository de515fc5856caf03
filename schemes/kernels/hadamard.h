#pragma once

#include "schemes/kernels/rows.h"

namespace kvsweep {

inline constexpr int64_t kMostHadamardValues = 4096;  // n: a row stays in shared memory

// hadamard_transform() of codec/hadamard.h over CUDA memory, in one kernel queued on a cudaStream_t: x and out are
// `rows` rows of n without gaps. Launch errors are left for cudaGetLastError().
void hadamard_cuda(const void* x, FloatType type, int64_t rows, int64_t n, float* out, void* stream);

}  // namespace kvsweep
