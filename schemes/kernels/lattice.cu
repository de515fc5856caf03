#include "schemes/kernels/lattice.h"

#include <limits>

#include "schemes/kernels/hadamard.cuh"

namespace kvsweep {
namespace {

constexpr int kTile = 1024;  // values of a block, about

__device__ FloatType norm_type(const HiggsShape& shape) {
  return shape.half_norms ? FloatType::kHalf : FloatType::kFloat;
}

// A block: `rows` tokens. Shared memory: their values three times over, the table, what blocks are divided by.
template <int kDim>
__global__ void __launch_bounds__(kThreads) encode(const __grid_constant__ HiggsEncode job, int rows) {
  extern __shared__ double room[];
  const HiggsShape& shape = job.shape;
  const int dim = static_cast<int>(shape.head_dim), channels = static_cast<int>(shape.heads) * dim;
  const int padded = static_cast<int>(shape.padded), h = static_cast<int>(shape.group);
  const int points = static_cast<int>(shape.points), bits = static_cast<int>(shape.code_bits);
  double* squares = room;
  auto* values = reinterpret_cast<float*>(room + rows * padded);
  float *table = values + rows * padded, *divisors = table + points * (kDim + 1);
  const int first = blockIdx.x * rows;
  rows = min(rows, static_cast<int>(job.x.tokens) - first);
  const int count = rows * padded;
  for (int i = threadIdx.x; i < points * (kDim + 1); i += kThreads) table[i] = shape.table[i];
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const int row = i / padded, channel = i % padded;
    const int64_t from = channel / dim * job.x.head_stride + (first + row) * job.x.token_stride + channel % dim;
    const float x = channel < channels ? load_float(job.x.data, from, job.x.type) : 0;
    values[i] = x;
    squares[i] = static_cast<double>(x) * static_cast<double>(x);
  }
  __syncthreads();
  for (int rest = h / 2; rest > 0; rest /= 2) {
    for (int i = threadIdx.x; i < count / h * rest; i += kThreads) {
      double* of_block = squares + i / rest * h;
      of_block[i % rest] += of_block[rest + i % rest];
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < count / h; i += kThreads) {
    const float norm = saturated(static_cast<float>(sqrt(squares[i * h])), norm_type(shape));
    store_float(job.norms, static_cast<int64_t>(first) * (padded / h) + i, norm_type(shape), norm);
    divisors[i] = norm == 0 ? std::numeric_limits<float>::quiet_NaN() : norm;
  }
  __syncthreads();
  const float* y = hadamard_rows(values, reinterpret_cast<float*>(squares), count, h);
  auto* codes = reinterpret_cast<uint8_t*>(squares) + static_cast<size_t>(count) * sizeof(float);
  for (int i = threadIdx.x; i < count / kDim; i += kThreads) {
    const float divisor = divisors[i * kDim / h];
    float at[kDim];
#pragma unroll
    for (int k = 0; k < kDim; ++k) at[k] = y[i * kDim + k] / divisor;
    float best = 0;
    int found = 0;
    for (int j = 0; j < points; ++j) {
      const float* point = table + j * (kDim + 1);
      float score = at[0] * point[0];
#pragma unroll
      for (int k = 1; k < kDim; ++k) score += at[k] * point[k];
      score -= point[kDim];
      if (j == 0 || score > best) {
        best = score;
        found = j;
      }
    }
    codes[i] = static_cast<uint8_t>(found);
  }
  __syncthreads();
  const int a_row = padded / kDim, octets = ceil_div(a_row, kOctet), bytes = ceil_div(a_row * bits, 8);
  for (int i = threadIdx.x; i < rows * octets; i += kThreads) {
    const int row = i / octets, at = i % octets * kOctet, many = min(kOctet, a_row - at);
    uint64_t word = 0;
    for (int k = 0; k < many; ++k) word |= static_cast<uint64_t>(codes[row * a_row + at + k]) << (k * bits);
    store_bytes(job.codes + static_cast<int64_t>(first + row) * bytes + at / kOctet * bits, ceil_div(many * bits, 8),
                word);
  }
}

// A block: `rows` tokens. Shared memory: their values twice over, then the table.
template <int kDim>
__global__ void __launch_bounds__(kThreads) decode(const __grid_constant__ HiggsDecode job, int rows) {
  extern __shared__ double room[];
  const HiggsShape& shape = job.shape;
  const int dim = static_cast<int>(shape.head_dim), channels = static_cast<int>(shape.heads) * dim;
  const int padded = static_cast<int>(shape.padded), h = static_cast<int>(shape.group);
  const int points = static_cast<int>(shape.points), bits = static_cast<int>(shape.code_bits);
  auto* values = reinterpret_cast<float*>(room);
  float *other = values + rows * padded, *table = other + rows * padded;
  const int first = blockIdx.x * rows;
  rows = min(rows, static_cast<int>(job.tokens) - first);
  const int count = rows * padded, a_row = padded / kDim, bytes = ceil_div(a_row * bits, 8);
  for (int i = threadIdx.x; i < points * (kDim + 1); i += kThreads) table[i] = shape.table[i];
  __syncthreads();
  const float most = shape.saturate ? kLargestHalf : std::numeric_limits<float>::infinity();
  for (int i = threadIdx.x; i < count / kDim; i += kThreads) {
    const int row = i / a_row, bit = i % a_row * bits, in_byte = bit % 8;
    const uint8_t* from = job.codes + static_cast<int64_t>(first + row) * bytes + bit / 8;
    uint32_t word = from[0];
    if (in_byte + bits > 8) word |= static_cast<uint32_t>(from[1]) << 8;
    const float* point = table + (word >> in_byte & ((1U << bits) - 1)) * (kDim + 1);
    const float norm =
        load_float(job.norms, static_cast<int64_t>(first) * (padded / h) + i * kDim / h, norm_type(shape));
#pragma unroll
    for (int k = 0; k < kDim; ++k) {
      float y = point[k] * 0.5F * norm;
      y = y > most ? most : y;
      y = y < -most ? -most : y;
      values[i * kDim + k] = nearest_half(y);
    }
  }
  __syncthreads();
  const float* y = hadamard_rows(values, other, count, h);
  const float scale = 1 / static_cast<float>(h);
  for (int i = threadIdx.x; i < rows * channels; i += kThreads) {
    const int channel = i % dim, row = i / dim % rows, head = i / dim / rows;
    const float value = nearest_half(y[row * padded + head * dim + channel] * scale);
    job.out[(head * job.tokens + first + row) * dim + channel] = value;
  }
}

int rows_of_block(const HiggsShape& shape) {
  return kTile < shape.padded ? 1 : kTile / static_cast<int>(shape.padded);
}

size_t table_bytes(const HiggsShape& shape) {
  return static_cast<size_t>(shape.points * (shape.dim + 1)) * sizeof(float);
}

}  // namespace

void higgs_encode_cuda(const HiggsEncode& job, void* stream) {
  const int rows = rows_of_block(job.shape), blocks = ceil_div(static_cast<int>(job.x.tokens), rows);
  const size_t shared = static_cast<size_t>(rows * job.shape.padded) * 3 * sizeof(float) + table_bytes(job.shape) +
                        static_cast<size_t>(rows * job.shape.padded / job.shape.group) * sizeof(float);
  if (job.shape.dim == 2)
    encode<2><<<blocks, kThreads, shared, static_cast<cudaStream_t>(stream)>>>(job, rows);
  else
    encode<4><<<blocks, kThreads, shared, static_cast<cudaStream_t>(stream)>>>(job, rows);
}

void higgs_decode_cuda(const HiggsDecode& job, void* stream) {
  const int rows = rows_of_block(job.shape), blocks = ceil_div(static_cast<int>(job.tokens), rows);
  const size_t shared = static_cast<size_t>(rows * job.shape.padded) * 2 * sizeof(float) + table_bytes(job.shape);
  if (job.shape.dim == 2)
    decode<2><<<blocks, kThreads, shared, static_cast<cudaStream_t>(stream)>>>(job, rows);
  else
    decode<4><<<blocks, kThreads, shared, static_cast<cudaStream_t>(stream)>>>(job, rows);
}

}  // namespace kvsweep
