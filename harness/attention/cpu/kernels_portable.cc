#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "harness/attention/cpu/job.h"

namespace kvsweep::cpu {
namespace {
#include "harness/attention/cpu/lanes_portable.h"
// The order matters: kernels are written in terms of the lanes.
#include "harness/attention/cpu/kernels_inl.h"
}  // namespace

const Kernels* portable_kernels() {
  return &kKernels;
}

}  // namespace kvsweep::cpu
