#pragma once

#include <cstdint>

#include "models/load_model.h"

namespace kvsweep {

// Prints one JSON line a repeat to stdout: prefill_s of `prefill_tokens`, decode_ms (median and minimum of
// `decode_tokens` steps at batch 1 after it), peak and anonymous resident memory of the process, weight and cache
// bytes.
int run_model_bench(const LoadedModel& model, int64_t prefill_tokens, int64_t decode_tokens, int repeats);

}  // namespace kvsweep
