#include "schemes/kernels/nvfp4.h"

#include "schemes/kernels/device.cuh"
#include "schemes/kernels/float8.cuh"

namespace kvsweep {
namespace {

constexpr int kLanes = 16 / kOctet;  // neighbouring threads of a block of 16 values

// Between two levels the one with the even code takes the tie.
__device__ uint32_t to_e2m1(float y) {
  const float m = fabsf(y);
  const uint32_t code = (m > 0.25F) + (m >= 0.75F) + (m > 1.25F) + (m >= 1.75F) + (m > 2.5F) + (m >= 3.5F) + (m > 5);
  return y < 0 ? code | 8 : code;
}

__device__ float from_e2m1(uint32_t code) {
  const uint32_t magnitude = code & 7;
  // Two bits of exponent, one of mantissa; steps of 1/2 up to 1.
  const float value = magnitude < 2 ? 0.5F * static_cast<float>(magnitude)
                                    : static_cast<float>((2 | (magnitude & 1)) << (magnitude / 2)) * 0.25F;
  return (code & 8) != 0 ? -value : value;
}

__global__ void __launch_bounds__(kThreads) encode(NvFp4Encode job, int octets) {
  const int at = blockIdx.x * kThreads + threadIdx.x;
  const OctetPlace place(min(at, octets - 1), job.x.tokens, job.x.dim);
  float x[kOctet], most = 0;
  load_octet(job.x, place, x);
#pragma unroll
  for (const float value : x) most = fmaxf(most, fabsf(value));
  most = team_max(most, kLanes);
  if (at >= octets) return;
  float wanted = fmaxf(most / 6 / job.tensor_scale, job.smallest);
  if (job.ones_for_zeros && most == 0) wanted = 1;
  const uint8_t scale = to_float8(wanted, false);
  const float step = from_float8(scale, false) * job.tensor_scale;
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < kOctet; ++i) word |= to_e2m1(x[i] / step) << (4 * i);
  store_bytes(job.codes + (place.row * job.x.dim + place.channel) / 2, 4, word);
  if (place.channel % 16 == 0) job.scale[(place.row * job.x.dim + place.channel) / 16] = scale;
}

__global__ void __launch_bounds__(kThreads) decode(NvFp4Decode job, int octets) {
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= octets) return;
  const OctetPlace place(at, job.tokens, job.dim);
  const auto* codes = static_cast<const uint8_t*>(job.codes.data) + place.head * job.codes.head_stride;
  const auto* scales = static_cast<const uint8_t*>(job.scale.data) + place.head * job.scale.head_stride;
  const int64_t channel = place.token * job.dim + place.channel;
  const auto word = static_cast<uint32_t>(load_bytes(codes + channel / 2, 4));
  const float step = from_float8(scales[channel / 16], false) * job.tensor_scale;
  float values[kOctet];
#pragma unroll
  for (int i = 0; i < kOctet; ++i) values[i] = from_e2m1(word >> (4 * i) & 15) * step;
  store_octet(job.out + place.row * job.dim + place.channel, kOctet, values);
}

}  // namespace

void nvfp4_encode_cuda(const NvFp4Encode& job, void* stream) {
  const int octets = octet_count(job.x.heads, job.x.tokens, job.x.dim);
  encode<<<ceil_div(octets, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job, octets);
}

void nvfp4_decode_cuda(const NvFp4Decode& job, void* stream) {
  const int octets = octet_count(job.heads, job.tokens, job.dim);
  decode<<<ceil_div(octets, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job, octets);
}

}  // namespace kvsweep
