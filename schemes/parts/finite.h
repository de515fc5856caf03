#pragma once

#include "harness/core/kv_cache.h"

namespace kvsweep {

// Throws c10::Error when a slab holds NaN or infinity: how many values in keys and in values, and where the first is.
// A codec could only pass them on (one NaN spoils its group) or hide them.
void require_finite(int64_t layer, const KvSlab& slab);

}  // namespace kvsweep
