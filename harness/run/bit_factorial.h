#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "harness/run/step_bench.h"

namespace kvsweep {

inline constexpr int64_t kFullBits = 16;  // stands for full precision: the compute dtype, 32 effective bits on a CPU

// Keys in k_bits and values in v_bits, as `uniform` stores them (groups of `group` values along a token, fp16 scale and
// zero); kFullBits: that side as `full` stores it, which no parameter of a scheme says.
std::unique_ptr<Scheme> mixed_bits(int64_t k_bits, int64_t v_bits, int64_t group);

// What a bit of keys and a bit of values cost a decoded token: {16, 8, 4, 2}^2 bits, the slope of each over the
// context, and slopes = c0 + cK * betaK + cV * betaV, beta: effective bits.
struct BitFactorial {
  struct Point {
    int64_t k_bits = 0, v_bits = 0;
    ItlCost cost;
  };
  std::vector<Point> points;  // k_bits then v_bits, falling
  Fit itl, attend;            // [c0, cK, cV] in ms a cached token (and bit)
};
BitFactorial bench_factorial(const BenchContext& context, const std::vector<int64_t>& lengths, int64_t group,
                             int repeats);

}  // namespace kvsweep
