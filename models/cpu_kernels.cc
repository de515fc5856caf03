#include "models/cpu_kernels.h"

#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace kvsweep {

namespace {

struct Operands {
  const float *x, *weight;  // x laid out in blocks, or as it is where the rows are few
  int64_t rows, outs, in;
  float* out;
  bool add;
  float* gates = nullptr;  // room for those of one tile of outputs, [padded rows][outputs]
};
struct Mlp {
  const float* x;
  int64_t rows;
  const float *gate_up, *down;
  int64_t width, inner;
  float* out;
};

constexpr int kFewRows = 4, kFewOuts = 8;

}  // namespace

#if defined(__x86_64__) && defined(__GNUC__)
bool has_cpu_kernels() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
}

CpuVectors widest_vectors() {
  static const bool has = __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return has ? CpuVectors::kAvx512 : CpuVectors::kAvx2;
}

// Targets for whole regions and not for single functions: vectors are lowered to the instruction set before anything is
// inlined.

// 12 sums, two vectors of x and a weight of the 16 registers of AVX2.
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define KVSWEEP_VECTORS avx2
#define KVSWEEP_LANES 8
#define KVSWEEP_TILE_OUTS 6
#define KVSWEEP_TILE_VECTORS 2
#include "models/cpu_kernels_inl.h"
#pragma GCC pop_options

// 24 sums, three vectors of x and a weight of the 32 of AVX-512.
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512dq,avx512vl,prefer-vector-width=512")
#define KVSWEEP_VECTORS avx512
#define KVSWEEP_LANES 16
#define KVSWEEP_TILE_OUTS 8
#define KVSWEEP_TILE_VECTORS 3
#include "models/cpu_kernels_inl.h"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace {

using avx2::kLanes, avx2::Lanes, avx2::load;

void norm_row(const float* x, int64_t width, const float* weight, float eps, float* out) {
  Lanes squares = {};
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    Lanes part;
    load(part, x + i);
    squares += part * part;
  }
  float lanes[kLanes], sum = 0;
  avx2::store(lanes, squares);
  for (const float lane : lanes) sum += lane;
  for (; i < width; ++i) sum += x[i] * x[i];
  const float scale = 1 / std::sqrt(sum / static_cast<float>(width) + eps);
  for (i = 0; i + kLanes <= width; i += kLanes) {
    Lanes part, factor;
    load(part, x + i);
    load(factor, weight + i);
    avx2::store(out + i, part * scale * factor);
  }
  for (; i < width; ++i) out[i] = x[i] * scale * weight[i];
}

}  // namespace
#pragma GCC pop_options

namespace {

// Memory of the calling thread, the same with every call.
float* room_for(int64_t floats) {
  thread_local c10::DataPtr room;
  thread_local int64_t has = 0;
  if (floats > has) {
    room = {};
    room = c10::GetCPUAllocator()->allocate(static_cast<size_t>(floats) * sizeof(float));
    has = floats;
  }
  return static_cast<float*>(room.get());
}

}  // namespace

void multiply_rows(const float* x, int64_t rows, const float* weight, int64_t outs, int64_t in, float* out, bool add,
                   CpuVectors vectors) {
  const bool wide = vectors == CpuVectors::kAvx512, few = rows <= kFewRows;
  const int64_t padded = (wide ? avx512::padded_rows : avx2::padded_rows)(rows);
  const int64_t tile = few ? kFewOuts : wide ? avx512::kTileOuts : avx2::kTileOuts;
  // Threads share whole tiles, so that only the last one has an odd end. Each lays x out for itself: fetching it from
  // another core's cache costs more.
  const int64_t grain = std::max<int64_t>(1, 32768 / in / tile);
  at::parallel_for(0, at::divup(outs, tile), grain, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * tile, last = std::min(outs, end * tile);
    if (few) {
      const Operands operands{x, weight, rows, outs, in, out, add};
      return (wide ? avx512::multiply_few_outs : avx2::multiply_few_outs)(operands, first, last);
    }
    float* laid_out = room_for(padded * in);
    (wide ? avx512::lay_out : avx2::lay_out)(x, rows, in, laid_out);
    const Operands operands{laid_out, weight, rows, outs, in, out, add};
    (wide ? avx512::multiply_outs : avx2::multiply_outs)(operands, first, last);
  });
}

void add_mlp_rows(const float* x, int64_t rows, const float* gate_up, const float* down, int64_t width, int64_t inner,
                  float* out, CpuVectors vectors) {
  const Mlp mlp{x, rows, gate_up, down, width, inner, out};
  if (vectors == CpuVectors::kAvx512)
    avx512::add_mlp(mlp, room_for(avx512::mlp_room(mlp)));
  else
    avx2::add_mlp(mlp, room_for(avx2::mlp_room(mlp)));
}

void silu_mul(const float* gate_up, int64_t rows, int64_t width, float* out, CpuVectors vectors) {
  const auto row_of = vectors == CpuVectors::kAvx512 ? avx512::silu_row : avx2::silu_row;
  at::parallel_for(0, rows, std::max<int64_t>(1, 8192 / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = gate_up + 2 * row * width;
      row_of(gate, gate + width, width, out + row * width);
    }
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

CpuVectors widest_vectors() {
  return CpuVectors::kAvx2;
}

void multiply_rows(const float*, int64_t, const float*, int64_t, int64_t, float*, bool, CpuVectors) {
  TORCH_CHECK(false, "multiply_rows: not for this CPU");
}

void add_mlp_rows(const float*, int64_t, const float*, const float*, int64_t, int64_t, float*, CpuVectors) {
  TORCH_CHECK(false, "add_mlp_rows: not for this CPU");
}

void silu_mul(const float*, int64_t, int64_t, float*, CpuVectors) {
  TORCH_CHECK(false, "silu_mul: not for this CPU");
}

void norm_rows(const float*, int64_t, int64_t, const float*, float, float*) {
  TORCH_CHECK(false, "norm_rows: not for this CPU");
}

#endif

}  // namespace kvsweep
