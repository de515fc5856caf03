#include "harness/core/kv_cache.h"

namespace kvsweep {

int64_t KvView::tokens() const {
  int64_t total = 0;
  for (const KvRun& run : keys) total += run.tokens;
  return total;
}

}  // namespace kvsweep
