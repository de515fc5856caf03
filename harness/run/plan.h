#pragma once

#include <cstdint>
#include <vector>

#include "harness/run/sweep.h"
#include "models/llama.h"

namespace kvsweep {

// How fast this machine runs a model, from a few short passes.
struct Speed {
  double prefill_ms_per_token = 0;  // without attention over a long context
  double step_ms = 0;               // one step of one row
  double step_ms_per_row = 0;       // each further row
  double read_ns_per_value = 0;     // decoding and attending to one cached value
};
Speed measure_speed(const Llama& llama, const Scheme& reference);

// What a group will need, before it starts. Bytes come from caches whose first layers were filled with the right number
// of tokens (all layers where that is quick), not from a formula.
struct GroupPlan {
  int64_t points = 0, samples = 0;  // to be run, after what an earlier run has left
  int64_t done_samples = 0;         // left by an earlier run
  std::vector<int64_t> row_bytes;   // one cache at a sample's end: full precision, then each scheme
  int64_t prefill_bytes = 0;        // keys and values of one context, until the last scheme has them
  int64_t transient_bytes = 0;      // the largest temporaries: activations, one layer of a cache read in float32
  double seconds_per_sample = 0;    // all points of one sample

  int64_t cache_bytes() const;     // all caches of one sample at its end
  int64_t smallest_bytes() const;  // one prefill and the largest cache, twice: a row may branch
};
GroupPlan plan_group(const SweepGroup& group, const std::vector<const Scheme*>& pending, const Scheme& reference,
                     const Llama& llama, const Speed& speed, int64_t samples);

// MemAvailable of the machine, bytes; 0: unknown.
int64_t available_memory_bytes();

}  // namespace kvsweep
