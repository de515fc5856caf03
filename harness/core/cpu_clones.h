#pragma once

// Compiles a function once per instruction set and picks one when the program starts. The arithmetic of a function is
// the same in each: contraction to fused multiply-add is off for the files that use it (CMakeLists.txt).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define KVSWEEP_CPU_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KVSWEEP_CPU_CLONES
#endif
