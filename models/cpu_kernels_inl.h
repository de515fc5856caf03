// The kernels for one instruction set: included once for each, within its target region, by cpu_kernels.cc,
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

#if KVSWEEP_LANES == 16
// Groups of four lanes, first and third of each plus second and fourth.
[[gnu::always_inline]] inline __m512 sum_groups(__m512 a, __m512 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
// {sums of a's halves, sums of b's halves}
[[gnu::always_inline]] inline __m512 halves_of(__m512 a, __m512 b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
// In each 128 bits: two sums of neighbours of a, two of b.
[[gnu::always_inline]] inline __m512 neighbours_of(__m512 a, __m512 b) {
  return _mm512_shuffle_ps(a, b, 0x88) + _mm512_shuffle_ps(a, b, 0xdd);
}

template <int kFirst>
[[gnu::always_inline]] inline __m128 four_from(__m512 lanes) {
  return __builtin_shufflevector(lanes, lanes, kFirst, kFirst + 1, kFirst + 2, kFirst + 3);
}

[[gnu::always_inline]] inline void put(__m128 dots, float* out, bool add) {
  _mm_storeu_ps(out, add ? _mm_loadu_ps(out) + dots : dots);
}
[[gnu::always_inline]] inline void put_two(__m128 dots, float* out, bool add) {
  double two = 0;
  std::memcpy(&two, out, sizeof(two));
  if (add) dots += _mm_castpd_ps(_mm_set_sd(two));
  two = _mm_cvtsd_f64(_mm_castps_pd(dots));
  std::memcpy(out, &two, sizeof(two));
}

// The sums of a whole tile's lanes, added in the order of sums_of(); out: of the tile's first row and out.
[[gnu::always_inline]] inline void put_tile(const Lanes (&sums)[6][4], float* out, int64_t stride, bool add) {
  const auto pair = [&](int n, int m) { return halves_of(__m512(sums[n][m]), __m512(sums[n][m + 1])); };
  __m512 rows[2];  // 0 and 1, 2 and 3: [row][half] of four outs each
#pragma GCC unroll 2
  for (int m = 0; m < 4; m += 2)
    rows[m / 2] = neighbours_of(neighbours_of(pair(0, m), pair(1, m)), neighbours_of(pair(2, m), pair(3, m)));
  const __m512 four = sum_groups(rows[0], rows[1]);
  put(four_from<0>(four), out, add);
  put(four_from<4>(four), out + stride, add);
  put(four_from<8>(four), out + 2 * stride, add);
  put(four_from<12>(four), out + 3 * stride, add);
  const __m512 rest = neighbours_of(neighbours_of(pair(4, 0), pair(5, 0)), neighbours_of(pair(4, 2), pair(5, 2)));
  const __m512 two = sum_groups(rest, rest);
  const __m128 even = four_from<0>(two), odd = four_from<4>(two);  // rows 0 and 2, 1 and 3
  put_two(even, out + 4, add);
  put_two(odd, out + stride + 4, add);
  put_two(_mm_movehl_ps(even, even), out + 2 * stride + 4, add);
  put_two(_mm_movehl_ps(odd, odd), out + 3 * stride + 4, add);
}
#endif

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
#if KVSWEEP_LANES == 16
  if constexpr (kOuts == 6 && kRows == 4) {
    if (i == o.in) return put_tile(sums, o.out + row * o.outs + first, o.outs, o.add);
  }
#endif
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

// e^x within 2 ulp for x in [-87.3, 87.3], beyond that as at the nearer end.
[[gnu::always_inline]] inline Lanes exp_of(Lanes x) {
  using Words [[gnu::vector_size(kLanes * sizeof(float))]] = uint32_t;
  const Lanes none = {};
  x = x > none + 87.3F ? none + 87.3F : x;
  x = x < none - 87.3F ? none - 87.3F : x;
  Lanes shifted = none + 0x1.8p23F;  // rounds to whole powers of two, in the lowest bits
  fuse(shifted, x, none + 0x1.715476p0F);
  const Lanes power = shifted - 0x1.8p23F;
  Lanes rest = x;
  fuse(rest, power, none - 0x1.62e4p-1F);  // ln(2) in two parts, the first of 15 bits
  fuse(rest, power, none - 0x1.7f7d1cp-20F);
  Lanes sum = none + 1.0F / 5040;
#pragma GCC unroll 7
  for (const float term : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F}) {
    Lanes next = none + term;
    fuse(next, sum, rest);
    sum = next;
  }
  const Words scale = (__builtin_bit_cast(Words, shifted) << 23) + 0x3f800000U;
  return sum * __builtin_bit_cast(Lanes, scale);
}

void silu_row(const float* gate, const float* up, int64_t width, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    Lanes x, y;
    load(x, gate + i);
    load(y, up + i);
    *reinterpret_cast<UnalignedLanes*>(out + i) = x / (1 + exp_of(-x)) * y;
  }
  for (; i < width; ++i) out[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
}

}  // namespace KVSWEEP_VECTORS
}  // namespace

#undef KVSWEEP_VECTORS
#undef KVSWEEP_LANES
#undef KVSWEEP_TILE_OUTS
