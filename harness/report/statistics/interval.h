#pragma once

namespace kvsweep {

// Both ends in the units of what they bound; low <= high, or both NaN where data do not tell.
struct Interval {
  double low = 0, high = 0;
  bool operator==(const Interval&) const = default;
};

}  // namespace kvsweep
