#include "models/cpu_kernels.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kvsweep {

#if defined(__x86_64__) && defined(__GNUC__)

bool has_cpu_kernels() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
}

// For a whole region and not for one function: vectors are lowered to the instruction set before anything is inlined.
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace {

// Eight lanes: 12 sums, three weights and one x fill the 16 registers of AVX2.
constexpr int64_t kLanes = 8;
using Lanes [[gnu::vector_size(kLanes * sizeof(float))]] = float;
using UnalignedLanes [[gnu::vector_size(kLanes * sizeof(float)), gnu::aligned(4), gnu::may_alias]] = float;

constexpr int kTileOuts = 3, kTileRows = 4;

struct Operands {
  const float *x, *weight;
  int64_t outs, in;
  float* out;
  bool add;
};

[[gnu::always_inline]] inline void load(Lanes& lanes, const float* from) {
  lanes = *reinterpret_cast<const UnalignedLanes*>(from);
}

[[gnu::always_inline]] inline float sum_of(const Lanes& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

template <int kOuts, int kRows, bool kPrefetch>
[[gnu::always_inline]] inline void tile(const Operands& o, int64_t row, int64_t first) {
  Lanes sums[kOuts][kRows] = {};
  int64_t i = 0;
  for (; i + kLanes <= o.in; i += kLanes) {
    Lanes weights[kOuts];
#pragma GCC unroll 6
    for (int n = 0; n < kOuts; ++n) {
      const float* at = o.weight + (first + n) * o.in + i;
      load(weights[n], at);
      if (kPrefetch) __builtin_prefetch(at + 2 * kOuts * o.in);
    }
#pragma GCC unroll 6
    for (int m = 0; m < kRows; ++m) {
      Lanes x;
      load(x, o.x + (row + m) * o.in + i);
#pragma GCC unroll 6
      for (int n = 0; n < kOuts; ++n) sums[n][m] += weights[n] * x;
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m)
#pragma GCC unroll 6
    for (int n = 0; n < kOuts; ++n) {
      float sum = sum_of(sums[n][m]);
      for (int64_t rest = i; rest < o.in; ++rest)
        // Fused by name: left to the compiler, GCC 13 rounds the product in some instances and not in others.
        sum = __builtin_fmaf(o.weight[(first + n) * o.in + rest], o.x[(row + m) * o.in + rest], sum);
      float& out = o.out[(row + m) * o.outs + first + n];
      out = o.add ? out + sum : sum;
    }
}

// kRest: rows % kTileRows. Rows that are left over meet the weights while these are at hand: another pass over all
// weights would cost as much as the first.
template <int kOuts, int kRest>
[[gnu::always_inline]] inline void all_rows(const Operands& o, int64_t rows, int64_t first) {
  int64_t row = 0;
  if (rows >= kTileRows) {
    tile<kOuts, kTileRows, true>(o, 0, first);
    for (row = kTileRows; row + kTileRows <= rows; row += kTileRows) tile<kOuts, kTileRows, false>(o, row, first);
    if constexpr (kRest > 0) tile<kOuts, kRest, false>(o, row, first);
  } else if constexpr (kRest > 0) {
    tile<kOuts, kRest, true>(o, 0, first);
  }
}

template <int kOuts, int kRest>
void multiply(const Operands& o, int64_t rows, int64_t begin, int64_t end) {
  int64_t first = begin;
  for (; first + kOuts <= end; first += kOuts) all_rows<kOuts, kRest>(o, rows, first);
  for (; first < end; ++first) all_rows<1, kRest>(o, rows, first);
}

void multiply_outs(const Operands& o, int64_t rows, int64_t begin, int64_t end) {
  if (rows == 1) return multiply<2 * kTileOuts, 1>(o, 1, begin, end);
  switch (rows % kTileRows) {
    case 0:
      return multiply<kTileOuts, 0>(o, rows, begin, end);
    case 1:
      return multiply<kTileOuts, 1>(o, rows, begin, end);
    case 2:
      return multiply<kTileOuts, 2>(o, rows, begin, end);
    default:
      return multiply<kTileOuts, 3>(o, rows, begin, end);
  }
}

void norm_row(const float* x, int64_t width, const float* weight, float eps, float* out) {
  Lanes squares = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    Lanes part;
    load(part, x + i);
    squares += part * part;
  }
  float sum = sum_of(squares);
  for (; i < width; ++i) sum += x[i] * x[i];
  const float scale = 1 / std::sqrt(sum / static_cast<float>(width) + eps);
  for (i = 0; i < width; ++i) out[i] = x[i] * scale * weight[i];
}

}  // namespace
#pragma GCC pop_options

void multiply_few_rows(const float* x, int64_t rows, const float* weight, int64_t outs, int64_t in, float* out,
                       bool add) {
  const Operands operands{x, weight, outs, in, out, add};
  const int64_t grain = std::max<int64_t>(kTileOuts, 32768 / in / kTileOuts * kTileOuts);
  // Threads share whole tiles, so that only the last one has an odd end.
  const int64_t tiles = at::divup(outs, kTileOuts);
  at::parallel_for(0, tiles, at::divup(grain, kTileOuts), [&](int64_t begin, int64_t end) {
    multiply_outs(operands, rows, begin * kTileOuts, std::min(outs, end * kTileOuts));
  });
}

void norm_rows(const float* x, int64_t rows, int64_t width, const float* weight, float eps, float* out) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 32768 / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) norm_row(x + row * width, width, weight, eps, out + row * width);
  });
}

#else

bool has_cpu_kernels() {
  return false;
}

void multiply_few_rows(const float*, int64_t, const float*, int64_t, int64_t, float*, bool) {
  TORCH_CHECK(false, "multiply_few_rows: not for this CPU");
}

void norm_rows(const float*, int64_t, int64_t, const float*, float, float*) {
  TORCH_CHECK(false, "norm_rows: not for this CPU");
}

#endif

}  // namespace kvsweep
