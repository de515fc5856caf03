#include "schemes/kernels/device.cuh"
#include "schemes/kernels/finite.h"

namespace kvsweep {
namespace {

__global__ void __launch_bounds__(kThreads) find_others(DeviceRows a, DeviceRows b, int octets, int32_t* found) {
  const DeviceRows& rows = blockIdx.y == 0 ? a : b;
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= octets) return;
  float x[kOctet], poison = 0;
  load_octet(rows, OctetPlace(at, rows.tokens, rows.dim), x);
#pragma unroll
  for (const float value : x) poison += value * 0.0F;
  if (poison != 0) *found = 1;  // NaN differs from everything
}

}  // namespace

void find_others_cuda(const DeviceRows& a, const DeviceRows& b, int32_t* found, void* stream) {
  const int octets = octet_count(a.heads, a.tokens, a.dim);
  find_others<<<dim3(ceil_div(octets, kThreads), 2), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a, b, octets,
                                                                                                       found);
}

}  // namespace kvsweep
