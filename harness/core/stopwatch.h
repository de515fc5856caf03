#pragma once

#include <c10/core/Device.h>

#include <chrono>

namespace kvsweep {

// Milliseconds since construction or restart. Waits for the device's queue first: on CUDA, time without synchronising
// measures the queue.
class Stopwatch {
 public:
  explicit Stopwatch(at::Device device) : device_(device) { restart(); }
  void restart();
  double ms() const;

 private:
  void synchronize() const;
  at::Device device_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace kvsweep
