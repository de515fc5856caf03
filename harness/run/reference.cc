#include "harness/run/reference.h"

#include "harness/core/error.h"

namespace kvsweep {

Reference find_reference() {
  for (const SchemeEntry& entry : scheme_table()) {
    Params params = Params::describe(entry.name);
    std::unique_ptr<Scheme> scheme = entry.make(params);
    if (scheme->traits().lossless) return {entry.name, params.resolved(), std::move(scheme)};
  }
  throw ConfigError("no scheme of this build is lossless: there is nothing to compare with");
}

}  // namespace kvsweep
