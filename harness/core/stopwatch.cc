#include "harness/core/stopwatch.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace kvsweep {

void Stopwatch::synchronize() const {
  if (device_.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device_.type())
      .synchronizeDevice(device_.has_index() ? device_.index() : c10::DeviceIndex(0));
}

void Stopwatch::restart() {
  synchronize();
  start_ = std::chrono::steady_clock::now();
}

double Stopwatch::ms() const {
  synchronize();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
}

}  // namespace kvsweep
