#pragma once

#include "schemes/kernels/device.cuh"

namespace kvsweep {

// Rows of n values, `count` values in all, in shared memory, by a block of kThreads in the steps of hadamard_rows().
// Returns which of the two buffers holds the result; both are overwritten.
__device__ inline float* hadamard_rows(float* from, float* to, int count, int n) {
  for (int done = 1; done < n; done *= 2) {
    for (int i = threadIdx.x; i < count / 2; i += kThreads) {
      const int start = i / (n / 2) * n, at = i % (n / 2);
      const float a = from[start + 2 * at], b = from[start + 2 * at + 1];
      to[start + at] = a + b;
      to[start + n / 2 + at] = a - b;
    }
    __syncthreads();
    float* const last = from;
    from = to;
    to = last;
  }
  return from;
}

}  // namespace kvsweep
