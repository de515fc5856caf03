#pragma once

#include <exception>

namespace kvsweep {

// Thrown between two steps of work after SIGINT or SIGTERM.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// From now on SIGINT and SIGTERM only set a flag; a second one ends the process at once.
void watch_interrupts();
// Throws Interrupted when the flag is set.
void check_interrupt();

}  // namespace kvsweep
