#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "harness/attention/cpu/job.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

namespace kvsweep::cpu {

// For a whole region and not for one function: vectors are lowered to the instruction set before anything is inlined.
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace {
#include "harness/attention/cpu/lanes_avx2.h"
// The order matters: kernels are written in terms of the lanes.
#include "harness/attention/cpu/kernels_inl.h"
}  // namespace
#pragma GCC pop_options

const Kernels* avx2_kernels() {
  static const bool has =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  return has ? &kKernels : nullptr;
}

}  // namespace kvsweep::cpu

#else

namespace kvsweep::cpu {

const Kernels* avx2_kernels() {
  return nullptr;
}

}  // namespace kvsweep::cpu

#endif
