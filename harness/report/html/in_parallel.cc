#include "harness/report/html/in_parallel.h"

#include <atomic>
#include <exception>
#include <thread>

namespace kvsweep {

void in_parallel(size_t n, const std::function<void(size_t i)>& work) {
  std::atomic<size_t> next = 0;
  const auto run = [&](std::exception_ptr& error) {
    try {
      for (size_t i = next++; i < n; i = next++) work(i);
    } catch (...) {
      error = std::current_exception();
    }
  };
  std::exception_ptr here, there;
  std::thread other(run, std::ref(there));
  run(here);
  other.join();
  if (here) std::rethrow_exception(here);
  if (there) std::rethrow_exception(there);
}

}  // namespace kvsweep
