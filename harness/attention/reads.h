#pragma once

#include <cstdint>
#include <vector>

#include "harness/core/kv_cache.h"
#include "harness/core/scheme.h"

namespace kvsweep {

// (query, token) pairs of one query at `position` whose key or value comes out of a lossy codec. A token counts once
// when any head looks at it.
int64_t compressed_reads(const KvView& view, int64_t position);

// The same of each of `queries` queries from `position` on that are read in one pass (one_pass.h), `after` being the
// view after the last of them.
std::vector<int64_t> one_pass_reads(const KvView& after, const CompressedFrom& forms, int64_t position,
                                    int64_t queries);

}  // namespace kvsweep
