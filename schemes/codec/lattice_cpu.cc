#include "schemes/codec/lattice_cpu.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/bitpack.h"
#include "schemes/codec/hadamard.h"
#include "schemes/codec/lattice_search.h"
#include "schemes/kernels/narrow_float.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

// Squares are summed in double by halves: the order of tensor operations in lattice.cc.
KVSWEEP_INLINE float norm_of(const float* x, int64_t n, bool half, double* squares) {
  for (int64_t i = 0; i < n; ++i) squares[i] = static_cast<double>(x[i]) * static_cast<double>(x[i]);
  for (int64_t rest = n / 2; rest > 0; rest /= 2)
    for (int64_t i = 0; i < rest; ++i) squares[i] += squares[rest + i];
  auto norm = static_cast<float>(std::sqrt(squares[0]));
  const float most = half ? kLargestHalf : std::numeric_limits<float>::max();
  norm = norm > most ? most : norm;
  return half ? nearest_half(norm) : norm;
}

template <int kDim>
KVSWEEP_INLINE void look_up(const float* grid, const uint8_t* codes, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(out + i * kDim, grid + codes[i] * kDim, kDim * sizeof(float));
}

// Points of a row of packed codes, as bitpack.h has them: 8 codes are a word.
template <int kBits>
KVSWEEP_INLINE void look_up_packed(const float* grid, const uint8_t* packed, int64_t codes, float* out) {
  using Pair = uint64_t __attribute__((vector_size(16)));
  const int64_t words = codes / 8;
  for (int64_t i = 0; i < words; ++i, packed += kBits, out += 16) {
    uint64_t word = 0;
    if (i + 1 < words || kBits == 8) {
      std::memcpy(&word, packed, 8);  // with what follows it: put together of parts it would stall
    } else {
      std::memcpy(&word, packed, kBits);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 8; k += 2) {
      constexpr uint64_t kMask = (1 << kBits) - 1;
      uint64_t a, b;
      std::memcpy(&a, grid + 2 * (word >> (k * kBits) & kMask), sizeof(a));
      std::memcpy(&b, grid + 2 * (word >> ((k + 1) * kBits) & kMask), sizeof(b));
      const Pair pair = {a, b};
      std::memcpy(out + 2 * k, &pair, sizeof(pair));
    }
  }
}

KVSWEEP_INLINE void look_up_rows(const HiggsLoops& loops, const HiggsBlocks& from, int64_t codes, float* values,
                                 HiggsScratch& scratch) {
  const int64_t width = codes * loops.dim;
  if (loops.dim == 2 && codes % 8 == 0) {
    for (int64_t t = 0; t < from.tokens; ++t) {
      const uint8_t* packed = from.packed + t * from.packed_stride;
      if (loops.code_bits == 4) {
        look_up_packed<4>(loops.grid, packed, codes, values + t * width);
      } else if (loops.code_bits == 6) {
        look_up_packed<6>(loops.grid, packed, codes, values + t * width);
      } else {
        look_up_packed<8>(loops.grid, packed, codes, values + t * width);
      }
    }
    return;
  }
  scratch.codes.resize(static_cast<size_t>(from.tokens * codes));
  unpack_rows(from.packed, from.packed_stride, from.tokens, codes, loops.code_bits, scratch.codes.data(), codes);
  if (loops.dim == 2)
    look_up<2>(loops.grid, scratch.codes.data(), from.tokens * codes, values);
  else
    look_up<4>(loops.grid, scratch.codes.data(), from.tokens * codes, values);
}

KVSWEEP_INLINE void transform(const HiggsLoops& loops, float* values, int64_t blocks, HiggsScratch& scratch) {
  if (loops.group < kHadamardInPlace) scratch.transform.resize(static_cast<size_t>(kHadamardRows * loops.group));
  hadamard_rows(values, blocks, loops.group, scratch.transform.data());
}

}  // namespace

KVSWEEP_CPU_CLONES void higgs_encode_tokens(const HiggsLoops& loops, const float* x, int64_t tokens, uint8_t* packed,
                                            float* norms, HiggsScratch& scratch) {
  const int64_t h = loops.group, blocks = tokens * loops.padded / h, codes = loops.padded / loops.dim;
  scratch.values.resize(static_cast<size_t>(tokens * loops.padded));
  scratch.squares.resize(static_cast<size_t>(h));
  scratch.codes.resize(static_cast<size_t>(tokens * codes));
  float* values = scratch.values.data();
  for (int64_t t = 0; t < tokens; ++t) {
    std::copy_n(x + t * loops.channels, loops.channels, values + t * loops.padded);
    std::fill_n(values + t * loops.padded + loops.channels, loops.padded - loops.channels, 0.0F);
  }
  for (int64_t b = 0; b < blocks; ++b) norms[b] = norm_of(values + b * h, h, loops.half_norms, scratch.squares.data());
  transform(loops, values, blocks, scratch);
  for (int64_t b = 0; b < blocks; ++b) {
    const float divisor = norms[b] == 0 ? std::numeric_limits<float>::quiet_NaN() : norms[b];
    for (int64_t i = 0; i < h; ++i) values[b * h + i] /= divisor;
  }
  nearest_points(*loops.search, values, tokens * codes, scratch.codes.data());
  pack_rows(scratch.codes.data(), codes, tokens, codes, loops.code_bits, packed, packed_bytes(codes, loops.code_bits));
}

KVSWEEP_CPU_CLONES void higgs_decode_blocks(const HiggsLoops& loops, const HiggsBlocks& from, float* out,
                                            HiggsScratch& scratch) {
  const int64_t h = loops.group, width = from.blocks * h;
  const bool whole = from.columns == width;
  if (!whole) scratch.values.resize(static_cast<size_t>(from.tokens * width));
  float* values = whole ? out : scratch.values.data();
  look_up_rows(loops, from, width / loops.dim, values, scratch);
  bool in_range = true;  // of fp16, as nearly all are: nothing to saturate, no infinity
  for (int64_t t = 0; t < from.tokens; ++t)
    for (int64_t b = 0; b < from.blocks; ++b) {
      const int64_t at = t * from.norm_stride + b;
      const float norm = loops.half_norms ? half_to_float(static_cast<const uint16_t*>(from.norms)[at])
                                          : static_cast<const float*>(from.norms)[at];
      float* block = values + t * width + b * h;
      if (std::abs(norm) * loops.largest < kLargestHalf) {
        for (int64_t i = 0; i < h; ++i) block[i] = nearest_half_unbounded(block[i] * norm);
        continue;
      }
      in_range = false;
      const float most = loops.saturate ? kLargestHalf : std::numeric_limits<float>::infinity();
      for (int64_t i = 0; i < h; ++i) {
        float y = block[i] * norm;
        y = y > most ? most : y;
        y = y < -most ? -most : y;
        block[i] = nearest_half(y);
      }
    }
  transform(loops, values, from.tokens * from.blocks, scratch);
  const float scale = 1 / static_cast<float>(h);
  if (in_range && whole) {
    for (int64_t i = 0; i < from.tokens * width; ++i) out[i] = nearest_half_unbounded(out[i] * scale);
    return;
  }
  for (int64_t t = 0; t < from.tokens; ++t)
    for (int64_t c = 0; c < from.columns; ++c) out[t * from.columns + c] = nearest_half(values[t * width + c] * scale);
}

}  // namespace kvsweep
