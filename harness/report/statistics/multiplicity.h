#pragma once

#include <span>
#include <vector>

namespace kvsweep {

// Adjusted p in the order given; each p in [0, 1], else DataError. NaN is no test: it stays NaN and counts for nothing.

// Holm 1979: the probability of one false claim or more in the family.
std::vector<double> holm(std::span<const double> p);

// Benjamini and Hochberg 1995: the expected share of false claims among claims.
std::vector<double> benjamini_hochberg(std::span<const double> p);

}  // namespace kvsweep
