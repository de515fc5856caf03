#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/params.h"

namespace kvsweep {

// Bits that are no integers everywhere ("1.58"): read as choices. Mean over layers, for nominal bits.
double mean_bits(const PerLayer<std::string>& bits, int64_t layers);

// Greedy allocators of KV-AdaQuant (arXiv 2502.15075; mohsenhariri/spectral-kv e9ed423: kvq/bit_pattern.py and
// kvq/group_pattern.py). Tensors in the order K0, V0, K1, V1, ...; a sensitivity is the norm of a projection's weights.

// Bits of each tensor out of `allowed`. All start at the fewest. As long as the sum is below `total`, the tensor whose
// error s^e * 2^(-e b) falls most a bit goes up to its next level, among those whose next level fits; ties within 1e-6
// go to the first. No look-ahead: the sum may stay below `total`. Where even the fewest bits exceed `total`, they are
// the answer.
std::vector<double> allocate_bits_greedy(const std::vector<double>& sensitivities, double total,
                                         std::vector<double> allowed, double exponent = 2);

// Group sizes of each tensor out of `allowed`, with the sum of 1 / g near `target`: the continuous optimum of
// sum s_i g_i (g proportional to 1 / sqrt(s)) rounded to the nearest size (ties: the smaller), then one step up or down
// at a time where it costs least or gains most, as long as a step does not cross the target by more than 1e-6.
std::vector<int64_t> allocate_groups_greedy(const std::vector<double>& sensitivities, double target,
                                            std::vector<int64_t> allowed);

}  // namespace kvsweep
