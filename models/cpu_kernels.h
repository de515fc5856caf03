#pragma once

#include <cstdint>

namespace kvsweep {

// float32 on a CPU where a library falls short: the bits of its products depend on the rows beside them, its GEMM reads
// weights at a third of the memory's bandwidth when few rows meet them (MKL on AMD), and a norm of one row costs more
// in op overhead than in arithmetic. Rows are contiguous.

// This CPU has the instructions. Nothing below may be called without.
bool has_cpu_kernels();

enum class CpuVectors { kAvx2, kAvx512 };
CpuVectors widest_vectors();

// out[m][n] = dot(x[m], weight[n]), or += with `add`. x [rows, in], weight [outs, in], out [rows, outs]. Every dot
// product is one chain of fused multiply-adds over `in`, first to last: a row of a batch is bit for bit the row alone,
// on every CPU.
void multiply_rows(const float* x, int64_t rows, const float* weight, int64_t outs, int64_t in, float* out, bool add,
                   CpuVectors vectors = widest_vectors());

// out[m][i] = silu(gate_up[m][i]) * gate_up[m][width + i]; gate_up [rows, 2 * width]. A row's bits are its own.
void silu_mul(const float* gate_up, int64_t rows, int64_t width, float* out, CpuVectors vectors = widest_vectors());

// out[m] += down @ (silu(gate @ x[m]) * (up @ x[m])), by the calling thread alone: bit for bit multiply_rows, silu_mul
// and multiply_rows again, without what they write in between. x, out [rows, width], gate_up [2 * inner, width] (gate,
// then up), down [width, inner].
void add_mlp_rows(const float* x, int64_t rows, const float* gate_up, const float* down, int64_t width, int64_t inner,
                  float* out, CpuVectors vectors = widest_vectors());

// out[m] = x[m] / sqrt(mean(x[m]^2) + eps) * weight; out may be x.
void norm_rows(const float* x, int64_t rows, int64_t width, const float* weight, float eps, float* out);

}  // namespace kvsweep
