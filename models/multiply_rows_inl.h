// multiply_few_rows() for one instruction set: included once for each, within its target region, by cpu_kernels.cc,
// which sets KVSWEEP_VECTORS (namespace), KVSWEEP_LANES and KVSWEEP_TILE_OUTS. No include guard: it is meant to come
// twice.

namespace {
namespace KVSWEEP_VECTORS {

constexpr int64_t kLanes = KVSWEEP_LANES;
using Lanes [[gnu::vector_size(kLanes * sizeof(float))]] = float;
using UnalignedLanes [[gnu::vector_size(kLanes * sizeof(float)), gnu::aligned(4), gnu::may_alias]] = float;

constexpr int kTileOuts = KVSWEEP_TILE_OUTS, kTileRows = 4;

[[gnu::always_inline]] inline void load(Lanes& lanes, const float* from) {
  lanes = *reinterpret_cast<const UnalignedLanes*>(from);
}

// Fused by name: left to the compiler, GCC 13 rounds the product in some instances and not in others.
[[gnu::always_inline]] inline void fuse(Lanes& sum, const Lanes& a, const Lanes& b) {
#if KVSWEEP_LANES == 16
  sum = Lanes(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(sum)));
#else
  sum = Lanes(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(sum)));
#endif
}

// The sums of four vectors' lanes, neighbours first.
[[gnu::always_inline]] inline __m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}
[[gnu::always_inline]] inline __m256 halves_of(const Lanes& lanes) {
#if KVSWEEP_LANES == 16
  return __m256(__builtin_shufflevector(lanes, lanes, 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(lanes, lanes, 8, 9, 10, 11, 12, 13, 14, 15));
#else
  return __m256(lanes);
#endif
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
      for (int n = 0; n < kOuts; ++n) fuse(sums[n][m], weights[n], x);
    }
  }
#pragma GCC unroll 6
  for (int n = 0; n < kOuts; ++n) {
    __m256 parts[kTileRows] = {};
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) parts[m] = halves_of(sums[n][m]);
    float dots[kTileRows];
    _mm_storeu_ps(dots, sums_of(parts[0], parts[1], parts[2], parts[3]));
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
      float sum = dots[m];
      for (int64_t rest = i; rest < o.in; ++rest)
        sum = __builtin_fmaf(o.weight[(first + n) * o.in + rest], o.x[(row + m) * o.in + rest], sum);
      float& out = o.out[(row + m) * o.outs + first + n];
      out = o.add ? out + sum : sum;
    }
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
  if (rows == 1) return multiply<6, 1>(o, 1, begin, end);  // one tile of AVX2 would leave half of its registers idle
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

}  // namespace KVSWEEP_VECTORS
}  // namespace

#undef KVSWEEP_VECTORS
#undef KVSWEEP_LANES
#undef KVSWEEP_TILE_OUTS
