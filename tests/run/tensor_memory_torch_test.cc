// contract: what tensors take is counted while it lives, what was there before is not.
#include "harness/run/tensor_memory.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>

namespace kvsweep {
namespace {

TEST_CASE("tensors are counted from allocation to release") {
  const at::Tensor before = at::zeros({1000}, at::kFloat);
  TensorMemory memory;
  CHECK(memory.held() == 0);
  at::Tensor kept = at::zeros({256}, at::kFloat);
  CHECK(memory.held() == 1024);
  { const at::Tensor passing = at::zeros({1024}, at::kFloat); }
  CHECK(memory.held() == 1024);
  CHECK(memory.peak() == 1024 + 4096);
  memory.restart_peak();
  CHECK(memory.peak() == 1024);
  kept.reset();
  CHECK(memory.held() == 0);
}

TEST_CASE("an operation's temporaries show in the peak alone") {
  const at::Tensor x = at::ones({100, 100}, at::kFloat);
  TensorMemory memory;
  const at::Tensor y = (x + x) * x;  // one temporary of 40,000 bytes
  CHECK(memory.held() == 40000);
  CHECK(memory.peak() == 80000);
}

}  // namespace
}  // namespace kvsweep
