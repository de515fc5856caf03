#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "harness/attention/cpu/job.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns of the operands that its own header leaves undefined on purpose.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

namespace kvsweep::cpu {

// For a whole region and not for one function: vectors are lowered to the instruction set before anything is inlined.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
namespace {
#include "harness/attention/cpu/lanes_avx512.h"
// The order matters: kernels are written in terms of the lanes.
#include "harness/attention/cpu/kernels_inl.h"
}  // namespace
#pragma GCC pop_options

const Kernels* avx512_kernels() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has ? &kKernels : nullptr;
}

}  // namespace kvsweep::cpu

#else

namespace kvsweep::cpu {

const Kernels* avx512_kernels() {
  return nullptr;
}

}  // namespace kvsweep::cpu

#endif
