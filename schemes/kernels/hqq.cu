#include "schemes/kernels/hqq.h"

#include <limits>

#include "schemes/kernels/device.cuh"

namespace kvsweep {
namespace {

constexpr int kWarpSize = 32, kWarps = kThreads / kWarpSize;
constexpr int kColumns = 32, kRows = kThreads / kColumns;  // strided groups of a block, threads of a group
constexpr int kChunk = 64;                                 // values of a group that are summed at a time
constexpr int kCascade = 16;                               // values that ATen adds to one sum before it starts the next
constexpr int kWordCodes = 10;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNoShrink = 0.17F;  // below 0.1^(1 / 1.3) = 0.1701 shrink() gives zero

__device__ float value_at(const HqqEncode& job, int64_t group, int64_t at) {
  const int64_t index = job.shape.strided ? at * job.shape.groups + group : group * job.shape.count + at;
  return narrow_input(load_float(job.x, index, job.x_type), job.shape.type);
}

__device__ void start(const HqqEncode& job, int64_t group, float low, float high) {
  const float range = high - low;
  const float s = range <= 1e-4F ? 1 : fminf(1 / range * job.shape.top, 2e4F);
  job.s[group] = s;
  job.z[group] = -low * s;
}

__device__ float code_of(float x, float s, float z, float top) {
  float y = rintf(x * s + z);
  y = y < 0 ? 0 : y;
  return y > top ? top : y;
}

// x^-0.3, the exponent as float32 has it: a guess, one step of Newton's towards y^-10 = x^3 in double, and what float32
// adds to the exponent.
__device__ float power_of(float x) {
  constexpr double kExcess = static_cast<double>(0.3F) - 0.3;
  const double wide = x, y = exp2f(-0.3F * log2f(x)), fifth = y * y * (y * y) * y;
  const double root = y * (1.1 - 0.1 * (fifth * fifth * (wide * wide * wide)));
  return static_cast<float>(root * (1 - kExcess * static_cast<double>(logf(x))));
}

// One value's part in the new z. Adds |e| to `error`.
__device__ float term_of(float x, float s, float z, float top, double& error) {
  const float code = code_of(x, s, z, top), e = x - (code - z) / s, magnitude = fabsf(e);
  error += magnitude;
  float shrunk = 0;
  if (magnitude > kNoShrink) shrunk = copysignf(fmaxf(magnitude - power_of(magnitude) * 0.1F, 0), e);
  return code - (x - shrunk) * s;
}

// ATen's sum of a row by a warp: 8 lanes, 4 values each at a time.
struct RowSum {
  float first = 0, second = 0;
  int rows = 0;

  __device__ void add(float x) {
    first += x;
    if (++rows % kCascade != 0) return;
    second += first;
    first = 0;
  }
  // rest: the last values, fewer than 32.
  __device__ float total(float rest, int count) const {
    const int lane = threadIdx.x % kWarpSize;
    float sum = first + second;
    int at = 0;
    for (; at + 8 <= count; at += 8) {
      const float x = __shfl_sync(kWarp, rest, at + lane % 8);
      if (lane < 8) sum += x;
    }
    float folded = sum;
    for (int from = 8; from < kWarpSize; from += 8) folded += __shfl_sync(kWarp, sum, from + lane % 8);
    float result = 0;
    for (; at < count; ++at) result += __shfl_sync(kWarp, rest, at);
    for (int k = 0; k < 8; ++k) result += __shfl_sync(kWarp, folded, k);
    return result;
  }
};

// ATen's sum of a column: one by one or, of the columns that do not fill 32, 4 sums at a time. Terms are kColumns
// apart.
template <int kSums>
struct ColumnSum {
  float first[kSums] = {}, second[kSums] = {};
  int rows = 0;

  // A multiple of kSums.
  __device__ void add(const float* terms, int count) {
    for (int i = 0; i < count; i += kSums) {
#pragma unroll
      for (int k = 0; k < kSums; ++k) first[k] += terms[(i + k) * kColumns];
      if (++rows % kCascade != 0) continue;
#pragma unroll
      for (int k = 0; k < kSums; ++k) {
        second[k] += first[k];
        first[k] = 0;
      }
    }
  }
  // rest: the last terms, fewer than kSums.
  __device__ float total(const float* rest, int count) {
#pragma unroll
    for (int k = 0; k < kSums; ++k) first[k] += second[k];
    for (int i = 0; i < count; ++i) first[0] += rest[i * kColumns];
#pragma unroll
    for (int k = 1; k < kSums; ++k) first[0] += first[k];
    return first[0];
  }
};

__global__ void __launch_bounds__(kThreads) start_rows(HqqEncode job) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  if (blockIdx.x == 0 && threadIdx.x == 0) *job.state = {kInfinity, 1, 0};
  if (group >= job.shape.groups) return;
  float low = kInfinity, high = -kInfinity;
  for (int64_t i = lane; i < job.shape.count; i += kWarpSize) {
    const float x = value_at(job, group, i);
    low = x < low ? x : low;
    high = x > high ? x : high;
  }
  low = team_merge(low, kWarpSize, [](float a, float b) { return b < a ? b : a; });
  high = team_max(high, kWarpSize);
  if (lane == 0) start(job, group, low, high);
}

__global__ void __launch_bounds__(kThreads) start_columns(HqqEncode job) {
  __shared__ float lows[kRows][kColumns], highs[kRows][kColumns];
  const int column = threadIdx.x % kColumns, row = threadIdx.x / kColumns;
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kColumns + column;
  if (blockIdx.x == 0 && threadIdx.x == 0) *job.state = {kInfinity, 1, 0};
  float low = kInfinity, high = -kInfinity;
  if (group < job.shape.groups)
    for (int64_t i = row; i < job.shape.count; i += kRows) {
      const float x = value_at(job, group, i);
      low = x < low ? x : low;
      high = x > high ? x : high;
    }
  lows[row][column] = low;
  highs[row][column] = high;
  __syncthreads();
  if (row != 0 || group >= job.shape.groups) return;
  for (int i = 1; i < kRows; ++i) {
    low = lows[i][column] < low ? lows[i][column] : low;
    high = highs[i][column] > high ? highs[i][column] : high;
  }
  start(job, group, low, high);
}

// Sum of a block's `x`, for thread 0.
__device__ double block_sum(double x) {
  __shared__ double sums[kWarps];
  x = team_merge(x, kWarpSize, [](double a, double b) { return a + b; });
  if (threadIdx.x % kWarpSize == 0) sums[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += sums[i];
  __syncthreads();
  return sum;
}

// The block that comes last adds up what each has left, always in the same order, and decides whether the search goes
// on.
__device__ void end_iteration(const HqqEncode& job, double error) {
  __shared__ bool last;
  const double own = block_sum(error);
  if (threadIdx.x == 0) {
    job.sums[blockIdx.x] = own;
    __threadfence();
    last = atomicAdd(&job.state->blocks_done, 1) == static_cast<int32_t>(gridDim.x) - 1;
  }
  __syncthreads();
  if (!last) return;
  double rest = 0;
  for (int i = threadIdx.x; i < gridDim.x; i += kThreads) rest += __ldcg(job.sums + i);
  const double sum = block_sum(rest);
  if (threadIdx.x != 0) return;
  const auto mean = static_cast<float>(sum / static_cast<double>(job.shape.groups * job.shape.count));
  job.state->blocks_done = 0;
  if (mean < job.state->best)
    job.state->best = mean;
  else
    job.state->going = 0;
}

__global__ void __launch_bounds__(kThreads) refine_rows(HqqEncode job) {
  if (job.state->going == 0) return;
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  double error = 0;
  if (group < job.shape.groups) {
    const float s = job.s[group], z = job.z[group];
    const auto count = static_cast<int>(job.shape.count), whole = count / kWarpSize * kWarpSize;
    RowSum sum;
    for (int i = 0; i < whole; i += kWarpSize)
      sum.add(term_of(value_at(job, group, i + lane), s, z, job.shape.top, error));
    float rest = 0;
    if (whole + lane < count) rest = term_of(value_at(job, group, whole + lane), s, z, job.shape.top, error);
    const float total = sum.total(rest, count - whole);
    if (lane == 0) job.z[group] = total / static_cast<float>(count);
  }
  end_iteration(job, error);
}

// The new z of a block's groups; the first kColumns threads have the sums.
template <int kSums>
__device__ void refine_block(const HqqEncode& job, double& error) {
  __shared__ float terms[kChunk][kColumns];
  const int column = threadIdx.x % kColumns, row = threadIdx.x / kColumns, count = static_cast<int>(job.shape.count);
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kColumns + column;
  const bool valid = group < job.shape.groups;
  const float s = valid ? job.s[group] : 1, z = valid ? job.z[group] : 0;
  ColumnSum<kSums> sum;
  float total = 0;
  for (int first = 0; first < count; first += kChunk) {
    const int many = min(kChunk, count - first), whole = many / kSums * kSums;
    for (int i = row; i < many && valid; i += kRows)
      terms[i][column] = term_of(value_at(job, group, first + i), s, z, job.shape.top, error);
    __syncthreads();
    if (row == 0) {
      sum.add(&terms[0][column], whole);
      if (first + many == count) total = sum.total(&terms[0][column] + whole * kColumns, many - whole);
    }
    __syncthreads();
  }
  if (row == 0 && valid) job.z[group] = total / static_cast<float>(count);
}

__global__ void __launch_bounds__(kThreads) refine_columns(HqqEncode job) {
  if (job.state->going == 0) return;
  double error = 0;
  if ((blockIdx.x + 1) * static_cast<int64_t>(kColumns) <= job.shape.groups)
    refine_block<1>(job, error);
  else
    refine_block<4>(job, error);
  end_iteration(job, error);
}

__device__ int64_t group_of(const HqqShape& shape, int64_t value) {
  return shape.strided ? value % shape.groups : value / shape.count;
}

// A thread: the codes of an octet or of a word; the first threads store metadata.
__global__ void __launch_bounds__(kThreads) encode(HqqEncode job, int64_t units) {
  const HqqShape& shape = job.shape;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, values = shape.groups * shape.count;
  if (at < shape.groups) {
    store_float(job.scale, at, shape.type, saturated(1 / job.s[at], shape.type));
    store_float(job.zero, at, shape.type, saturated(job.z[at], shape.type));
  }
  if (at >= units) return;
  const int together = shape.slot == 0 ? kWordCodes : kOctet, bits = shape.slot == 0 ? 3 : static_cast<int>(shape.slot);
  const int count = static_cast<int>(min(static_cast<int64_t>(together), values - at * together));
  uint64_t word = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t value = at * together + i, group = group_of(shape, value);
    const float x = narrow_input(load_float(job.x, value, job.x_type), shape.type);
    word |= static_cast<uint64_t>(code_of(x, job.s[group], job.z[group], shape.top)) << (i * bits);
  }
  if (shape.slot == 0)
    static_cast<int32_t*>(job.codes)[at] = static_cast<int32_t>(word);
  else
    store_bytes(static_cast<uint8_t*>(job.codes) + at * bits, ceil_div(count * bits, 8), word);
}

__global__ void __launch_bounds__(kThreads) decode(HqqDecode job, int64_t units) {
  const HqqShape& shape = job.shape;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, values = shape.groups * shape.count;
  if (at >= units) return;
  const int together = shape.slot == 0 ? kWordCodes : kOctet, bits = shape.slot == 0 ? 3 : static_cast<int>(shape.slot);
  const int count = static_cast<int>(min(static_cast<int64_t>(together), values - at * together));
  const uint64_t word = shape.slot == 0
                            ? static_cast<const uint32_t*>(job.codes)[at]
                            : load_bytes(static_cast<const uint8_t*>(job.codes) + at * bits, ceil_div(count * bits, 8));
  for (int i = 0; i < count; ++i) {
    const int64_t value = at * together + i, group = group_of(shape, value);
    const auto code = static_cast<float>(word >> (i * bits) & ((1U << bits) - 1));
    const float shifted = narrow_result(code - load_float(job.zero, group, shape.type), shape.type);
    job.out[value] = narrow_result(shifted * load_float(job.scale, group, shape.type), shape.type);
  }
}

int64_t units_of(const HqqShape& shape) {
  const int64_t together = shape.slot == 0 ? kWordCodes : kOctet;
  return (shape.groups * shape.count + together - 1) / together;
}

}  // namespace

int64_t hqq_blocks(const HqqShape& shape) {
  return ceil_div(static_cast<int>(shape.groups), shape.strided ? kColumns : kWarps);
}

void hqq_encode_cuda(const HqqEncode& job, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const auto blocks = static_cast<int>(hqq_blocks(job.shape));
  if (job.shape.strided)
    start_columns<<<blocks, kThreads, 0, on>>>(job);
  else
    start_rows<<<blocks, kThreads, 0, on>>>(job);
  for (int i = 0; i < job.iterations; ++i) {
    if (job.shape.strided)
      refine_columns<<<blocks, kThreads, 0, on>>>(job);
    else
      refine_rows<<<blocks, kThreads, 0, on>>>(job);
  }
  const int64_t units = units_of(job.shape), threads = units < job.shape.groups ? job.shape.groups : units;
  encode<<<static_cast<int>((threads + kThreads - 1) / kThreads), kThreads, 0, on>>>(job, units);
}

void hqq_decode_cuda(const HqqDecode& job, void* stream) {
  const int64_t units = units_of(job.shape);
  decode<<<static_cast<int>((units + kThreads - 1) / kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      job, units);
}

}  // namespace kvsweep
