#pragma once

#include <cstdint>

namespace kvsweep {

// A test at level alpha that shall see an effect with this probability.
struct PowerTarget {
  double alpha = 0.05;  // in (0, 0.5)
  bool two_sided = false;
  double power = 0.8;  // in [0.5, 1)

  // z(1 - alpha) + z(power), alpha halved when two-sided: 2.4865 by default.
  double factor() const;
};

// Effects are in the metric's units (0.01: one point of accuracy). DataError for numbers outside of what is stated.

// Smallest loss that a paired test of binary scores sees, by the normal approximation: factor * sqrt(flips / items).
// flips: share of items that change, in [0, 1]. Too small where lost + gained are few (under about 30).
double detectable_by_flips(int64_t items, double flips, const PowerTarget& target = {});

// The same for the exact McNemar test by summation over its distribution: what to print, since its power is what it
// says at any count. When all flips were losses and that were still too few, more items than `flips` change; at most 1.
// NaN when not even a loss of all items would be seen. At most 1e6 items.
// Flips are an estimate themselves: give (lost + gained + 1) / items, with which the power holds over samples as well
// (with lost + gained alone it is 77.5 % at 50 items with 20 % flips).
double detectable_by_mcnemar(int64_t items, double flips, const PowerTarget& target = {});

// Probability that the exact McNemar test rejects, loss: true D in [0, flips].
double power_of_mcnemar(int64_t items, double flips, double loss, const PowerTarget& target = {});

// From the standard error of a mean difference, as the t test sees it: (t(1 - alpha) + t(power)) * standard_error with
// `degrees` of freedom (infinity: normal).
double detectable_by_error(double standard_error, double degrees, const PowerTarget& target = {});

// Two means of different items, as TensorRT-LLM's accuracy suite tests: factor * sqrt(2 / items) * deviation.
double detectable_unpaired(int64_t items, double deviation, const PowerTarget& target = {});

// Items for a loss: factor^2 (flips - effect^2) / effect^2, and (factor * deviation / effect)^2, rounded up. 0 <
// effect; flips >= effect^2.
int64_t items_for_flips(double flips, double effect, const PowerTarget& target = {});
int64_t items_for_deviation(double deviation, double effect, const PowerTarget& target = {});

}  // namespace kvsweep
