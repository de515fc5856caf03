#pragma once

#include <memory>
#include <string>

#include "harness/core/scheme.h"
#include "harness/report/record.h"

namespace kvsweep {

// The full-precision scheme that every other one is compared with: the entry of the table that calls itself lossless,
// with its default parameters.
struct Reference {
  std::string name;
  Fields params;
  std::unique_ptr<Scheme> scheme;
};

// Throws ConfigError when no scheme of this build is lossless.
Reference find_reference();

}  // namespace kvsweep
