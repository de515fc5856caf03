#include "schemes/codec/hadamard.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/cuda_launch.h"
#include "schemes/kernels/hadamard.h"

namespace kvsweep {
namespace {

constexpr int64_t kParallelValues = 1 << 15;  // values below which a second thread costs more than it saves

void require_power_of_two(int64_t n) {
  TORCH_CHECK(n >= 1 && (n & (n - 1)) == 0, "Hadamard matrix: ", n, " is no power of two");
}

// One step: neighbours become sum and difference, sums go to the front half. Each step so transforms the lowest bit of
// the index and turns it to the top; after log2(n) steps every bit is back in its place. All steps read and write
// alike, which plain loops and tensor operations both do fast.
[[gnu::always_inline]] inline void step(const float* from, int64_t half, float* to) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = from[2 * i], b = from[2 * i + 1];
    to[i] = a + b;
    to[half + i] = a - b;
  }
}

constexpr int64_t kChunk = kHadamardInPlace, kVectors = 8;
using FourLanes = float __attribute__((vector_size(16)));
using Lanes = float __attribute__((vector_size(32)));

// A step over the lowest bit of the place in a vector. That bit becomes the one of the vector's index that `apart`
// is, which in turn becomes the higher bit of the place.
[[gnu::always_inline]] inline void step_in_lanes(Lanes* v, int apart) {
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i)
    if ((i & apart) == 0) {
      const Lanes a = __builtin_shufflevector(v[i], v[i + apart], 0, 2, 8, 10, 4, 6, 12, 14);
      const Lanes b = __builtin_shufflevector(v[i], v[i + apart], 1, 3, 9, 11, 5, 7, 13, 15);
      v[i] = a + b;
      v[i + apart] = a - b;
    }
}

// All six steps of a chunk in registers: the same sums as step() six times. Halves of a vector are 32 values apart,
// places in them and vectors follow one another: bits 4, 3, 2 of a value's index are its vector, 1 and 0 its place.
// After four steps they are that again.
[[gnu::always_inline]] inline void transform_chunk(float* x) {
  Lanes v[kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    FourLanes low, high;
    std::memcpy(&low, x + 4 * i, sizeof(low));
    std::memcpy(&high, x + 32 + 4 * i, sizeof(high));
    v[i] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
  }
  step_in_lanes(v, 1);
  step_in_lanes(v, 2);
  step_in_lanes(v, 1);
  step_in_lanes(v, 2);
#pragma GCC unroll 4
  for (int i = 0; i < kVectors / 2; ++i) {
    const Lanes a = v[i], b = v[i + 4];
    v[i] = a + b;
    v[i + 4] = a - b;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kVectors; i += 2) {
    const Lanes a = __builtin_shufflevector(v[i], v[i + 1], 0, 1, 2, 3, 8, 9, 10, 11);
    const Lanes b = __builtin_shufflevector(v[i], v[i + 1], 4, 5, 6, 7, 12, 13, 14, 15);
    const Lanes sum = a + b, difference = a - b;
    std::memcpy(x + 4 * i, &sum, sizeof(sum));
    std::memcpy(x + 32 + 4 * i, &difference, sizeof(difference));
  }
}

// The lowest bits of the index in chunks, the others one by one where they are.
[[gnu::always_inline]] inline void transform_chunks(float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kChunk) transform_chunk(x + i);
  for (int64_t half = kChunk; half < n; half *= 2)
    for (int64_t first = 0; first < n; first += 2 * half)
      for (int64_t i = first; i < first + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
}

}  // namespace

at::Tensor hadamard_matrix(int64_t n) {
  require_power_of_two(n);
  at::Tensor h = at::ones({1, 1}, at::kFloat);
  while (h.size(0) < n) h = at::cat({at::cat({h, h}, 1), at::cat({h, -h}, 1)}, 0);
  return h;
}

// Several rows go through a step together: a step of one would wait for what the step before has just stored.
KVSWEEP_CPU_CLONES void hadamard_rows(float* x, int64_t rows, int64_t n, float* scratch) {
  if (n >= kChunk) {
    for (int64_t row = 0; row < rows; ++row) transform_chunks(x + row * n, n);
    return;
  }
  for (int64_t first = 0; first < rows; first += kHadamardRows, x += kHadamardRows * n) {
    const int64_t count = std::min(kHadamardRows, rows - first);
    float *from = x, *to = scratch;
    for (int64_t done = 1; done < n; done *= 2) {
      for (int64_t row = 0; row < count; ++row) step(from + row * n, n / 2, to + row * n);
      std::swap(from, to);
    }
    if (from != x) std::copy_n(from, count * n, x);
  }
}

at::Tensor hadamard_transform(const at::Tensor& x) {
  const int64_t n = x.size(-1);
  require_power_of_two(n);
#ifdef KVSWEEP_CUDA
  if (x.is_cuda() && x.numel() > 0 && n <= kMostHadamardValues) {
    at::Tensor held;
    const DeviceRows rows = rows_of(x.contiguous().view({1, -1, n}), held);
    const at::Tensor out = at::empty(x.sizes(), x.options().dtype(at::kFloat));
    launch_on(x, [&](void* stream) {
      hadamard_cuda(rows.data, rows.type, rows.tokens, n, out.mutable_data_ptr<float>(), stream);
    });
    return out;
  }
#endif
  if (!x.is_cpu()) return hadamard_transform_with_ops(x);
  at::Tensor out = at::empty(x.sizes(), x.options().dtype(at::kFloat));
  out.copy_(x);
  auto* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, out.numel() / n, kParallelValues / n + 1, [&](int64_t first, int64_t last) {
    std::vector<float> scratch(static_cast<size_t>(n < kHadamardInPlace ? kHadamardRows * n : 0));
    hadamard_rows(to + first * n, last - first, n, scratch.data());
  });
  return out;
}

at::Tensor hadamard_transform_with_ops(const at::Tensor& x) {
  const int64_t n = x.size(-1);
  require_power_of_two(n);
  at::Tensor out = x.to(at::kFloat);
  for (int64_t done = 1; done < n; done *= 2) {
    const at::Tensor pairs = out.unflatten(-1, {n / 2, 2});
    const at::Tensor a = pairs.select(-1, 0), b = pairs.select(-1, 1);
    out = at::cat({a + b, a - b}, -1);
  }
  return out;
}

}  // namespace kvsweep
