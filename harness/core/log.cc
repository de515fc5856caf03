#include "harness/core/log.h"

#include <fmt/format.h>

#include <cstdio>

namespace kvsweep {

void log(std::string_view line) {
  fmt::print(stderr, "kvsweep: {}\n", line);
}

void warn(std::string_view line) {
  fmt::print(stderr, "kvsweep: warning: {}\n", line);
}

}  // namespace kvsweep
