#pragma once

#include <cstdint>
#include <vector>

#include "harness/report/statistics/least_squares.h"
#include "harness/run/bench_context.h"

namespace kvsweep {

// Benches of whole steps: Llama::step() and logits over caches that hold a context. In turns, as scheme_bench.h says.

inline constexpr int kSteps = 3;  // timed in one turn, after one that warms up; a turn counts their median
inline constexpr int64_t kStepTokens = kSteps + 1;  // that a turn adds to a context

// Inter-token latency of one sequence as a function of its context.
struct ItlLength {
  int64_t tokens = 0;
  Timing itl_ms;     // of a decoded token
  Timing attend_ms;  // its part: append, read and attention, all layers
};
struct ItlCost {
  std::vector<ItlLength> lengths;
  Fit itl, attend;        // ms = c[0] + c[1] * tokens, over every turn's median at every length
  bool fused = true;      // attention of every step
  CacheCost bytes;        // at the longest context
  double break_even = 0;  // context at which the line meets that of the first lossless scheme; NaN: nowhere above 0
};
// lengths: at least two different ones.
std::vector<ItlCost> bench_itl(const BenchContext& context, const std::vector<const Scheme*>& schemes,
                               const std::vector<int64_t>& lengths, int repeats);

// How many sequences of one length fit into a budget of bytes, and what a batch of them decodes.
struct ConcurrencyCost {
  int64_t bytes_per_sequence = 0;  // reserved, with room for what a turn decodes
  int64_t sequences = 0;           // that fit beside what the scheme shares; weights are no part of the budget
  int64_t rows = 0;                // of the batch: sequences, or the limit where that is smaller; 0: none fits
  Timing step_ms;
  double tokens_per_second = 0;  // rows / median
  bool fused = true;             // attention of every row
  CacheCost bytes;               // of one sequence
};
std::vector<ConcurrencyCost> bench_concurrency(const BenchContext& context, const std::vector<const Scheme*>& schemes,
                                               int64_t tokens, int64_t budget, int64_t max_rows, int repeats);

}  // namespace kvsweep
