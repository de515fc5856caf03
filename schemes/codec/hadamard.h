#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvsweep {

// The Sylvester-Hadamard matrix of a power of two: [n, n] float32 of +1 and -1, symmetric, H * H = n * I. Throws
// c10::Error for another n.
at::Tensor hadamard_matrix(int64_t n);

}  // namespace kvsweep
