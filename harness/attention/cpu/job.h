#pragma once

#include <cstdint>
#include <vector>

namespace kvsweep::cpu {

// One call of attention as plain memory, for kernels that know no tensors. Letters as in core/kv_cache.h, G = Hq / H.

enum class Narrow { kHalf, kBFloat16, kFloat };

// scale or zero of a packed run: rows of D / group values for each token, or of D values for each group of tokens.
struct Metadata {
  const void* data = nullptr;
  Narrow type = Narrow::kFloat;
  int64_t head_stride = 0, row = 0;  // in values
};

// Makes float32 rows of one head's tokens [first, first + count), D values each.
struct RowSource {
  const void* reader = nullptr;
  void (*read)(const void* reader, int64_t head, int64_t first, int64_t count, float* out) = nullptr;
};

// A run of keys or of values: float32 rows, in memory or from a source, or codes as core/codec.h's PackedLayout says.
struct Run {
  int64_t first = 0, tokens = 0;  // where in the view
  int64_t space = 0;              // 0: stored as is; n: times the n-th basis of all keys, or of all values
  bool pending = false;           // keys to be rotated

  const uint8_t* data = nullptr;          // null: rows come from the source
  int64_t head_bytes = 0, row_bytes = 0;  // from head to head, from token to token
  RowSource source;

  bool packed = false;
  int64_t bits = 0, group = 0;
  bool along_tokens = false, zero_point = false, half_arithmetic = false;
  float offset = 0;
  Metadata scale, zero;
};

// Consecutive rows of q that read tokens as they came, before they were compressed.
struct Stretch {
  int64_t rows = 0;
  int64_t keys = kNoToken, values = kNoToken;  // the first such token; all that come after it are
  static constexpr int64_t kNoToken = INT64_MAX;
};

// Chunks are cut at `align + n * kChunkTokens` tokens of the view, whoever computes them: what a query sees of a chunk
// is one partial softmax, and partial softmaxes are merged in order.
inline constexpr int64_t kChunkTokens = 512, kMostAlign = 63;

struct Job {
  int64_t heads = 0, groups = 0, dim = 0, queries = 0, tokens = 0;
  int64_t align = 0;  // 0..kMostAlign
  // Query i sees the first `visible + i` tokens; without meaning when positions are given.
  int64_t visible = 0;
  int64_t position = 0;                // of the first query
  const int64_t* positions = nullptr;  // [S]
  const bool* keep = nullptr;          // [H, S]
  std::vector<Run> keys, values;
  // Of the rows of one call of attend_chunk; none: all read the runs as they are.
  std::vector<Stretch> stretches;
  Run exact_keys, exact_values;  // float32 rows of the tokens from `first` on, as they came
  int64_t value_spaces = 1;
  const float* q = nullptr;  // [key spaces, H, T * G, D], scaled; row i * G + g is query i of the group's g-th head
  const float *cos = nullptr, *sin = nullptr;  // [positions, D / 2], for pending keys
  int64_t first_position = 0;                  // of the view's first token, without positions

  int64_t chunks() const { return tokens <= align ? 1 : (tokens - align + kChunkTokens - 1) / kChunkTokens; }
  int64_t chunk_begin(int64_t chunk) const { return chunk == 0 ? 0 : align + chunk * kChunkTokens; }
  int64_t state_floats() const { return 2 + value_spaces * dim; }
};

// A row's state is its largest score, the sum of weights exp(score - largest), and for each space of values D weighted
// sums.
struct Kernels {
  int64_t dim_multiple;  // head dims that these kernels take
  // Floats of scratch that attend_chunk needs for so many rows.
  int64_t (*scratch_floats)(const Job& job, int64_t rows);
  // Rows [first_row, first_row + rows) of one kv-head over one chunk. states: [rows, state_floats()], written. The bits
  // of a row do not depend on the rows beside it, nor on tokens that it does not see.
  void (*attend_chunk)(const Job& job, int64_t head, int64_t first_row, int64_t rows, int64_t chunk, float* states,
                       float* scratch);
  // Into the state of a row, the state of tokens after those that it has.
  void (*merge)(float* into, const float* from, int64_t width);
  // out[d] = sum over i of x[i] * matrix[i][d], matrix [dim, dim]. The bits of a row do not depend on the rows beside
  // it.
  void (*multiply_row)(const float* x, const float* matrix, int64_t dim, float* out);
  // out[d] = x[d] * by, and x[d] / by; out may be x.
  void (*scale_row)(const float* x, float by, int64_t dim, float* out);
  void (*divide_row)(const float* x, float by, int64_t dim, float* out);
  // So many fused multiply-adds of registers, as fast as they go: the limit that times are held against.
  float (*multiply_and_add)(int64_t instructions);
};

// Null where this CPU or this build has none.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* portable_kernels();

}  // namespace kvsweep::cpu
