#pragma once

#include <cstdint>
#include <memory>

namespace kvsweep {

// Bytes that tensors take while it lives, as LibTorch's allocators report them for this thread: without memory that
// libraries take by themselves, and without what was there before.
class TensorMemory {
 public:
  TensorMemory();
  ~TensorMemory();
  TensorMemory(const TensorMemory&) = delete;
  TensorMemory& operator=(const TensorMemory&) = delete;

  int64_t held() const;  // allocated since construction and not freed
  int64_t peak() const;  // the most that was held since restart_peak(), at least held() there
  void restart_peak();

 private:
  struct Counter;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvsweep
