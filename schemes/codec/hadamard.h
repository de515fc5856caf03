#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvsweep {

// The Sylvester-Hadamard matrix of a power of two: [n, n] float32 of +1 and -1, symmetric, H * H = n * I. Throws
// c10::Error for another n.
at::Tensor hadamard_matrix(int64_t n);

// x [..., n] -> x @ hadamard_matrix(n) as float32, in n * log2(n) sums: not normalised, its inverse is itself / n. Any
// device, same bits: the sums of each step are taken in one order.
at::Tensor hadamard_transform(const at::Tensor& x);
// What that runs where there are no loops of our own.
at::Tensor hadamard_transform_with_ops(const at::Tensor& x);

// The same in place for `rows` rows of n floats side by side in CPU memory. For fused loops. scratch: room for
// kHadamardRows * n floats where n is below kHadamardInPlace.
inline constexpr int64_t kHadamardRows = 8, kHadamardInPlace = 64;
void hadamard_rows(float* x, int64_t rows, int64_t n, float* scratch);

}  // namespace kvsweep
