#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace kvsweep {

// The loops of HqqCodec over CPU memory; hqq.h states the arithmetic. values and codes: `groups` groups of `count`
// values, one after the other; scale (s) and zero (z): one a group, float32.

// The order in which ATen's CPU kernels add the values of a group, so that a search ends in the original's bits.
enum class SumOrder {
  kRow,          // the group is a row of a matrix: 8 lanes, 4 values each at a time
  kColumn,       // a column: one by one, in chunks of 16
  kLastColumns,  // one of the columns that do not fill 32: 4 sums at a time
};

// Neighbouring groups in an iteration, and room for it.
struct HqqBlock {
  int64_t groups = 0, count = 0;
  float top = 0;
  SumOrder order = SumOrder::kRow;
  const float* values = nullptr;  // [groups, count]
  const float* scale = nullptr;   // [groups]
  float* zero = nullptr;          // [groups]
  uint8_t* settled = nullptr;     // [groups]: an iteration no longer changes z, and need not run
  float* magnitudes = nullptr;    // [groups, count] |e|
  float* errors = nullptr;        // [groups, count] e
  float* picked = nullptr;        // [groups, count]: |e| of groups where shrink() leaves something, close together
  int32_t* pick = nullptr;        // [groups]: which of `picked` a group is; -1: none
};

// s and z before the first iteration.
void hqq_start(const float* values, int64_t groups, int64_t count, float top, float* scale, float* zero);

// First half of an iteration: e, |e| and what is picked. -> number of groups picked.
int64_t hqq_errors(const HqqBlock& block);

// Second half: the new z. powers: x^-0.3 of what was picked.
void hqq_update(const HqqBlock& block, const float* powers);

// Sums of kHqqLanes lanes over `chunks` chunks of kHqqChunk values each: sums [chunks, kHqqLanes].
inline constexpr int64_t kHqqLanes = 32, kHqqChunk = 16 * kHqqLanes;
void hqq_chunk_sums(const float* values, int64_t chunks, float* sums);
// The sum of count values as ATen's CPU kernel adds a contiguous tensor on one thread; chunk_sums as above, of all
// whole chunks.
float hqq_total(const float* values, int64_t count, const float* chunk_sums);

void hqq_encode(const float* values, int64_t groups, int64_t count, float top, const float* scale, const float* zero,
                uint8_t* codes);

// `count` codes with one scale (1 / s) and zero (step 0) or one each (step 1).
void hqq_decode_segment(const uint8_t* codes, int64_t count, c10::ScalarType dtype, const float* scale,
                        const float* zero, int64_t step, float* out);

}  // namespace kvsweep
