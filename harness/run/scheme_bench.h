#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/scheme.h"
#include "models/llama.h"

namespace kvsweep {

// What one scheme costs on one context: medians over repeats, every scheme alone.
struct SchemeCost {
  double encode_ms = 0;       // append of all layers' keys and values as one slab each, and finish_context
  double decode_ms = 0;       // read of all layers, every run decoded to float32
  double effective_bits = 0;  // 8 * live bytes / values
  double shared_bytes = 0;    // of the scheme, however many caches it makes
};

struct BenchResult {
  int64_t tokens = 0, values = 0;  // values: 2 * L * H * T * D
  double prefill_ms = 0;           // median
  std::vector<SchemeCost> costs;   // as the schemes were given
};

// Runs a prefill of `tokens` tokens (made up, no text) once to get real keys and values, then `repeats` turns of: one
// prefill, then each scheme on the kept keys and values. A first turn that is not counted warms up. Throws ConfigError
// when the model does not allow so many tokens, Interrupted between measurements.
BenchResult bench_schemes(const Llama& llama, const std::vector<const Scheme*>& schemes, int64_t tokens, int repeats);

}  // namespace kvsweep
