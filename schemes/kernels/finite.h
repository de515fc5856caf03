#pragma once

#include "schemes/kernels/rows.h"

namespace kvsweep {

// Queues one kernel on a cudaStream_t that writes 1 to *found when a or b, of the same sizes, holds NaN or infinity,
// and else nothing. found: memory that both sides reach, so that no copy back is needed.
void find_others_cuda(const DeviceRows& a, const DeviceRows& b, int32_t* found, void* stream);

}  // namespace kvsweep
