#pragma once

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>

namespace kvsweep {

// Tasks [0, count) that threads take one by one as they come free, in this order. `work(next)` runs once on each of at
// most `threads` threads, and calls next() for tasks until there is none. Within another parallel region, and on one
// thread, it runs in the calling thread alone.
template <class F>
void share_tasks(int64_t count, int64_t threads, const F& work) {
  std::atomic<int64_t> started = 0;
  const auto next = [&]() -> std::optional<int64_t> {
    const int64_t task = started++;
    return task < count ? std::optional(task) : std::nullopt;
  };
  at::parallel_for(0, std::min(threads, count), 1, [&](int64_t begin, int64_t end) {
    const c10::InferenceMode no_autograd;
    for (int64_t thread = begin; thread < end; ++thread) work(next);
  });
}

// The same for tasks that need nothing of their thread: work(task). One that is alone, or one after the other on one
// thread, may use all threads itself.
template <class F>
void for_each_task(int64_t count, int64_t threads, const F& work) {
  if (count == 1 || threads == 1) {
    for (int64_t task = 0; task < count; ++task) work(task);
    return;
  }
  share_tasks(count, threads, [&](const auto& next) {
    while (const std::optional<int64_t> task = next()) work(*task);
  });
}

}  // namespace kvsweep
