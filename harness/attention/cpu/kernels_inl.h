// The kernels in terms of lanes, included once for each instruction set (hence no #pragma once) after a lanes_*.h,
// which gives kWidth lanes of float (F) and of words (U), loads, stores, a fused multiply-add and the moves between
// lanes.
//
// Codes are never converted one by one. A row's bits lie in 32-bit words of `codes` codes; a word and a mask give the
// code times a power of two, which is exact in float32 and divided out where it costs nothing: in the query for keys,
// in the sums for values. Lanes are tokens for keys (words are transposed, 16 bytes of a row at a time), so that a
// score needs no sum over lanes, and words of one token for values. Scales and zeros stay outside of the inner loops:
//
//   a scale for each token      score = scale * sum(q * code) + zero * sum(q);   weight * scale, and zero * weight
//   apart a scale for each channel    (q * scale) with the code, plus sum(q * zero);   sum over a group of tokens *
//   scale
//
// Where the codec rounds what it computes to fp16, the tile is dequantized as the codec would do it.
// The order in which a row's sums are made depends on the view alone. With many rows the codes of a tile become floats
// once and are read by all: the same products in the same order.

constexpr int64_t kTile = 64;       // tokens whose words are laid out at a time
constexpr int64_t kFloatTile = 32;  // likewise of floats: 16 KB at D = 128
constexpr int64_t kSlack = 64;      // room beside a chunk's scores, for tiles that reach over its ends
constexpr int64_t kScores = kSlack + kChunkTokens + kMostAlign + 1 + kSlack;
constexpr int64_t kFewRows = 8;       // up to here unpacking again for every four rows is cheaper than a tile of floats
constexpr int64_t kBlockTokens = 16;  // tiles of keys are laid out in blocks of this many tokens
constexpr int64_t kBlockRows = 4;

KVSWEEP_INLINE int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
KVSWEEP_INLINE int64_t most(int64_t a, int64_t b) {
  return a > b ? a : b;
}
KVSWEEP_INLINE int64_t round_up(int64_t x, int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}
KVSWEEP_INLINE F to_float(U x) {
  return __builtin_convertvector(__builtin_bit_cast(I, x), F);
}

KVSWEEP_INLINE float sum_of(F x) {
  float lanes[kWidth];
  store(lanes, x);
  for (int64_t step = kWidth / 2; step > 0; step /= 2)
    for (int64_t i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  return lanes[0];
}

KVSWEEP_INLINE float sum_of(const float* x, int64_t count) {
  F sums{};
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) sums += load(x + i);
  float sum = sum_of(sums);
  for (; i < count; ++i) sum += x[i];
  return sum;
}

// exp(x) for x <= 0, within 2 ulp down to -87.3, zero below. exp(0) is 1 exactly.
KVSWEEP_INLINE F exp_of(F x) {
  constexpr float kRound = 0x1.8p23F;
  const F clamped = max(x, F{} - 87.3F);
  const F shifted = fma(clamped, F{} + 0x1.715476p0F, F{} + kRound);  // log2(e)
  const F n = shifted - kRound;
  F r = fma(n, F{} - 0x1.62e4p-1F, clamped);  // ln(2) in two parts, the first of 15 bits
  r = fma(n, F{} - 0x1.7f7d1cp-20F, r);
  F y = F{} + 1.0F / 5040;
  y = fma(y, r, F{} + 1.0F / 720);
  y = fma(y, r, F{} + 1.0F / 120);
  y = fma(y, r, F{} + 1.0F / 24);
  y = fma(y, r, F{} + 1.0F / 6);
  y = fma(y, r, F{} + 0.5F);
  y = fma(y, r, F{} + 1.0F);
  y = fma(y, r, F{} + 1.0F);
  const U exponent = (__builtin_bit_cast(U, shifted) << 23) + 0x3f800000U;
  y *= __builtin_bit_cast(F, exponent);
  return x < F{} - 87.3F ? F{} : y;
}

// fp16 without a largest value, half to even.
KVSWEEP_INLINE F nearest_half(F x) {
  I exponent = __builtin_bit_cast(I, x) & 0x7f800000;
  const I smallest = I{} + ((127 - 14) << 23);
  exponent = exponent > smallest ? exponent : smallest;
  const F anchor = __builtin_bit_cast(F, (exponent + (13 << 23)) | (1 << 22));
  return (x + anchor) - anchor;
}

// Hands out pieces of a buffer; without one it counts.
struct Arena {
  float* buffer;
  int64_t used = 0;
  float* take(int64_t floats) {
    float* taken = buffer == nullptr ? nullptr : buffer + used;
    used += round_up(floats, 16);
    return taken;
  }
};

// How a row's codes become words.
struct Words {
  int64_t codes = 1, bits = 32;
  int64_t unit_bytes = 16;  // of four words
  alignas(64) uint32_t masks[16 * kWidth];
  alignas(64) uint8_t control[16];
  uint32_t shifts[4];
  float weights[16];  // what a masked code is to be multiplied by
  bool whole() const { return codes * bits == 32; }
  bool shorts() const { return codes * bits == 16; }
};

Words words_of(int64_t bits, int64_t codes) {
  Words words;
  words.codes = codes;
  words.bits = bits;
  words.unit_bytes = codes * bits / 2;
  for (int64_t j = 0; j < codes; ++j) {
    const bool top = words.whole() && j == codes - 1;  // the sign bit: shifted down instead of masked
    words.weights[j] = top ? 1.0F : 1.0F / static_cast<float>(uint64_t{1} << (bits * j));
    for (int64_t i = 0; i < kWidth; ++i)
      words.masks[j * kWidth + i] = static_cast<uint32_t>(((uint64_t{1} << bits) - 1) << (bits * j));
  }
  for (int64_t k = 0; k < 4; ++k) {
    const int64_t bit = k * codes * bits;
    words.shifts[k] = static_cast<uint32_t>(bit % 8);
    for (int64_t i = 0; i < 4; ++i)
      words.control[4 * k + i] = static_cast<uint8_t>(bit / 8 + i < 16 ? bit / 8 + i : 0x80);
  }
  return words;
}

template <int kCodesOfWord, bool kWhole>
struct Packed {
  static constexpr int kCodes = kCodesOfWord;
  static constexpr auto kBytes = static_cast<int64_t>(sizeof(U));  // of kWidth words
  const uint32_t* masks;
  // The j-th code of each word, times a power of two.
  KVSWEEP_INLINE F at(const void* words, int j) const {
    const U word = load_words(words);
    if (kWhole && j == kCodes - 1) return to_float(word >> (32 - 32 / kCodes));
    return to_float(word & load_words(masks + j * kWidth));
  }
};

// The same where a row's words have 16 bits.
template <int kCodesOfWord>
struct Shorts {
  static constexpr int kCodes = kCodesOfWord;
  static constexpr int64_t kBytes = 2 * kWidth;
  const uint32_t* masks;
  KVSWEEP_INLINE F at(const void* words, int j) const {
    return to_float(widen_shorts(words) & load_words(masks + j * kWidth));
  }
};

struct Floats {
  static constexpr int kCodes = 1;
  static constexpr auto kBytes = static_cast<int64_t>(sizeof(F));
  KVSWEEP_INLINE F at(const void* words, int j) const { return load(static_cast<const float*>(words) + j * kWidth); }
};

// Calls work with the Packed of these words.
template <class Work>
KVSWEEP_INLINE void with_codes(const Words& words, const Work& work) {
  if (words.codes == 16) return work(Packed<16, true>{words.masks});
  if (words.codes == 8 && words.whole()) return work(Packed<8, true>{words.masks});
  if (words.codes == 8) return work(Packed<8, false>{words.masks});
  if (words.codes == 4 && words.whole()) return work(Packed<4, true>{words.masks});
  if (words.codes == 4) return work(Packed<4, false>{words.masks});
  return work(Packed<2, false>{words.masks});
}

// For values, whose words of 16 bits are read where they lie.
template <class Work>
KVSWEEP_INLINE void with_value_codes(const Words& words, const Work& work) {
  if (!words.shorts()) return with_codes(words, work);
  if (words.codes == 8) return work(Shorts<8>{words.masks});
  if (words.codes == 4) return work(Shorts<4>{words.masks});
  return work(Shorts<2>{words.masks});
}

// --- metadata ------------------------------------------------------------------------------------------------------

// `count` values from `first` of a head -> floats; out has room for a multiple of 16.
void widen(const Metadata& from, int64_t head, int64_t first, int64_t count, float* out) {
  const int64_t start = head * from.head_stride + first;
  if (from.type == Narrow::kFloat) {
    std::memcpy(out, static_cast<const float*>(from.data) + start, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const auto* narrow = static_cast<const uint16_t*>(from.data) + start;
  const bool half = from.type == Narrow::kHalf;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) store(out + i, half ? load_half(narrow + i) : load_bfloat16(narrow + i));
  if (i == count) return;
  uint16_t rest[kWidth] = {};
  std::memcpy(rest, narrow + i, static_cast<size_t>(count - i) * sizeof(uint16_t));
  store(out + i, half ? load_half(rest) : load_bfloat16(rest));
}

// [tokens, groups] -> [groups, kTile]. Reads and writes up to a multiple of kWidth tokens.
void split_groups(const float* from, int64_t tokens, int64_t groups, float* to) {
  if (groups == 2) {
    for (int64_t t = 0; t < tokens; t += kWidth) {
      const F a = load(from + 2 * t), b = load(from + 2 * t + kWidth);
      store(to + t, evens(a, b));
      store(to + kTile + t, odds(a, b));
    }
  } else if (groups == 4) {
    for (int64_t t = 0; t < tokens; t += kWidth) {
      const float* at = from + 4 * t;
      const F a = load(at), b = load(at + kWidth), c = load(at + 2 * kWidth), d = load(at + 3 * kWidth);
      const F even = evens(a, b), even2 = evens(c, d), odd = odds(a, b), odd2 = odds(c, d);
      store(to + t, evens(even, even2));
      store(to + kTile + t, evens(odd, odd2));
      store(to + 2 * kTile + t, odds(even, even2));
      store(to + 3 * kTile + t, odds(odd, odd2));
    }
  } else {
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t g = 0; g < groups; ++g) to[g * kTile + t] = from[t * groups + g];
  }
}

// Scales and zeros, and what they are made in. `scale` and `zero` are [groups, kTile], or [dim] with groups along
// tokens.
struct Levels {
  float *scale, *zero, *room;
};

// As scale and the zero of code * scale + zero.
KVSWEEP_INLINE void fold_zero(const Run& run, const Levels& levels, int64_t at, int64_t count) {
  for (int64_t i = at; i < at + count; i += kWidth) {
    const F scale = load(levels.scale + i), zero = load(levels.zero + i);
    store(levels.zero + i, run.zero_point ? zero * -scale : fma(F{} - run.offset, scale, zero));
  }
}

// Of tokens first + [lo, hi), zero beyond the run's end. lo and hi are multiples of kBlockTokens.
void load_token_levels(const Run& run, int64_t head, int64_t first, int64_t lo, int64_t hi, bool fold,
                       const Levels& levels) {
  const int64_t groups = run.scale.row, there = least(hi, run.tokens - first) - lo;
  for (const bool zero : {false, true}) {
    const Metadata& from = zero ? run.zero : run.scale;
    float* to = (zero ? levels.zero : levels.scale) + lo;
    if (from.data != nullptr) {
      float* room = groups == 1 ? to : levels.room;
      widen(from, head, (first + lo) * groups, there * groups, room);
      if (groups > 1) split_groups(room, there, groups, to);
    }
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t t = from.data != nullptr ? there : 0; t < hi - lo; ++t) to[g * kTile + t] = 0;
  }
  if (fold)
    for (int64_t g = 0; g < groups; ++g) fold_zero(run, levels, g * kTile + lo, hi - lo);
}

// Of one group of tokens.
void load_channel_levels(const Run& run, int64_t head, int64_t group, int64_t dim, bool fold, const Levels& levels) {
  widen(run.scale, head, group * dim, dim, levels.scale);
  if (run.zero.data != nullptr)
    widen(run.zero, head, group * dim, dim, levels.zero);
  else
    std::memset(levels.zero, 0, static_cast<size_t>(dim) * sizeof(float));
  if (fold) fold_zero(run, levels, 0, dim);
}

// As the codec decodes it.
KVSWEEP_INLINE F value_of(const Run& run, F code, F scale, F zero) {
  if (!run.half_arithmetic) return run.zero_point ? (code - zero) * scale : (code - run.offset) * scale + zero;
  if (run.zero_point) return nearest_half(nearest_half(code - zero) * scale);
  return nearest_half(nearest_half((code - run.offset) * scale) + zero);
}

// One value, for groups that no tile fits.
float value_at(const Run& run, int64_t head, int64_t token, int64_t channel) {
  const int64_t bit = channel * run.bits;
  const uint8_t* at = run.data + head * run.head_bytes + token * run.row_bytes + bit / 8;
  uint32_t word = at[0];
  if (bit % 8 + run.bits > 8) word |= uint32_t{at[1]} << 8;
  const float code = static_cast<float>((word >> (bit % 8)) & ((1U << run.bits) - 1));
  const int64_t level =
      run.along_tokens ? token / run.group * run.scale.row + channel : token * run.scale.row + channel / run.group;
  float scale[16] = {}, zero[16] = {};
  widen(run.scale, head, level, 1, scale);
  if (run.zero.data != nullptr) widen(run.zero, head, level, 1, zero);
  return value_of(run, F{} + code, F{} + scale[0], F{} + zero[0])[0];
}

// --- rows ------------------------------------------------------------------------------------------------------------

// Rows first + [lo, hi) of a head. They are copied, with zeros after the last one, when fewer than `beyond` bytes
// follow them in the run (nobody reads behind a tensor), or made where they come from a source.
const uint8_t* rows_from(const Run& run, int64_t head, int64_t first, int64_t lo, int64_t hi, int64_t beyond,
                         float* room) {
  const int64_t there = run.tokens - first, count = least(hi, there) - lo;
  const int64_t bytes = count * run.row_bytes, all = (hi - lo) * run.row_bytes + beyond;
  auto* to = reinterpret_cast<uint8_t*>(room);
  if (run.data != nullptr) {
    const uint8_t* from = run.data + head * run.head_bytes + (first + lo) * run.row_bytes;
    if (hi <= there && (there - hi) * run.row_bytes >= beyond) return from;
    std::memcpy(to, from, static_cast<size_t>(bytes));
  } else {
    run.source.read(run.source.reader, head, first + lo, count, room);
  }
  std::memset(to + bytes, 0, static_cast<size_t>(all - bytes));
  return to;
}

// Of the tile after this one: a tile ends where a page does, often, and there the hardware stops looking ahead.
KVSWEEP_INLINE void prefetch_rows(const Run& run, int64_t head, int64_t first, int64_t tokens) {
  if (run.data == nullptr) return;
  const uint8_t* from = run.data + head * run.head_bytes + first * run.row_bytes;
  const int64_t bytes = least(tokens, run.tokens - first) * run.row_bytes;
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}

// --- keys ------------------------------------------------------------------------------------------------------------

// 16 bytes of each of kWidth rows -> four words of each, lanes = rows.
KVSWEEP_INLINE void transpose(const uint8_t* from, int64_t stride, const U* control, U out[4]) {
  U rows[4];
#pragma GCC unroll 4
  for (int64_t i = 0; i < 4; ++i) {
    rows[i] = load_blocks(from + i * stride, 4 * stride);
    if (control != nullptr) rows[i] = shuffle_bytes(rows[i], *control);
  }
  const U a = low_words(rows[0], rows[1]), b = high_words(rows[0], rows[1]);
  const U c = low_words(rows[2], rows[3]), d = high_words(rows[2], rows[3]);
  out[0] = low_pairs(a, c);
  out[1] = high_pairs(a, c);
  out[2] = low_pairs(b, d);
  out[3] = high_pairs(b, d);
}

// Rows of `words` words -> [words, tile]; tokens a multiple of kBlockTokens. words is rounded up to 4.
void lay_out(const uint8_t* rows, int64_t stride, int64_t words, int64_t tokens, uint32_t* out, int64_t tile) {
  for (int64_t t = 0; t < tokens; t += kWidth)
    for (int64_t w = 0; w < words; w += 4) {
      U four[4];
      transpose(rows + t * stride + 4 * w, stride, nullptr, four);
#pragma GCC unroll 4
      for (int64_t k = 0; k < 4; ++k) store_words(out + (w + k) * tile + t, four[k]);
    }
}

void lay_out_codes(const Words& plan, const uint8_t* rows, int64_t stride, int64_t words, int64_t tokens, uint32_t* out,
                   int64_t tile) {
  if (plan.whole()) return lay_out(rows, stride, words, tokens, out, tile);
  const U control = broadcast_block(plan.control);
  for (int64_t t = 0; t < tokens; t += kWidth)
    for (int64_t w = 0; w < words; w += 4) {
      U four[4];
      transpose(rows + t * stride + w / 4 * plan.unit_bytes, stride, &control, four);
#pragma GCC unroll 4
      for (int64_t k = 0; k < 4; ++k) store_words(out + (w + k) * tile + t, four[k] >> plan.shifts[k]);
    }
}

template <int kRows, int kVectors, class Codes>
KVSWEEP_INLINE void score_block(const Codes& codes, const uint32_t* words, int64_t tile, int64_t count, const float* q,
                                int64_t q_stride, float* raw) {
  F sums[kRows][kVectors] = {};
  for (int64_t w = 0; w < count; ++w) {
#pragma GCC unroll 16
    for (int j = 0; j < Codes::kCodes; ++j) {
      F x[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) x[v] = codes.at(words + w * tile + v * kWidth, j);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const F factor = broadcast(q + r * q_stride + w * Codes::kCodes + j);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[r][v] = fma(x[v], factor, sums[r][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(raw + r * kTile + v * kWidth, sums[r][v]);
}

template <int kRows, class Codes>
void score_blocks(const Codes& codes, const uint32_t* words, int64_t tile, int64_t tokens, int64_t count,
                  const float* q, int64_t q_stride, float* raw) {
  constexpr int kMost = kKeyTokens[kRows - 1];
  int64_t t = 0;
  for (; t + kMost <= tokens; t += kMost)
    score_block<kRows, kMost / kWidth>(codes, words + t, tile, count, q, q_stride, raw + t);
  for (; t < tokens; t += kBlockTokens)
    score_block<kRows, kBlockTokens / kWidth>(codes, words + t, tile, count, q, q_stride, raw + t);
}

// What is left of scales and zeros when codes have met queries.
struct KeyLevels {
  // A scale for each token: [groups, kTile], with sums of a row's queries over each group.
  const float *scale = nullptr, *zero = nullptr, *q_sums = nullptr;
  int64_t groups = 1;
  const float* bias = nullptr;  // of a row
};

// Scores of `rows` rows with `tokens` tokens laid out as words; out: kScores apart.
template <class Codes>
void score_tile(const Codes& codes, const uint32_t* words, int64_t tile, int64_t tokens, int64_t dim, const float* q,
                int64_t rows, const KeyLevels& levels, float* raw, float* out) {
  const int64_t count = dim / Codes::kCodes / levels.groups;
  for (int64_t row = 0; row < rows; row += kBlockRows) {
    const int64_t block = least(kBlockRows, rows - row);
    for (int64_t g = 0; g < levels.groups; ++g) {
      const uint32_t* at = words + g * count * tile;
      const float* query = q + row * dim + g * count * Codes::kCodes;
      if (block == 4) score_blocks<4>(codes, at, tile, tokens, count, query, dim, raw);
      if (block == 3) score_blocks<3>(codes, at, tile, tokens, count, query, dim, raw);
      if (block == 2) score_blocks<2>(codes, at, tile, tokens, count, query, dim, raw);
      if (block == 1) score_blocks<1>(codes, at, tile, tokens, count, query, dim, raw);
      for (int64_t r = 0; r < block; ++r) {
        float* scores = out + (row + r) * kScores;
        const float* sums = raw + r * kTile;
        if (levels.scale == nullptr) {
          const float bias = levels.bias == nullptr ? 0 : levels.bias[row + r];
          for (int64_t t = 0; t < tokens; t += kWidth) store(scores + t, load(sums + t) + bias);
          continue;
        }
        const F q_sum = broadcast(levels.q_sums + (row + r) * levels.groups + g);
        const float *scale = levels.scale + g * kTile, *zero = levels.zero + g * kTile;
        for (int64_t t = 0; t < tokens; t += kWidth) {
          F score = load(zero + t) * q_sum;
          if (g > 0) score += load(scores + t);
          store(scores + t, fma(load(sums + t), load(scale + t), score));
        }
      }
    }
  }
}

// Scratch of one call of attend_chunk.
struct Room {
  float *scores, *held, *q, *q_scaled, *bias, *q_sums;
  float *words, *tile, *raw, *copy;
  Levels levels;
  float *angles, *cos, *sin;
  float *sums, *zero_sums, *value_words, *value_tile, *weights, *channel_scale, *channel_zero;
};

Room room_of(Arena& arena, const Job& job, int64_t rows) {
  const int64_t dim = job.dim;
  Room room{};
  room.scores = arena.take(rows * kScores);
  room.held = arena.take(job.stretches.empty() ? 0 : rows * kScores);
  room.q = arena.take(rows * dim);
  room.q_scaled = arena.take(rows * dim);
  room.bias = arena.take(rows);
  room.q_sums = arena.take(rows * dim);
  room.words = arena.take(kFloatTile * dim + 4 * kTile);  // of floats, or of at least 4 codes a word
  room.tile = arena.take(kFloatTile * dim);
  room.raw = arena.take(kBlockRows * most(dim, kTile));
  room.copy = arena.take(kFloatTile * dim + 16);  // 32 rows of floats or 64 of codes, and 16 bytes
  room.levels.scale = arena.take(kTile * dim);
  room.levels.zero = arena.take(kTile * dim);
  room.levels.room = arena.take(kTile * dim + 64);
  room.angles = arena.take(kFloatTile * dim);
  room.cos = arena.take(kFloatTile * dim / 2);
  room.sin = arena.take(kFloatTile * dim / 2);
  room.sums = arena.take(rows * dim);
  room.zero_sums = arena.take(rows * dim);  // a vector for each group of at least kWidth channels
  room.value_words = arena.take(kTile * dim / 2);
  room.value_tile = arena.take(kTile * dim);
  room.weights = arena.take(kBlockRows * kTile);
  room.channel_scale = arena.take(dim);
  room.channel_zero = arena.take(dim);
  return room;
}

// Rotates a tile [dim, kFloatTile] of keys of the view's tokens `first` and on.
void rotate_tile(const Job& job, int64_t first, int64_t tokens, const Room& room) {
  const int64_t half = job.dim / 2, there = least(tokens, job.tokens - first);
  for (const bool sine : {false, true}) {
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t token = first + least(t, there - 1);
      const int64_t position = job.positions == nullptr ? job.first_position + token : job.positions[token];
      std::memcpy(room.angles + t * half, (sine ? job.sin : job.cos) + position * half,
                  static_cast<size_t>(half) * sizeof(float));
    }
    lay_out(reinterpret_cast<const uint8_t*>(room.angles), half * static_cast<int64_t>(sizeof(float)), half, tokens,
            reinterpret_cast<uint32_t*>(sine ? room.sin : room.cos), kFloatTile);
  }
  for (int64_t i = 0; i < half; ++i)
    for (int64_t t = 0; t < tokens; t += kWidth) {
      float *one = room.tile + i * kFloatTile + t, *other = room.tile + (i + half) * kFloatTile + t;
      const F a = load(one), b = load(other);
      const F cos = load(room.cos + i * kFloatTile + t), sin = load(room.sin + i * kFloatTile + t);
      store(one, a * cos - b * sin);
      store(other, b * cos + a * sin);
    }
}

const uint32_t* words_in(const float* floats) {
  return reinterpret_cast<const uint32_t*>(floats);
}

// Tokens [begin, end) of a run of float32 keys. scores: those of the run's token 0.
void score_floats(const Job& job, const Run& run, int64_t head, int64_t begin, int64_t end, const float* q,
                  int64_t rows, const Room& room, float* scores) {
  for (int64_t first = begin / kBlockTokens * kBlockTokens; first < end; first += kFloatTile) {
    const int64_t tokens = least(kFloatTile, round_up(end - first, kBlockTokens));
    const uint8_t* from = rows_from(run, head, first, 0, tokens, 0, room.copy);
    prefetch_rows(run, head, first + kFloatTile, kFloatTile);
    lay_out(from, run.row_bytes, job.dim, tokens, reinterpret_cast<uint32_t*>(room.tile), kFloatTile);
    if (run.pending) rotate_tile(job, run.first + first, tokens, room);
    score_tile(Floats{}, words_in(room.tile), kFloatTile, tokens, job.dim, q, rows, {}, room.raw, scores + first);
  }
}

// The codes of a tile as floats [dim, kFloatTile], still times their powers of two.
template <class Codes>
void unpack_keys(const Codes& codes, const uint32_t* words, int64_t count, int64_t tokens, float* out) {
  for (int64_t w = 0; w < count; ++w)
#pragma GCC unroll 16
    for (int j = 0; j < Codes::kCodes; ++j)
      for (int64_t t = 0; t < tokens; t += kWidth)
        store(out + (w * Codes::kCodes + j) * kFloatTile + t, codes.at(words + w * kTile + t, j));
}

// As floats that the codec would give. levels at the tile's first token; with groups along tokens the tile lies in one.
template <class Codes>
void dequantize_keys(const Codes& codes, const Run& run, const Words& plan, const uint32_t* words, int64_t count,
                     int64_t tokens, const float* scale, const float* zero, float* out) {
  for (int64_t w = 0; w < count; ++w)
#pragma GCC unroll 16
    for (int j = 0; j < Codes::kCodes; ++j) {
      const int64_t channel = w * Codes::kCodes + j;
      const int64_t level = run.along_tokens ? channel : channel / run.group * kTile;
      for (int64_t t = 0; t < tokens; t += kWidth) {
        const F code = codes.at(words + w * kTile + t, j) * plan.weights[j];
        const F a = run.along_tokens ? broadcast(scale + level) : load(scale + level + t);
        const F b = run.along_tokens ? broadcast(zero + level) : load(zero + level + t);
        store(out + channel * kFloatTile + t, value_of(run, code, a, b));
      }
    }
}

// q * scale and q . zero of one group of tokens.
void fold_channels(const float* q, const float* q_weighted, int64_t rows, int64_t dim, const Levels& levels,
                   float* scaled, float* bias) {
  for (int64_t r = 0; r < rows; ++r) {
    F sum{};
    for (int64_t d = 0; d < dim; d += kWidth) {
      store(scaled + r * dim + d, load(q_weighted + r * dim + d) * load(levels.scale + d));
      sum = fma(load(q + r * dim + d), load(levels.zero + d), sum);
    }
    bias[r] = sum_of(sum);
  }
}

// Groups along tokens whose borders cross a block of tokens.
void score_crossed(const Job& job, const Run& run, int64_t head, int64_t begin, int64_t end, const float* q,
                   int64_t rows, const Room& room, float* scores) {
  for (int64_t first = begin / kBlockTokens * kBlockTokens; first < end; first += kFloatTile) {
    const int64_t tokens = least(kFloatTile, round_up(end - first, kBlockTokens));
    for (int64_t d = 0; d < job.dim; ++d)
      for (int64_t t = 0; t < tokens; ++t)
        room.tile[d * kFloatTile + t] = first + t < run.tokens ? value_at(run, head, first + t, d) : 0;
    if (run.pending) rotate_tile(job, run.first + first, tokens, room);
    score_tile(Floats{}, words_in(room.tile), kFloatTile, tokens, job.dim, q, rows, {}, room.raw, scores + first);
  }
}

// The codes of a word of keys: as many as 32 bits hold where that divides, since whole words need no shuffle.
int64_t key_codes(const Run& run, int64_t dim) {
  if (run.bits > 4) return 4;
  return run.bits == 2 && dim % 16 == 0 && (run.along_tokens || run.group % 16 == 0) ? 16 : 8;
}

void score_codes(const Job& job, const Run& run, int64_t head, int64_t begin, int64_t end, const float* q, int64_t rows,
                 const Room& room, float* scores) {
  const int64_t dim = job.dim;
  const Words plan = words_of(run.bits, key_codes(run, dim));
  const int64_t count = dim / plan.codes, groups = run.along_tokens ? 1 : run.scale.row;
  const bool fold = !run.half_arithmetic && !run.pending && (run.along_tokens || run.group % plan.codes == 0);
  if (run.along_tokens && run.group % kBlockTokens != 0)
    return score_crossed(job, run, head, begin, end, q, rows, room, scores);
  for (int64_t d = 0; d < rows * dim; d += plan.codes)
    for (int64_t j = 0; j < plan.codes; ++j) room.q[d + j] = q[d + j] * plan.weights[j];
  if (fold && !run.along_tokens)
    for (int64_t g = 0; g < rows * groups; ++g) room.q_sums[g] = sum_of(q + g * run.group, run.group);
  const int64_t last_unit = (count + 3) / 4 - 1;
  const int64_t beyond = most(0, last_unit * plan.unit_bytes + 16 - run.row_bytes);
  auto* words = reinterpret_cast<uint32_t*>(room.words);
  int64_t loaded = -1;  // group of tokens
  for (int64_t first = begin / kTile * kTile; first < end; first += kTile) {
    const int64_t lo = most(0, begin / kBlockTokens * kBlockTokens - first),
                  hi = least(kTile, round_up(end - first, kBlockTokens));
    const uint8_t* from = rows_from(run, head, first, lo, hi, beyond, room.copy);
    prefetch_rows(run, head, first + kTile, kTile);
    lay_out_codes(plan, from, run.row_bytes, count, hi - lo, words + lo, kTile);
    if (!run.along_tokens) load_token_levels(run, head, first, lo, hi, fold, room.levels);
    for (int64_t t = lo; t < hi;) {
      int64_t stop = hi;
      if (run.along_tokens) {
        const int64_t group = (first + t) / run.group;
        stop = least(hi, (group + 1) * run.group - first);
        if (group != loaded) {
          load_channel_levels(run, head, group, dim, fold, room.levels);
          if (fold) fold_channels(q, room.q, rows, dim, room.levels, room.q_scaled, room.bias);
          loaded = group;
        }
      }
      if (!fold || rows > kFewRows) stop = least(stop, t + kFloatTile);
      const int64_t level = run.along_tokens ? 0 : t;
      KeyLevels rest;
      if (fold && run.along_tokens) rest.bias = room.bias;
      if (fold && !run.along_tokens)
        rest = {room.levels.scale + level, room.levels.zero + level, room.q_sums, groups, nullptr};
      const float* query = !fold ? q : run.along_tokens ? room.q_scaled : room.q;
      float* out = scores + first + t;
      with_codes(plan, [&](const auto& codes) {
        if (fold && rows <= kFewRows)
          return score_tile(codes, words + t, kTile, stop - t, dim, query, rows, rest, room.raw, out);
        if (fold)
          unpack_keys(codes, words + t, count, stop - t, room.tile);
        else
          dequantize_keys(codes, run, plan, words + t, count, stop - t, room.levels.scale + level,
                          room.levels.zero + level, room.tile);
        if (run.pending) rotate_tile(job, run.first + first + t, stop - t, room);
        score_tile(Floats{}, words_in(room.tile), kFloatTile, stop - t, dim, query, rows, rest, room.raw, out);
      });
      t = stop;
    }
  }
}

// --- values ----------------------------------------------------------------------------------------------------------

// Column n of a row is one vector: the n % codes-th codes of the words n / codes * kWidth and on. A row of floats is
// columns of one "code".
template <int kRows, int kColumns, class Codes>
KVSWEEP_INLINE void weigh_block(const Codes& codes, const uint8_t* words, int64_t stride, int64_t tokens,
                                const float* weights, int64_t weight_stride, int first, float* raw,
                                int64_t raw_stride) {
  F sums[kRows][kColumns] = {};
  for (int64_t t = 0; t < tokens; ++t) {
    F x[kColumns];
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; ++n) x[n] = codes.at(words + t * stride, first + n);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const F weight = broadcast(weights + r * weight_stride + t);
#pragma GCC unroll 8
      for (int n = 0; n < kColumns; ++n) sums[r][n] = fma(x[n], weight, sums[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < kColumns; ++n) store(raw + r * raw_stride + n * kWidth, sums[r][n]);
}

// Columns [first, last) of `tokens` rows; both multiples of the codes of a word.
template <int kRows, class Codes>
void weigh_columns(const Codes& codes, const uint8_t* rows, int64_t stride, int64_t tokens, const float* weights,
                   int64_t weight_stride, int64_t first, int64_t last, float* raw, int64_t raw_stride) {
  constexpr int kMost = kValueColumns[kRows - 1];
  if constexpr (Codes::kCodes > 1) {
    constexpr int kStep = kMost < Codes::kCodes ? kMost : Codes::kCodes;
    for (int64_t n = first; n < last; n += Codes::kCodes)
#pragma GCC unroll 16
      for (int j = 0; j < Codes::kCodes; j += kStep)
        weigh_block<kRows, kStep>(codes, rows + n / Codes::kCodes * Codes::kBytes, stride, tokens, weights,
                                  weight_stride, j, raw + (n + j) * kWidth, raw_stride);
  } else {
    int64_t n = first;
    for (; n + kMost <= last; n += kMost)
      weigh_block<kRows, kMost>(codes, rows + n * Codes::kBytes, stride, tokens, weights, weight_stride, 0,
                                raw + n * kWidth, raw_stride);
    for (; n < last; ++n)
      weigh_block<kRows, 1>(codes, rows + n * Codes::kBytes, stride, tokens, weights, weight_stride, 0,
                            raw + n * kWidth, raw_stride);
  }
}

template <class Codes>
void weigh_some_rows(int64_t count, const Codes& codes, const uint8_t* rows, int64_t stride, int64_t tokens,
                     const float* weights, int64_t weight_stride, int64_t first, int64_t last, float* raw,
                     int64_t raw_stride) {
  const auto weigh = [&](auto sized) {
    weigh_columns<decltype(sized)::value>(codes, rows, stride, tokens, weights, weight_stride, first, last, raw,
                                          raw_stride);
  };
  if (count == 1) weigh(std::integral_constant<int, 1>{});
  if (count == 2) weigh(std::integral_constant<int, 2>{});
  if (count == 3) weigh(std::integral_constant<int, 3>{});
  if (count == 4) weigh(std::integral_constant<int, 4>{});
}

// How scales meet a tile of values.
enum class ValueFold { kNone, kTokenLevels, kChannelLevels };

struct ValueTile {
  const uint8_t* rows;  // of token `from`
  int64_t stride;       // in bytes
  int64_t from, to;     // tokens of the tile
  int64_t columns, groups;
  ValueFold fold;
};

// Adds a tile to room.sums. weights: of the tile's token 0, kScores apart.
template <class Codes>
void weigh_tile(const Codes& codes, const ValueTile& tile, int64_t dim, const float* weights, int64_t rows,
                const Room& room) {
  const int64_t lo = tile.from / kBlockTokens * kBlockTokens, hi = round_up(tile.to, kBlockTokens),
                tokens = tile.to - tile.from;
  const int64_t group_columns = tile.columns / tile.groups;
  for (int64_t row = 0; row < rows; row += kBlockRows) {
    const int64_t block = least(kBlockRows, rows - row);
    if (tile.fold == ValueFold::kTokenLevels) {
      for (int64_t g = 0; g < tile.groups; ++g) {
        for (int64_t r = 0; r < block; ++r) {
          const float* from = weights + (row + r) * kScores;
          float* zero_sum = room.zero_sums + ((row + r) * tile.groups + g) * kWidth;
          F zeros{};
          for (int64_t t = lo; t < hi; t += kWidth) {
            const F weight = load(from + t);
            store(room.weights + r * kTile + t, weight * load(room.levels.scale + g * kTile + t));
            zeros = fma(weight, load(room.levels.zero + g * kTile + t), zeros);
          }
          store(zero_sum, load(zero_sum) + zeros);
        }
        weigh_some_rows(block, codes, tile.rows, tile.stride, tokens, room.weights + tile.from, kTile,
                        g * group_columns, (g + 1) * group_columns, room.raw, dim);
      }
    } else {
      weigh_some_rows(block, codes, tile.rows, tile.stride, tokens, weights + row * kScores + tile.from, kScores, 0,
                      tile.columns, room.raw, dim);
    }
    for (int64_t r = 0; r < block; ++r) {
      float* sums = room.sums + (row + r) * dim;
      const float* raw = room.raw + r * dim;
      if (tile.fold != ValueFold::kChannelLevels) {
        for (int64_t d = 0; d < dim; d += kWidth) store(sums + d, load(sums + d) + load(raw + d));
        continue;
      }
      float total = 0;
      for (int64_t t = tile.from; t < tile.to; ++t) total += weights[(row + r) * kScores + t];
      for (int64_t d = 0; d < dim; d += kWidth) {
        const F sum = fma(load(raw + d), load(room.channel_scale + d), load(sums + d));
        store(sums + d, fma(F{} + total, load(room.channel_zero + d), sum));
      }
    }
  }
}

void expand_values(const Words& plan, const uint8_t* rows, int64_t stride, int64_t words, int64_t tokens,
                   uint32_t* out) {
  const U control = broadcast_block(plan.control), shifts = broadcast_block(plan.shifts);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t w = 0; w < words; w += kWidth) {
      const U bytes = load_blocks(rows + t * stride + w / 4 * plan.unit_bytes, plan.unit_bytes);
      store_words(out + t * words + w, shuffle_bytes(bytes, control) >> shifts);
    }
}

// The columns of a tile as floats [tokens, dim], codes or what the codec would give. lo: the first token's levels.
template <class Codes>
void unpack_values(const Codes& codes, const Run& run, const Words& plan, const uint8_t* rows, int64_t stride,
                   int64_t dim, int64_t tokens, int64_t lo, bool dequantize, const Room& room) {
  const int64_t columns = dim / kWidth, group_columns = run.along_tokens ? columns : columns / run.scale.row;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t n = 0; n < columns; n += Codes::kCodes)
#pragma GCC unroll 16
      for (int j = 0; j < Codes::kCodes; ++j) {
        F x = codes.at(rows + t * stride + n / Codes::kCodes * Codes::kBytes, j);
        if (dequantize) {
          const int64_t level = n / group_columns * kTile + lo + t, column = (n + j) * kWidth;
          const F scale = run.along_tokens ? load(room.channel_scale + column) : broadcast(room.levels.scale + level);
          const F zero = run.along_tokens ? load(room.channel_zero + column) : broadcast(room.levels.zero + level);
          x = value_of(run, x * plan.weights[j], scale, zero);
        }
        store(room.value_tile + t * dim + (n + j) * kWidth, x);
      }
}

void weigh_floats(const Job& job, const Run& run, int64_t head, int64_t begin, int64_t end, const float* weights,
                  int64_t rows, const Room& room, float* out) {
  std::memset(room.sums, 0, static_cast<size_t>(rows * job.dim) * sizeof(float));
  for (int64_t first = begin / kTile * kTile; first < end; first += kTile) {
    const int64_t from = most(begin - first, 0), to = least(end - first, kTile);
    const uint8_t* at = rows_from(run, head, first, from, to, 0, room.value_tile);
    prefetch_rows(run, head, first + kTile, kTile);
    weigh_tile(Floats{}, {at, run.row_bytes, from, to, job.dim / kWidth, 1, ValueFold::kNone}, job.dim, weights + first,
               rows, room);
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t d = 0; d < job.dim; d += kWidth) {
      float* to = out + i * job.state_floats() + d;
      store(to, load(to) + load(room.sums + i * job.dim + d));
    }
}

// Groups that cut words or columns: dequantized one value after the other.
void weigh_crossed(const Job& job, const Run& run, int64_t head, int64_t begin, int64_t end, const float* weights,
                   int64_t rows, const Room& room, float* out) {
  for (int64_t first = begin / kTile * kTile; first < end; first += kTile) {
    const int64_t from = most(begin - first, 0), to = least(end - first, kTile);
    for (int64_t t = from; t < to; ++t)
      for (int64_t d = 0; d < job.dim; ++d) room.value_tile[t * job.dim + d] = value_at(run, head, first + t, d);
    Run tile;
    tile.tokens = to;
    tile.data = reinterpret_cast<const uint8_t*>(room.value_tile);
    tile.row_bytes = job.dim * static_cast<int64_t>(sizeof(float));
    weigh_floats(job, tile, 0, from, to, weights + first, rows, room, out);
  }
}

// The codes of a word with which each column lies in one group; 0: none.
int64_t value_codes(const Run& run, int64_t dim) {
  for (int64_t codes = run.bits <= 4 ? 8 : 4; codes > 1; codes /= 2) {
    const int64_t span = kWidth * codes;
    if (dim % span == 0 && (run.along_tokens || run.group % span == 0)) return codes;
  }
  return 0;
}

// Scales and zeros of a group of tokens, in columns: lane l of the j-th column of a word is channel l * codes + j of
// those that the column's words hold.
void permute_levels(const Words& plan, int64_t dim, bool weighted, const Room& room) {
  for (int64_t first = 0; first < dim; first += kWidth * plan.codes)
    for (int64_t j = 0; j < plan.codes; ++j) {
      const float weight = weighted ? plan.weights[j] : 1;
      for (int64_t lane = 0; lane < kWidth; ++lane) {
        const int64_t channel = first + lane * plan.codes + j, at = first + j * kWidth + lane;
        room.channel_scale[at] = room.levels.scale[channel] * weight;
        room.channel_zero[at] = room.levels.zero[channel];
      }
    }
}

void weigh_codes(const Job& job, const Run& run, int64_t head, int64_t begin, int64_t end, const float* weights,
                 int64_t rows, const Room& room, float* out) {
  const int64_t dim = job.dim, codes_of_word = value_codes(run, dim);
  if (codes_of_word == 0) return weigh_crossed(job, run, head, begin, end, weights, rows, room, out);
  const Words plan = words_of(run.bits, codes_of_word);
  const int64_t words = dim / plan.codes, columns = dim / kWidth, groups = run.along_tokens ? 1 : run.scale.row;
  const bool dequantize = run.half_arithmetic, floats = dequantize || rows > kFewRows;
  const ValueFold fold = dequantize         ? ValueFold::kNone
                         : run.along_tokens ? ValueFold::kChannelLevels
                                            : ValueFold::kTokenLevels;
  const bool in_place = plan.whole() || plan.shorts();
  const int64_t beyond = in_place ? 0 : 16;
  std::memset(room.sums, 0, static_cast<size_t>(rows * dim) * sizeof(float));
  if (fold == ValueFold::kTokenLevels)
    std::memset(room.zero_sums, 0, static_cast<size_t>(rows * groups * kWidth) * sizeof(float));
  int64_t loaded = -1;
  for (int64_t first = begin / kTile * kTile; first < end; first += kTile) {
    const int64_t stop = least(end - first, kTile);
    prefetch_rows(run, head, first + kTile, kTile);
    for (int64_t from = most(begin - first, 0); from < stop;) {
      int64_t to = stop;
      if (run.along_tokens) {
        const int64_t group = (first + from) / run.group;
        to = least(stop, (group + 1) * run.group - first);
        if (group != loaded) {
          load_channel_levels(run, head, group, dim, !dequantize, room.levels);
          permute_levels(plan, dim, !dequantize, room);
          loaded = group;
        }
      } else {
        load_token_levels(run, head, first, from / kBlockTokens * kBlockTokens, round_up(to, kBlockTokens), !dequantize,
                          room.levels);
      }
      const uint8_t* at = rows_from(run, head, first, from, to, beyond, room.copy);
      int64_t stride = run.row_bytes;
      if (!in_place) {
        expand_values(plan, at, stride, words, to - from, reinterpret_cast<uint32_t*>(room.value_words));
        at = reinterpret_cast<const uint8_t*>(room.value_words);
        stride = words * static_cast<int64_t>(sizeof(uint32_t));
      }
      with_value_codes(plan, [&](const auto& codes) {
        if (!floats)
          return weigh_tile(codes, {at, stride, from, to, columns, groups, fold}, dim, weights + first, rows, room);
        unpack_values(codes, run, plan, at, stride, dim, to - from, from, dequantize, room);
        weigh_tile(Floats{},
                   {reinterpret_cast<const uint8_t*>(room.value_tile), dim * static_cast<int64_t>(sizeof(float)), from,
                    to, columns, groups, fold},
                   dim, weights + first, rows, room);
      });
      from = to;
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* row = out + r * job.state_floats();
    for (int64_t first = 0; first < dim; first += kWidth * plan.codes)
      for (int64_t j = 0; j < plan.codes; ++j) {
        const float* sums = room.sums + r * dim + first + j * kWidth;
        const float weight = fold == ValueFold::kTokenLevels ? plan.weights[j] : 1;
        for (int64_t lane = 0; lane < kWidth; ++lane) row[first + lane * plan.codes + j] += sums[lane] * weight;
      }
    if (fold != ValueFold::kTokenLevels) continue;
    for (int64_t g = 0; g < groups; ++g) {
      const float zero = sum_of(load(room.zero_sums + (r * groups + g) * kWidth));
      for (int64_t d = g * run.group; d < (g + 1) * run.group; ++d) row[d] += zero;
    }
  }
}

// --- a chunk
// -----------------------------------------------------------------------------------------------------------

void hide_tokens(const Job& job, int64_t head, int64_t query, int64_t first, int64_t tokens, float* scores) {
  constexpr float kHidden = -std::numeric_limits<float>::infinity();
  const int64_t seen = job.positions == nullptr ? least(job.visible + query - first, tokens) : tokens;
  for (int64_t t = most(seen, 0); t < round_up(tokens, kBlockTokens); ++t) scores[t] = kHidden;
  if (job.positions != nullptr)
    for (int64_t t = 0; t < tokens; ++t)
      if (job.positions[first + t] > job.position + query) scores[t] = kHidden;
  if (job.keep != nullptr)
    for (int64_t t = 0; t < tokens; ++t)
      if (!job.keep[head * job.tokens + first + t]) scores[t] = kHidden;
}

// Scores -> weights; zeros in the slack. state: largest score and sum of weights.
void soften(float* scores, int64_t tokens, float* state) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  const int64_t padded = round_up(tokens, kBlockTokens);
  F largest = F{} + kNothing;
  for (int64_t t = 0; t < padded; t += kWidth) largest = max(largest, load(scores + t));
  float top = largest[0];
  for (int64_t i = 1; i < kWidth; ++i) top = largest[i] > top ? largest[i] : top;
  F sum{};
  for (int64_t t = 0; t < padded; t += kWidth) {
    const F weight = top == kNothing ? F{} : exp_of(load(scores + t) - top);
    store(scores + t, weight);
    sum += weight;
  }
  std::memset(scores - kSlack, 0, static_cast<size_t>(kSlack) * sizeof(float));
  std::memset(scores + padded, 0, static_cast<size_t>(kSlack) * sizeof(float));
  state[0] = top;
  state[1] = sum_of(sum);
}

// The tokens from `token` on.
Run tail_of(const Run& exact, int64_t token, const Job& job) {
  Run tail = exact;
  tail.first = token;
  tail.tokens = job.tokens - token;
  tail.data += (token - exact.first) * exact.row_bytes;
  return tail;
}

// What a chunk's call works with. `begin` and `end` are tokens of the view; scores are those of `begin`.
struct Chunk {
  const Job& job;
  const Room& room;
  int64_t head, first_row, rows, begin, end;
  float* scores;

  const float* queries(const Run& run, int64_t row) const {
    return job.q + ((run.space * job.heads + head) * job.queries * job.groups + first_row + row) * job.dim;
  }
};

// From this token on every row reads the exact form of keys, or of values.
int64_t last_cut(const Job& job, int64_t Stretch::*cut) {
  int64_t last = job.stretches.empty() ? Stretch::kNoToken : 0;
  for (const Stretch& stretch : job.stretches) last = most(last, stretch.*cut);
  return last;
}

void score_keys(const Chunk& chunk) {
  const Job& job = chunk.job;
  const int64_t end = least(chunk.end, last_cut(job, &Stretch::keys));
  for (const Run& run : job.keys) {
    const int64_t from = most(chunk.begin - run.first, 0), to = least(end - run.first, run.tokens);
    if (from >= to) continue;
    (run.packed ? score_codes : score_floats)(job, run, chunk.head, from, to, chunk.queries(run, 0), chunk.rows,
                                              chunk.room, chunk.scores + run.first - chunk.begin);
  }
  int64_t row = 0;
  for (const Stretch& stretch : job.stretches) {
    if (stretch.keys < chunk.end) {
      const Run tail = tail_of(job.exact_keys, stretch.keys, job);
      score_floats(job, tail, chunk.head, most(chunk.begin - tail.first, 0), chunk.end - tail.first,
                   chunk.queries(tail, row), stretch.rows, chunk.room,
                   chunk.scores + row * kScores + tail.first - chunk.begin);
    }
    row += stretch.rows;
  }
}

// Weights of the chunk's tokens that a row reads exact are put aside, with zeros in their place, or back.
void hold_weights(const Chunk& chunk, bool back) {
  int64_t row = 0;
  for (const Stretch& stretch : chunk.job.stretches) {
    const int64_t from = most(stretch.values - chunk.begin, 0), count = chunk.end - chunk.begin - from;
    for (const int64_t stop = row + stretch.rows; row < stop; ++row) {
      if (count <= 0) continue;
      float *weights = chunk.scores + row * kScores + from, *held = chunk.room.held + row * kScores;
      const auto bytes = static_cast<size_t>(count) * sizeof(float);
      std::memcpy(back ? weights : held, back ? held : weights, bytes);
      if (!back) std::memset(weights, 0, bytes);
    }
  }
}

void weigh_values(const Chunk& chunk, float* states) {
  const Job& job = chunk.job;
  const int64_t end = least(chunk.end, last_cut(job, &Stretch::values)), width = job.state_floats();
  hold_weights(chunk, false);
  for (const Run& run : job.values) {
    const int64_t from = most(chunk.begin - run.first, 0), to = least(end - run.first, run.tokens);
    if (from >= to) continue;
    (run.packed ? weigh_codes : weigh_floats)(job, run, chunk.head, from, to, chunk.scores + run.first - chunk.begin,
                                              chunk.rows, chunk.room, states + 2 + run.space * job.dim);
  }
  hold_weights(chunk, true);
  int64_t row = 0;
  for (const Stretch& stretch : job.stretches) {
    if (stretch.values < chunk.end) {
      const Run tail = tail_of(job.exact_values, stretch.values, job);
      weigh_floats(job, tail, chunk.head, most(chunk.begin - tail.first, 0), chunk.end - tail.first,
                   chunk.scores + row * kScores + tail.first - chunk.begin, stretch.rows, chunk.room,
                   states + row * width + 2);
    }
    row += stretch.rows;
  }
}

void attend_chunk(const Job& job, int64_t head, int64_t first_row, int64_t rows, int64_t chunk, float* states,
                  float* scratch) {
  Arena arena{scratch};
  const Room room = room_of(arena, job, rows);
  const int64_t width = job.state_floats(), last_query = (first_row + rows - 1) / job.groups;
  const int64_t begin = job.chunk_begin(chunk), whole_end = least(job.tokens, job.chunk_begin(chunk + 1));
  const int64_t end = job.positions == nullptr ? least(whole_end, job.visible + last_query) : whole_end;
  std::memset(states, 0, static_cast<size_t>(rows * width) * sizeof(float));
  if (end <= begin) {
    for (int64_t r = 0; r < rows; ++r) states[r * width] = -std::numeric_limits<float>::infinity();
    return;
  }
  const Chunk part{job, room, head, first_row, rows, begin, end, room.scores + kSlack};
  score_keys(part);
  for (int64_t r = 0; r < rows; ++r) {
    hide_tokens(job, head, (first_row + r) / job.groups, begin, end - begin, part.scores + r * kScores);
    soften(part.scores + r * kScores, end - begin, states + r * width);
  }
  weigh_values(part, states);
}

int64_t scratch_floats(const Job& job, int64_t rows) {
  Arena arena{nullptr};
  room_of(arena, job, rows);
  return arena.used;
}

void multiply_row(const float* x, const float* matrix, int64_t dim, float* out) {
  for (int64_t d = 0; d < dim; d += kWidth) {
    F sum{};
    for (int64_t i = 0; i < dim; ++i) sum = fma(load(matrix + i * dim + d), F{} + x[i], sum);
    store(out + d, sum);
  }
}

void scale_row(const float* x, float by, int64_t dim, float* out) {
  for (int64_t d = 0; d < dim; d += kWidth) store(out + d, load(x + d) * by);
}

void divide_row(const float* x, float by, int64_t dim, float* out) {
  for (int64_t d = 0; d < dim; d += kWidth) store(out + d, load(x + d) / by);
}

// One row's state of tokens that come after those in `into`.
void merge(float* into, const float* from, int64_t width) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  if (from[0] == kNothing) return;
  const float top = into[0] > from[0] ? into[0] : from[0];
  const float keep = into[0] == kNothing ? 0 : exp_of(F{} + (into[0] - top))[0];
  const float gain = exp_of(F{} + (from[0] - top))[0];
  into[0] = top;
  int64_t i = 1;
  for (; i + kWidth <= width; i += kWidth) store(into + i, load(into + i) * keep + load(from + i) * gain);
  for (; i < width; ++i) into[i] = into[i] * keep + from[i] * gain;
}

float multiply_and_add(int64_t instructions) {
  constexpr int kSums = 12;
  F sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = F{} + static_cast<float>(i);
  const F factor = F{} + 0.5F;
  for (int64_t n = 0; n < instructions; n += kSums)
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = fma(sums[i], factor, factor);
  for (int i = 1; i < kSums; ++i) sums[0] += sums[i];
  return sum_of(sums[0]);
}

constexpr Kernels kKernels{2 * kWidth,   scratch_floats, attend_chunk, merge,
                           multiply_row, scale_row,      divide_row,   multiply_and_add};
