#pragma once

#include <algorithm>
#include <cstdint>

namespace kvsweep {

struct ValueRange {
  float low, high;
};

// Of at least one value, none NaN. Lanes by hand: without -ffast-math the compiler must keep the order of a minimum.
[[gnu::always_inline]] inline ValueRange range_of(const float* x, int64_t count) {
  constexpr int64_t kLanes = 16;
  float low[kLanes], high[kLanes];
  for (int64_t k = 0; k < kLanes; ++k) low[k] = high[k] = x[0];
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) {
      low[k] = x[i + k] < low[k] ? x[i + k] : low[k];
      high[k] = x[i + k] > high[k] ? x[i + k] : high[k];
    }
  for (; i < count; ++i) {
    low[0] = std::min(low[0], x[i]);
    high[0] = std::max(high[0], x[i]);
  }
  return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
}

}  // namespace kvsweep
