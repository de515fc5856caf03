#pragma once

#include <optional>

#include "harness/report/record.h"

namespace kvsweep {

struct Shown {
  double value = 0;
  std::optional<double> standard_error;  // none for a single sample
};

// The primary metric as tables show it: its mean, or exp(mean) with the standard error of the delta method,
// exp(mean) * SE. Throws DataError when the record lacks its own primary metric.
Shown shown_score(const Record& record);

// Paired difference in the same units. For an exponential metric exp(mean) - exp(mean - delta), with standard error
// exp(mean) * SE(delta): the reference's own uncertainty is no part of a paired difference (a single perplexity's
// standard error is some twenty times that of the difference on the same windows). None when nothing was paired.
std::optional<Shown> shown_delta(const Record& record);

}  // namespace kvsweep
