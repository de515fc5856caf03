#pragma once

#include <cstddef>
#include <functional>

namespace kvsweep {

// Calls work(i) for each i in [0, n) once, on two threads. The first exception of a thread comes out.
void in_parallel(size_t n, const std::function<void(size_t i)>& work);

}  // namespace kvsweep
