#pragma once

// For arithmetic that CPU loops and CUDA kernels share: always inlined, so that loops over it vectorise in any clone.
// The bits are the same on both, since neither contracts products and sums (CMakeLists.txt).
#ifdef __CUDACC__
#define KVSWEEP_HD __host__ __device__ __forceinline__
#else
#define KVSWEEP_HD [[gnu::always_inline]] inline
#endif
