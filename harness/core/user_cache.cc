#include "harness/core/user_cache.h"

#include <cstdlib>

namespace kvsweep {

std::filesystem::path user_cache() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != 0)
    return std::filesystem::path(cache) / "kvsweep";
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home != nullptr ? home : "/tmp") / ".cache/kvsweep";
}

}  // namespace kvsweep
