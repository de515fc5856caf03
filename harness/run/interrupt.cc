#include "harness/run/interrupt.h"

#include <csignal>

namespace kvsweep {
namespace {

volatile std::sig_atomic_t flag = 0;

extern "C" void set_flag(int) {
  flag = 1;
}

}  // namespace

void watch_interrupts() {
  struct sigaction action {};
  action.sa_handler = set_flag;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void check_interrupt() {
  if (flag != 0) throw Interrupted();
}

}  // namespace kvsweep
