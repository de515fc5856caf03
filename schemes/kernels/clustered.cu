#include "schemes/kernels/clustered.h"

#include <limits>

#include "schemes/kernels/device.cuh"
#include "schemes/kernels/float8.cuh"

namespace kvsweep {
namespace {

constexpr int kTile = 2048;  // values of a block, about
constexpr int kLanes = 8;    // neighbouring threads of a cluster
constexpr int kTritsAByte = 5;

__host__ __device__ int row_bytes(const ClusteredShape& shape) {
  const auto channels = static_cast<int>(shape.heads * shape.dim);
  return shape.bits == 0 ? ceil_div(channels, kTritsAByte) : ceil_div(channels * static_cast<int>(shape.bits), 8);
}

// A result of the codec's arithmetic.
__device__ float rounded(float x, FloatType type) {
  if (type == FloatType::kBFloat16) return nearest_bfloat16(x);
  return type == FloatType::kHalf ? saturated(x, type) : x;
}

// Rounded to the metadata's type.
__device__ float stored(float x, const ClusteredShape& shape) {
  return shape.fp8 ? from_float8(to_float8(x, false), false) : x;
}

__device__ void store_metadata(void* data, int64_t at, const ClusteredShape& shape, float x) {
  if (shape.fp8)
    static_cast<uint8_t*>(data)[at] = to_float8(x, false);
  else
    store_float(data, at, shape.arithmetic, x);
}

__device__ float load_metadata(const void* data, int64_t at, const ClusteredShape& shape) {
  return shape.fp8 ? from_float8(static_cast<const uint8_t*>(data)[at], false) : load_float(data, at, shape.arithmetic);
}

// A block: `rows` tokens. Shared memory: [rows, channels] float32 values, then codes.
__global__ void __launch_bounds__(kThreads) encode(ClusteredEncode job, int rows) {
  extern __shared__ float values[];
  const ClusteredShape& shape = job.shape;
  const int dim = static_cast<int>(shape.dim), channels = static_cast<int>(shape.heads) * dim;
  const int clusters = static_cast<int>(shape.clusters);
  auto* codes = reinterpret_cast<uint8_t*>(values + rows * channels);
  const int first = blockIdx.x * rows;
  rows = min(rows, static_cast<int>(job.x.tokens) - first);

  const int octets = ceil_div(dim, kOctet), a_row = static_cast<int>(shape.heads) * octets;
  for (int i = threadIdx.x; i < rows * a_row; i += kThreads) {
    const int row = i / a_row, head = i % a_row / octets, channel = i % octets * kOctet;
    const int count = min(kOctet, dim - channel);
    float x[kOctet];
    load_octet(job.x.data, head * job.x.head_stride + (first + row) * job.x.token_stride + channel, job.x.type, count,
               x);
    // Saturating makes a number of infinity; NaN stays.
    for (int k = 0; k < count; ++k)
      values[row * channels + head * dim + channel + k] =
          x[k] - x[k] == 0 ? rounded(x[k], shape.arithmetic) : std::numeric_limits<float>::quiet_NaN();
  }
  __syncthreads();

  for (int base = 0; base < rows * clusters; base += kThreads / kLanes) {
    const int at = base + threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
    const bool valid = at < rows * clusters;
    const int row = valid ? at / clusters : 0, cluster = valid ? at % clusters : 0;
    const float* of_row = values + row * channels;
    const auto start = static_cast<int>(shape.starts[cluster]), end = static_cast<int>(shape.starts[cluster + 1]);
    const auto value_at = [&](int place) { return of_row[shape.order == nullptr ? place : shape.order[place]]; };
    float low = std::numeric_limits<float>::infinity(), high = -low, poison = 0;
    for (int place = start + lane; place < end; place += kLanes) {
      const float x = value_at(place);
      low = x < low ? x : low;
      high = x > high ? x : high;
      poison += x * 0.0F;
    }
    low = team_merge(low, kLanes, [](float a, float b) { return b < a ? b : a; });
    high = team_max(high, kLanes);
    poison = team_merge(poison, kLanes, [](float a, float b) { return a + b; });
    if (!valid) continue;
    const FloatType type = shape.arithmetic;
    float from = rounded(low * shape.clip, type);
    const float width = rounded(rounded(high * shape.clip, type) - from, type);
    const float smallest = rounded(1e-5F, type);
    float step = rounded(width / shape.top, type);
    step = step < smallest ? smallest : step;
    const bool usable = poison == 0 && width <= std::numeric_limits<float>::max() / 2;
    if (lane == 0) {
      const int64_t to = static_cast<int64_t>(first + row) * clusters + cluster;
      store_metadata(job.scale, to, shape, usable ? step : std::numeric_limits<float>::quiet_NaN());
      store_metadata(job.zero, to, shape, from);
    }
    if (shape.codes_from_rounded) {
      step = stored(step, shape);
      if (step == 0) step = std::numeric_limits<float>::infinity();
      from = stored(from, shape);
    }
    for (int place = start + lane; place < end; place += kLanes) {
      float y = rounded(value_at(place) - from, type) / step;
      y = y < 0 ? 0 : y;
      y = y > shape.top ? shape.top : y;
      codes[row * channels + place] = static_cast<uint8_t>(__float2int_rn(rounded(y, type)));
    }
  }
  __syncthreads();

  const int bits = static_cast<int>(shape.bits), bytes = row_bytes(shape);
  const int together = bits == 0 ? kTritsAByte : kOctet, units = ceil_div(channels, together);
  for (int i = threadIdx.x; i < rows * units; i += kThreads) {
    const int row = i / units, place = i % units * together, count = min(together, channels - place);
    const uint8_t* from = codes + row * channels + place;
    uint64_t word = 0;
    for (int k = count - 1; k >= 0; --k) word = bits == 0 ? 3 * word + from[k] : word << bits | from[k];
    uint8_t* to = job.codes + static_cast<int64_t>(first + row) * bytes + i % units * (bits == 0 ? 1 : bits);
    store_bytes(to, bits == 0 ? 1 : ceil_div(count * bits, 8), word);
  }
}

__device__ int code_at(const uint8_t* row, int place, int bits) {
  if (bits == 0) {
    int digits = row[place / kTritsAByte];
    for (int i = place % kTritsAByte; i > 0; --i) digits /= 3;
    return digits % 3;
  }
  const int bit = place * bits, in_byte = bit % 8;
  uint32_t word = row[bit / 8];
  if (in_byte + bits > 8) word |= static_cast<uint32_t>(row[bit / 8 + 1]) << 8;
  return static_cast<int>(word >> in_byte & ((1U << bits) - 1));
}

__global__ void __launch_bounds__(kThreads) decode(ClusteredDecode job, int octets) {
  const int at = blockIdx.x * kThreads + threadIdx.x;
  if (at >= octets) return;
  const ClusteredShape& shape = job.shape;
  const OctetPlace place(at, job.tokens, shape.dim);
  const uint8_t* codes = job.codes + static_cast<int64_t>(place.token) * row_bytes(shape);
  const int64_t metadata = place.token * shape.clusters;
  float values[kOctet] = {};
  for (int i = 0; i < place.count; ++i) {
    const int64_t channel = place.head * shape.dim + place.channel + i;
    const int64_t of = shape.inverse == nullptr ? channel : shape.inverse[channel], cluster = shape.cluster[of];
    const auto code = static_cast<float>(code_at(codes, static_cast<int>(of), static_cast<int>(shape.bits)));
    const float scaled = rounded(code * load_metadata(job.scale, metadata + cluster, shape), shape.arithmetic);
    values[i] = rounded(scaled + load_metadata(job.zero, metadata + cluster, shape), shape.arithmetic);
  }
  store_octet(job.out + place.row * shape.dim + place.channel, place.count, values);
}

}  // namespace

void clustered_encode_cuda(const ClusteredEncode& job, void* stream) {
  const auto channels = static_cast<int>(job.shape.heads * job.shape.dim);
  const int rows = kTile < channels ? 1 : kTile / channels;
  const auto shared = static_cast<size_t>(rows * channels) * (sizeof(float) + 1);
  const int blocks = ceil_div(static_cast<int>(job.x.tokens), rows);
  encode<<<blocks, kThreads, shared, static_cast<cudaStream_t>(stream)>>>(job, rows);
}

void clustered_decode_cuda(const ClusteredDecode& job, void* stream) {
  const int octets = octet_count(job.shape.heads, job.tokens, job.shape.dim);
  decode<<<ceil_div(octets, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(job, octets);
}

}  // namespace kvsweep
