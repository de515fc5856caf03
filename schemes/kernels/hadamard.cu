#include "schemes/kernels/hadamard.h"

#include "schemes/kernels/hadamard.cuh"

namespace kvsweep {
namespace {

constexpr int kTile = 1024;  // values of a block, about

__global__ void __launch_bounds__(kThreads)
    transform(const void* x, FloatType type, int64_t values, int n, int tile, float* out) {
  extern __shared__ float room[];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * tile;
  const int count = static_cast<int>(min(static_cast<int64_t>(tile), values - first));
  for (int i = threadIdx.x; i < count; i += kThreads) room[i] = load_float(x, first + i, type);
  __syncthreads();
  const float* y = hadamard_rows(room, room + tile, count, n);
  for (int i = threadIdx.x; i < count; i += kThreads) out[first + i] = y[i];
}

}  // namespace

void hadamard_cuda(const void* x, FloatType type, int64_t rows, int64_t n, float* out, void* stream) {
  const auto tile = static_cast<int>(n < kTile ? kTile / n * n : n);
  const auto blocks = static_cast<int>((rows * n + tile - 1) / tile);
  transform<<<blocks, kThreads, 2 * static_cast<size_t>(tile) * sizeof(float), static_cast<cudaStream_t>(stream)>>>(
      x, type, rows * n, static_cast<int>(n), tile, out);
}

}  // namespace kvsweep
