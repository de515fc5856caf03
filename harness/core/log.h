#pragma once

#include <string_view>

namespace kvsweep {

// One line to stderr, "kvsweep: <line>". stdout carries results only.
void log(std::string_view line);

// The same with "warning: " in front.
void warn(std::string_view line);

}  // namespace kvsweep
