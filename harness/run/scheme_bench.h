#pragma once

#include <cstdint>
#include <vector>

#include "harness/run/bench_context.h"

namespace kvsweep {

// Every bench here runs each scheme alone, in turns (scheme after scheme, then again), so that a machine that slows
// down slows all of them; a first turn warms up and is not counted. Throws Interrupted between measurements.

// What storing one context costs.
struct EncodeCost {
  Timing encode_ms;  // append of all layers' keys and values as one slab each, and finish_context
  Timing read_ms;    // of all layers, every run decoded to float32
  CacheCost bytes;
};
struct EncodeBench {
  int64_t tokens = 0, values = 0;  // values: 2 * L * H * T * D
  Timing prefill_ms;
  std::vector<EncodeCost> costs;  // as the schemes were given
};
// A turn is one prefill and each scheme on the kept keys and values.
EncodeBench bench_encode(const BenchContext& context, const std::vector<const Scheme*>& schemes, int64_t tokens,
                         int repeats);

// What reading one context costs: the attention of one query, all layers, nothing else.
struct DecodeCost {
  Timing attend_ms;
  double ns_per_token_head = 0;  // per cached token and kv-head of one layer, from the median
  bool fused = false;            // which attention it was
  CacheCost bytes;               // transient: of attention
};
struct DecodeBench {
  int64_t tokens = 0;
  std::vector<DecodeCost> costs;
};
// A turn fills a cache for each scheme, attends once to warm up and takes the median of three.
DecodeBench bench_decode(const BenchContext& context, const std::vector<const Scheme*>& schemes, int64_t tokens,
                         int repeats);

}  // namespace kvsweep
