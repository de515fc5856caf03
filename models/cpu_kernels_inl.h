// The kernels for one instruction set: included once for each, within its target region, by cpu_kernels.cc, which sets
// KVSWEEP_VECTORS (namespace), KVSWEEP_LANES, KVSWEEP_TILE_OUTS and KVSWEEP_TILE_VECTORS. No include guard: it is meant
// to come twice.

namespace {
namespace KVSWEEP_VECTORS {

constexpr int kLanes = KVSWEEP_LANES, kTileOuts = KVSWEEP_TILE_OUTS, kTileVectors = KVSWEEP_TILE_VECTORS;
template <int kWidth>
using VectorOf [[gnu::vector_size(kWidth * sizeof(float))]] = float;
template <int kWidth>
using UnalignedOf [[gnu::vector_size(kWidth * sizeof(float)), gnu::aligned(4), gnu::may_alias]] = float;
using Lanes = VectorOf<kLanes>;

template <class V>
[[gnu::always_inline]] inline void load(V& lanes, const float* from) {
  lanes = *reinterpret_cast<const UnalignedOf<sizeof(V) / sizeof(float)>*>(from);
}
template <class V>
[[gnu::always_inline]] inline void store(float* to, const V& lanes) {
  *reinterpret_cast<UnalignedOf<sizeof(V) / sizeof(float)>*>(to) = lanes;
}

// Fused by name: left to the compiler, GCC 13 rounds the product in some instances and not in others.
[[gnu::always_inline]] inline void fuse(VectorOf<8>& sum, const VectorOf<8>& a, const VectorOf<8>& b) {
  sum = VectorOf<8>(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(sum)));
}
[[gnu::always_inline]] inline void spread(VectorOf<8>& lanes, float x) {
  lanes = VectorOf<8>(_mm256_set1_ps(x));
}
#if KVSWEEP_LANES == 16
[[gnu::always_inline]] inline void fuse(VectorOf<16>& sum, const VectorOf<16>& a, const VectorOf<16>& b) {
  sum = VectorOf<16>(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(sum)));
}
[[gnu::always_inline]] inline void spread(VectorOf<16>& lanes, float x) {
  lanes = VectorOf<16>(_mm512_set1_ps(x));
}
#else
[[gnu::always_inline]] inline void fuse(VectorOf<4>& sum, const VectorOf<4>& a, const VectorOf<4>& b) {
  sum = VectorOf<4>(_mm_fmadd_ps(__m128(a), __m128(b), __m128(sum)));
}
[[gnu::always_inline]] inline void spread(VectorOf<4>& lanes, float x) {
  lanes = VectorOf<4>(_mm_set1_ps(x));
}
#endif

// silu(gate) * up, with e^x within 2 ulp for x in [-87.3, 87.3], beyond that as at the nearer end.
template <int kWidth>
[[gnu::always_inline]] inline VectorOf<kWidth> gated(const VectorOf<kWidth>& gate, const VectorOf<kWidth>& up) {
  using V = VectorOf<kWidth>;
  using Words [[gnu::vector_size(kWidth * sizeof(float))]] = uint32_t;
  const V none = {};
  V x = -gate;
  x = x > none + 87.3F ? none + 87.3F : x;
  x = x < none - 87.3F ? none - 87.3F : x;
  V shifted = none + 0x1.8p23F;  // rounds to whole powers of two, in the lowest bits
  fuse(shifted, x, none + 0x1.715476p0F);
  const V power = shifted - 0x1.8p23F;
  V rest = x;
  fuse(rest, power, none - 0x1.62e4p-1F);  // ln(2) in two parts, the first of 15 bits
  fuse(rest, power, none - 0x1.7f7d1cp-20F);
  V sum = none + 1.0F / 5040;
#pragma GCC unroll 7
  for (const float term : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F}) {
    V next = none + term;
    fuse(next, sum, rest);
    sum = next;
  }
  const Words scale = (__builtin_bit_cast(Words, shifted) << 23) + 0x3f800000U;
  const V power_of_e = sum * __builtin_bit_cast(V, scale);
  return gate / (1 + power_of_e) * up;
}

// Rows of x are laid out in blocks, [in][rows of the block]: a lane is a row, and a dot product one chain of fused
// multiply-adds. Nothing is added across lanes, and no row's bits depend on the rows beside it or the vectors' width.
// A block has whole vectors, or half of one; lanes without a row are zero.
constexpr int64_t kHalf = kLanes / 2, kMostRows = kTileVectors * kLanes;

int64_t padded_rows(int64_t rows) {
  return at::divup(rows, kHalf) * kHalf;
}
[[gnu::always_inline]] inline int64_t block_of(int64_t rows_left) {
  const int64_t padded = padded_rows(rows_left);
  return padded < kLanes ? kHalf : std::min(padded / kLanes * kLanes, kMostRows);
}

// With one row weights come at the memory's rate: so far ahead its latency is hidden, and L2 holds them.
constexpr int kTilesAhead = 4;

[[gnu::always_inline]] inline void transpose(__m256 (&x)[8]) {
  __m256 pairs[8], fours[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      fours[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
      fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    x[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
}

// A few columns at a time: what is written stays at hand until its lines are full.
void lay_out(const float* x, int64_t rows, int64_t in, float* out) {
  for (int64_t row = 0, block = 0; row < rows; row += block) {
    block = block_of(rows - row);
    float* to = out + row * in;
    for (int64_t first = 0; first < in; first += kLanes) {
      const int64_t last = std::min(first + kLanes, in), whole = first + (last - first) / 8 * 8;
      for (int64_t lane = 0; lane < block; lane += 8) {
        const int64_t count = std::clamp<int64_t>(rows - row - lane, 0, 8);
        const float* from = x + (row + lane) * in;
        for (int64_t column = first; column < whole; column += 8) {
          __m256 eight[8] = {};
#pragma GCC unroll 8
          for (int i = 0; i < 8; ++i)
            if (i < count) eight[i] = _mm256_loadu_ps(from + i * in + column);
          transpose(eight);
          float* lanes = to + column * block + lane;
#pragma GCC unroll 8
          for (int i = 0; i < 8; ++i)
            if (block >= 8)
              _mm256_storeu_ps(lanes + i * block, eight[i]);
            else
              _mm_storeu_ps(lanes + i * block, _mm256_castps256_ps128(eight[i]));
        }
        for (int64_t column = whole; column < last; ++column)
          for (int64_t i = 0; i < std::min<int64_t>(block, 8); ++i)
            to[column * block + lane + i] = i < count ? from[i * in + column] : 0;
      }
    }
  }
}

// Lanes 8 * part to 8 * part + 7 of a vector; of half a vector its four.
[[gnu::always_inline]] inline __m256 eight_of(const VectorOf<8>& lanes, int) {
  return __m256(lanes);
}
#if KVSWEEP_LANES == 16
[[gnu::always_inline]] inline __m256 eight_of(const VectorOf<16>& lanes, int part) {
  return part == 0 ? __m256(__builtin_shufflevector(lanes, lanes, 0, 1, 2, 3, 4, 5, 6, 7))
                   : __m256(__builtin_shufflevector(lanes, lanes, 8, 9, 10, 11, 12, 13, 14, 15));
}
#else
[[gnu::always_inline]] inline __m256 eight_of(const VectorOf<4>& lanes, int) {
  return _mm256_castps128_ps256(__m128(lanes));
}
#endif

template <int kOuts>
[[gnu::always_inline]] inline void put_row(__m256 dots, float* out, bool add) {
  if constexpr (kOuts == 8) {
    _mm256_storeu_ps(out, add ? _mm256_add_ps(_mm256_loadu_ps(out), dots) : dots);
  } else {
    const __m256i whole = _mm256_cmpgt_epi32(_mm256_set1_epi32(kOuts), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    _mm256_maskstore_ps(out, whole, add ? _mm256_add_ps(_mm256_maskload_ps(out, whole), dots) : dots);
  }
}

// Sums of rows begin, ... for `kOuts` outputs, turned, so that what lies together is written together.
template <int kOuts, int kWidth>
[[gnu::always_inline]] inline void put_tile(const Operands& o, int64_t begin, int64_t first,
                                            const VectorOf<kWidth> (&sums)[kOuts]) {
  constexpr int kParts = kWidth < 8 ? 1 : kWidth / 8;
#pragma GCC unroll 2
  for (int part = 0; part < kParts; ++part) {
    __m256 dots[8] = {};
#pragma GCC unroll 8
    for (int n = 0; n < kOuts; ++n) dots[n] = eight_of(sums[n], part);
    transpose(dots);
    const int64_t rows = std::min<int64_t>(o.rows - begin - 8 * part, std::min(kWidth, 8));
    float* out = o.out + (begin + 8 * part) * o.outs + first;
#pragma GCC unroll 8
    for (int m = 0; m < 8; ++m)
      if (m < rows) put_row<kOuts>(dots[m], out + m * o.outs, o.add);
  }
}

// Sums of rows row, ... of kVectors * kWidth for outputs first, ...
template <int kOuts, int kWidth, int kVectors, bool kPrefetch>
[[gnu::always_inline]] inline void add_up(const Operands& o, int64_t row, int64_t first,
                                          VectorOf<kWidth> (&sums)[kVectors][kOuts]) {
  const float *x = o.x + row * o.in, *weight = o.weight + first * o.in;
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v)
#pragma GCC unroll 8
    for (int n = 0; n < kOuts; ++n) sums[v][n] = VectorOf<kWidth>{};
  const auto column = [&](int64_t i) {
    VectorOf<kWidth> rows[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) load(rows[v], x + (i * kVectors + v) * kWidth);
#pragma GCC unroll 8
    for (int n = 0; n < kOuts; ++n) {
      VectorOf<kWidth> w;
      spread(w, weight[n * o.in + i]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) fuse(sums[v][n], rows[v], w);
    }
  };
  int64_t i = 0;
  if constexpr (kPrefetch) {  // weights of a later tile
    while (i + 16 <= o.in) {
#pragma GCC unroll 8
      for (int n = 0; n < kOuts; ++n) __builtin_prefetch(weight + (n + kTilesAhead * kOuts) * o.in + i, 0, 2);
#pragma GCC unroll 4
      for (const int64_t stop = i + 16; i < stop; ++i) column(i);
    }
  }
  for (; i < o.in; ++i) column(i);
}

// What becomes of a block's sums. Here: they are the output.
struct Product {
  template <int kOuts, int kWidth, int kVectors, bool kPrefetch>
  [[gnu::always_inline]] static void tile(const Operands& o, int64_t row, int64_t first) {
    VectorOf<kWidth> sums[kVectors][kOuts];
    add_up<kOuts, kWidth, kVectors, kPrefetch>(o, row, first, sums);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put_tile<kOuts, kWidth>(o, row + v * kWidth, first, sums[v]);
  }
};

// Here: they are held for the next product with as many outputs.
struct Gate {
  template <int kOuts, int kWidth, int kVectors, bool kPrefetch>
  [[gnu::always_inline]] static void tile(const Operands& o, int64_t row, int64_t first) {
    VectorOf<kWidth> sums[kVectors][kOuts];
    add_up<kOuts, kWidth, kVectors, kPrefetch>(o, row, first, sums);
    float* gates = o.gates + row * kOuts;
#pragma GCC unroll 8
    for (int n = 0; n < kOuts; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store(gates + (n * kVectors + v) * kWidth, sums[v][n]);
  }
};

// Here: silu(gate) times them is the output, laid out in blocks as x is. The weights are behind those of the gates.
struct Opened {
  template <int kOuts, int kWidth, int kVectors, bool kPrefetch>
  [[gnu::always_inline]] static void tile(const Operands& o, int64_t row, int64_t first) {
    VectorOf<kWidth> sums[kVectors][kOuts];
    add_up<kOuts, kWidth, kVectors, kPrefetch>(o, row, o.outs + first, sums);
    const float* gates = o.gates + row * kOuts;
    float* out = o.out + row * o.outs + first * kVectors * kWidth;
#pragma GCC unroll 8
    for (int n = 0; n < kOuts; ++n)
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        VectorOf<kWidth> gate;
        load(gate, gates + (n * kVectors + v) * kWidth);
        store(out + (n * kVectors + v) * kWidth, gated<kWidth>(gate, sums[v][n]));
      }
  }
};

template <class Sink, int kOuts, bool kPrefetch>
[[gnu::always_inline]] inline void block(const Operands& o, int64_t row, int64_t rows, int64_t first) {
  if (rows == kHalf) return Sink::template tile<kOuts, kHalf, 1, kPrefetch>(o, row, first);
  if (rows == kLanes) return Sink::template tile<kOuts, kLanes, 1, kPrefetch>(o, row, first);
  if (rows == 2 * kLanes) return Sink::template tile<kOuts, kLanes, 2, kPrefetch>(o, row, first);
  Sink::template tile<kOuts, kLanes, kTileVectors, kPrefetch>(o, row, first);
}

template <class Sink, int kOuts>
void all_rows(const Operands& o, int64_t first) {
  for (int64_t row = 0, rows = 0; row < o.rows; row += rows) {
    rows = block_of(o.rows - row);
    if (row == 0)
      block<Sink, kOuts, true>(o, row, rows, first);
    else
      block<Sink, kOuts, false>(o, row, rows, first);
  }
}

void multiply_outs(const Operands& o, int64_t begin, int64_t end) {
  int64_t first = begin;
  for (; first + kTileOuts <= end; first += kTileOuts) all_rows<Product, kTileOuts>(o, first);
  for (; first < end; ++first) all_rows<Product, 1>(o, first);
}

template <int kOuts>
void open_outs(const Operands& o, int64_t first) {
  all_rows<Gate, kOuts>(o, first);
  all_rows<Opened, kOuts>(o, first);
}

// Block by block: what is opened of one stays in L2, which matters more than reading the weights once.
void add_mlp(const Mlp& mlp, float* room) {
  for (int64_t row = 0, rows = 0; row < mlp.rows; row += rows) {
    rows = std::min(block_of(mlp.rows - row), mlp.rows - row);
    const int64_t padded = padded_rows(rows);
    float *x = room, *opened = x + padded * mlp.width, *gates = opened + padded * mlp.inner;
    lay_out(mlp.x + row * mlp.width, rows, mlp.width, x);
    const Operands up{x, mlp.gate_up, rows, mlp.inner, mlp.width, opened, false, gates};
    int64_t first = 0;
    for (; first + kTileOuts <= mlp.inner; first += kTileOuts) open_outs<kTileOuts>(up, first);
    for (; first < mlp.inner; ++first) open_outs<1>(up, first);
    const Operands down{opened, mlp.down, rows, mlp.width, mlp.inner, mlp.out + row * mlp.width, true};
    multiply_outs(down, 0, mlp.width);
  }
}

int64_t mlp_room(const Mlp& mlp) {
  return std::min(kMostRows, padded_rows(mlp.rows)) * (mlp.width + mlp.inner + kTileOuts);
}

// Columns [first, in) of one output of one row, behind those in `sum`.
[[gnu::always_inline]] inline void finish_dot(const Operands& o, int64_t row, int64_t out, int64_t first, float sum) {
  const float *x = o.x + row * o.in, *weight = o.weight + out * o.in;
  for (int64_t i = first; i < o.in; ++i) sum = __builtin_fmaf(weight[i], x[i], sum);
  float& to = o.out[row * o.outs + out];
  to = o.add ? to + sum : sum;
}

// The same sums for a few rows, as they lie: a lane is one of eight outputs, whose weights are turned as they are read.
// Lanes without a row would cost as much as those with one.
template <int kRows>
[[gnu::always_inline]] inline void tile_of_few(const Operands& o, int64_t first) {
  VectorOf<8> sums[kRows] = {};
  const float* weight = o.weight + first * o.in;
  int64_t i = 0;
  for (; i + 8 <= o.in; i += 8) {
    __m256 columns[8];
#pragma GCC unroll 8
    for (int n = 0; n < 8; ++n) {
      const float* at = weight + n * o.in + i;
      columns[n] = _mm256_loadu_ps(at);
      __builtin_prefetch(at + kTilesAhead * kFewOuts * o.in, 0, 2);
    }
    transpose(columns);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k)
#pragma GCC unroll 4
      for (int m = 0; m < kRows; ++m) {
        VectorOf<8> x;
        spread(x, o.x[m * o.in + i + k]);
        fuse(sums[m], VectorOf<8>(columns[k]), x);
      }
  }
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    float dots[8];
    store(dots, sums[m]);
    for (int n = 0; n < 8; ++n) finish_dot(o, m, first + n, i, dots[n]);
  }
}

template <int kRows>
void multiply_few(const Operands& o, int64_t begin, int64_t end) {
  int64_t first = begin;
  for (; first + kFewOuts <= end; first += kFewOuts) tile_of_few<kRows>(o, first);
  for (; first < end; ++first)
    for (int m = 0; m < kRows; ++m) finish_dot(o, m, first, 0, 0);
}

void multiply_few_outs(const Operands& o, int64_t begin, int64_t end) {
  switch (o.rows) {
    case 1:
      return multiply_few<1>(o, begin, end);
    case 2:
      return multiply_few<2>(o, begin, end);
    case 3:
      return multiply_few<3>(o, begin, end);
    default:
      return multiply_few<kFewRows>(o, begin, end);
  }
}

void silu_row(const float* gate, const float* up, int64_t width, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    Lanes x, y;
    load(x, gate + i);
    load(y, up + i);
    store(out + i, gated<kLanes>(x, y));
  }
  if (i == width) return;
  float rest[3][kLanes] = {};
  std::copy(gate + i, gate + width, rest[0]);
  std::copy(up + i, up + width, rest[1]);
  Lanes x, y;
  load(x, rest[0]);
  load(y, rest[1]);
  store(rest[2], gated<kLanes>(x, y));
  std::copy_n(rest[2], width - i, out + i);
}

}  // namespace KVSWEEP_VECTORS
}  // namespace

#undef KVSWEEP_VECTORS
#undef KVSWEEP_LANES
#undef KVSWEEP_TILE_OUTS
#undef KVSWEEP_TILE_VECTORS
