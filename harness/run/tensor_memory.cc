#include "harness/run/tensor_memory.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>

namespace kvsweep {

struct TensorMemory::Counter final : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    held += bytes;
    peak = std::max(peak, held);
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t held = 0, peak = 0;
};

struct TensorMemory::State {
  std::shared_ptr<Counter> counter = std::make_shared<Counter>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, counter};
};

TensorMemory::TensorMemory() : state_(std::make_unique<State>()) {}

TensorMemory::~TensorMemory() = default;

int64_t TensorMemory::held() const {
  return state_->counter->held;
}

int64_t TensorMemory::peak() const {
  return state_->counter->peak;
}

void TensorMemory::restart_peak() {
  state_->counter->peak = state_->counter->held;
}

}  // namespace kvsweep
