#pragma once

#include <span>

namespace kvsweep {

// P(sum_i E_i y_i > 0) of independent standard exponential E_i: with weights E_i / sum E, uniform on the simplex, the
// probability that the weighted mean of y is positive. Exact to 1e-10 without draws: the inversion integral of the
// sum's moment generating function along a line through its saddle point, by the trapezoidal rule, which converges
// exponentially there (Rice 1980, SIAM J. Sci. Stat. Comput. 1:438). y: finite, any order. Without a positive y it is
// 0, without a negative one (and a positive) 1.
double probability_of_positive_sum(std::span<const double> y);

}  // namespace kvsweep
