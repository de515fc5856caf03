#pragma once

#include <string_view>

namespace kvsweep {

// Order as a person sorts, runs of digits as numbers: "tokens=512" before "tokens=1024". < 0, 0 or > 0; 0 also for
// numbers that differ in leading zeros.
int natural_compare(std::string_view a, std::string_view b);

}  // namespace kvsweep
