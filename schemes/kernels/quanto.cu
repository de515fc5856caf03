#include "schemes/kernels/quanto.h"

#include <limits>

#include "schemes/kernels/device.cuh"

namespace kvsweep {
namespace {

constexpr int kColumns = 32, kRows = kThreads / kColumns;

struct Range {
  float low = std::numeric_limits<float>::infinity(), high = -std::numeric_limits<float>::infinity(), poison = 0;

  __device__ void add(float x) {
    low = x < low ? x : low;
    high = x > high ? x : high;
    poison += x * 0.0F;
  }
};

__device__ void store_group(const QuantoEncode& job, int64_t at, const Range& range) {
  const FloatType type = job.shape.type;
  const float low = narrow_input(range.low, type), high = narrow_input(range.high, type);
  const float top = static_cast<float>((1 << job.shape.bits) - 1);
  const float scale = narrow_result(narrow_result(high - low, type) / top, type);
  store_float(job.scale, at, type, range.poison == 0 ? scale : std::numeric_limits<float>::quiet_NaN());
  store_float(job.shift, at, type, -low);
}

// A warp takes a group.
__global__ void __launch_bounds__(kThreads) find_consecutive(QuantoEncode job, int groups, int64_t values) {
  const int at = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (at >= groups) return;
  const int64_t first = at * job.shape.group;
  const int count = static_cast<int>(min(job.shape.group, values - first));
  Range range;
#pragma unroll 4
  for (int i = lane; i < count; i += 32) range.add(load_float(job.x, first + i, job.x_type));
  range.low = team_merge(range.low, 32, [](float a, float b) { return b < a ? b : a; });
  range.high = team_max(range.high, 32);
  range.poison = team_merge(range.poison, 32, [](float a, float b) { return a + b; });
  if (lane == 0) store_group(job, at, range);
}

// A block takes kColumns channels of `group` rows.
__global__ void __launch_bounds__(kThreads) find_columns(QuantoEncode job) {
  __shared__ float low[kRows][kColumns], high[kRows][kColumns], poison[kRows][kColumns];
  const int column = threadIdx.x % kColumns, part = threadIdx.x / kColumns;
  const int64_t channel = blockIdx.y * kColumns + column, first = blockIdx.x * job.shape.group;
  const int64_t last = min(first + job.shape.group, job.shape.rows);
  Range range;
  if (channel < job.shape.dim)
#pragma unroll 4
    for (int64_t row = first + part; row < last; row += kRows)
      range.add(load_float(job.x, row * job.shape.dim + channel, job.x_type));
  low[part][column] = range.low;
  high[part][column] = range.high;
  poison[part][column] = range.poison;
  __syncthreads();
  if (part != 0 || channel >= job.shape.dim) return;
  for (int i = 1; i < kRows; ++i) {
    range.low = low[i][column] < range.low ? low[i][column] : range.low;
    range.high = high[i][column] > range.high ? high[i][column] : range.high;
    range.poison += poison[i][column];
  }
  store_group(job, blockIdx.x * job.shape.dim + channel, range);
}

// Calls work(i, scale, shift) for the `count` values from `first` on.
template <class Work>
__device__ void with_groups(const QuantoShape& shape, const void* scale, const void* shift, int64_t first, int count,
                            const Work& work) {
  const int64_t row = first / shape.dim;
  // Of the metadata's entries that these values meet one after the other: where, and how many values still have it.
  int64_t at = shape.by_rows ? row / shape.group * shape.dim + first % shape.dim : first / shape.group;
  int64_t left = shape.by_rows ? 1 : shape.group - first % shape.group, in_row = shape.dim - first % shape.dim;
  int64_t next_row = row + 1;
  float s = load_float(scale, at, shape.type), z = load_float(shift, at, shape.type);
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    if (i >= count) break;
    if (left == 0) {
      ++at;
      left = shape.by_rows ? 1 : shape.group;
      if (in_row == 0) {
        in_row = shape.dim;
        if (shape.by_rows) at = next_row / shape.group * shape.dim;
        ++next_row;
      }
      s = load_float(scale, at, shape.type);
      z = load_float(shift, at, shape.type);
    }
    --left;
    --in_row;
    work(i, s, z);
  }
}

__global__ void __launch_bounds__(kThreads) encode(QuantoEncode job, int octets, int64_t values) {
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= octets) return;
  const int64_t first = static_cast<int64_t>(at) * kOctet;
  const int count = static_cast<int>(min(static_cast<int64_t>(kOctet), values - first));
  const int bits = static_cast<int>(job.shape.bits);
  const FloatType type = job.shape.type;
  const float top = static_cast<float>((1 << bits) - 1);
  float x[kOctet];
  load_octet(job.x, first, job.x_type, count, x);
  uint64_t word = 0;
  with_groups(job.shape, job.scale, job.shift, first, count, [&](int i, float scale, float shift) {
    float y = narrow_result(narrow_result(narrow_input(x[i], type) + shift, type) / scale, type);
    y = y > 0 ? y : 0;  // also 0 / 0
    y = y < top ? y : top;
    word |= static_cast<uint64_t>(__float2int_rn(y)) << (i * bits);
  });
  store_bytes(job.codes + static_cast<int64_t>(at) * bits, ceil_div(count * bits, 8), word);
}

__global__ void __launch_bounds__(kThreads) decode(QuantoDecode job, int octets, int64_t values) {
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= octets) return;
  const int64_t first = static_cast<int64_t>(at) * kOctet;
  const int count = static_cast<int>(min(static_cast<int64_t>(kOctet), values - first));
  const int bits = static_cast<int>(job.shape.bits);
  const uint64_t word = load_bytes(job.codes + static_cast<int64_t>(at) * bits, ceil_div(count * bits, 8));
  float out[kOctet];
  with_groups(job.shape, job.scale, job.shift, first, count, [&](int i, float scale, float shift) {
    const auto code = static_cast<float>(word >> (i * bits) & ((1U << bits) - 1));
    out[i] = narrow_result(narrow_result(code * scale, job.shape.type) - shift, job.shape.type);
  });
  store_octet(job.out + first, count, out);
}

}  // namespace

void quanto_encode_cuda(const QuantoEncode& job, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t values = job.shape.rows * job.shape.dim;
  const auto in_groups = [&job](int64_t n) { return static_cast<int>((n + job.shape.group - 1) / job.shape.group); };
  if (job.shape.by_rows)
    find_columns<<<dim3(in_groups(job.shape.rows), ceil_div(static_cast<int>(job.shape.dim), kColumns)), kThreads, 0,
                   on>>>(job);
  else
    find_consecutive<<<ceil_div(in_groups(values), kThreads / 32), kThreads, 0, on>>>(job, in_groups(values), values);
  const int octets = octet_count(1, 1, values);
  encode<<<ceil_div(octets, kThreads), kThreads, 0, on>>>(job, octets, values);
}

void quanto_decode_cuda(const QuantoDecode& job, void* stream) {
  const int64_t values = job.shape.rows * job.shape.dim;
  const int octets = octet_count(1, 1, values);
  decode<<<ceil_div(octets, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job, octets, values);
}

}  // namespace kvsweep
