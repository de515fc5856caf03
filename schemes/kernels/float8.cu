#include "schemes/kernels/float8.h"

#include "schemes/kernels/device.cuh"
#include "schemes/kernels/float8.cuh"

namespace kvsweep {
namespace {

constexpr float kSmallestScale = 1e-6F;

// `lanes` neighbouring threads take a token of a head.
__global__ void __launch_bounds__(kThreads) encode(Float8Encode job, int lanes) {
  const int row = blockIdx.x * (kThreads / lanes) + threadIdx.x / lanes, lane = threadIdx.x % lanes;
  const int tokens = static_cast<int>(job.x.tokens), dim = static_cast<int>(job.x.dim);
  const bool valid = row < job.x.heads * tokens;
  const int head = valid ? row / tokens : 0, token = valid ? row % tokens : 0;
  const int64_t from = head * job.x.head_stride + token * job.x.token_stride;
  const int stride = lanes * kOctet;
  float x[kOctet], scale = 0, factor = 0;
  if (job.scales.fixed != nullptr) {
    scale = job.scales.fixed[head * job.scales.fixed_stride];
  } else {
    float most = 0;
    for (int at = lane * kOctet; at < dim; at += stride) {
      load_octet(job.x.data, from + at, job.x.type, min(kOctet, dim - at), x);
#pragma unroll
      for (const float value : x) most = fmaxf(most, fabsf(value));
    }
    scale = fmaxf(team_max(most, lanes) / job.scales.top, kSmallestScale);
    factor = 1 / scale;
    if (valid && lane == 0) job.scale[row] = scale;
  }
  if (!valid) return;
  for (int at = lane * kOctet; at < dim; at += stride) {
    const int count = min(kOctet, dim - at);
    load_octet(job.x.data, from + at, job.x.type, count, x);
    uint64_t word = 0;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      const float y = job.scales.fixed != nullptr ? x[i] / scale : x[i] * factor;
      word |= static_cast<uint64_t>(to_float8(y, job.scales.e5m2)) << (8 * i);
    }
    store_bytes(job.codes + static_cast<int64_t>(row) * dim + at, count, word);
  }
}

__global__ void __launch_bounds__(kThreads) decode(Float8Decode job, int octets) {
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= octets) return;
  const OctetPlace place(at, job.tokens, job.dim);
  const auto* codes = static_cast<const uint8_t*>(job.codes.data) + place.head * job.codes.head_stride;
  const uint64_t word = load_bytes(codes + place.token * job.dim + place.channel, place.count);
  const float scale = job.scales.fixed != nullptr
                          ? job.scales.fixed[place.head * job.scales.fixed_stride]
                          : static_cast<const float*>(job.scale.data)[place.head * job.scale.head_stride + place.token];
  float values[kOctet];
#pragma unroll
  for (int i = 0; i < kOctet; ++i)
    values[i] = from_float8(static_cast<uint8_t>(word >> (8 * i)), job.scales.e5m2) * scale;
  store_octet(job.out + place.row * job.dim + place.channel, place.count, values);
}

}  // namespace

void float8_encode_cuda(const Float8Encode& job, void* stream) {
  const int lanes = team_size(ceil_div(static_cast<int>(job.x.dim), kOctet));
  const auto rows = static_cast<int>(job.x.heads * job.x.tokens);
  encode<<<ceil_div(rows, kThreads / lanes), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job, lanes);
}

void float8_decode_cuda(const Float8Decode& job, void* stream) {
  const int octets = octet_count(job.heads, job.tokens, job.dim);
  decode<<<ceil_div(octets, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job, octets);
}

}  // namespace kvsweep
