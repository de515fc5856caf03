#pragma once

#include <algorithm>
#include <cstdint>

namespace kvsweep {

constexpr int64_t kRangeRows = 16;  // that ranges_of() takes at once

// Of rows of `count` values that start `stride` apart, at most kRangeRows: lowest and highest, of equals (zeros of both
// signs) the first in the order of lanes. NaN anywhere, or infinity: false. Lanes by hand: without -ffast-math the
// compiler must keep the order of a minimum. What was found in each row's lanes is compared for all rows together.
[[gnu::always_inline]] inline bool ranges_of(const float* x, int64_t stride, int64_t rows, int64_t count, float* low,
                                             float* high) {
  constexpr int64_t kLanes = 16;
  float lows[kRangeRows * kLanes], highs[kRangeRows * kLanes], poison[kLanes] = {};
  for (int64_t row = 0; row < rows; ++row, x += stride) {
    float *least = lows + row * kLanes, *most = highs + row * kLanes;
    std::fill_n(least, kLanes, x[0]);
    std::fill_n(most, kLanes, x[0]);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
#pragma GCC unroll 1  // as a loop it vectorises
      for (int64_t k = 0; k < kLanes; ++k) {
        least[k] = x[i + k] < least[k] ? x[i + k] : least[k];
        most[k] = x[i + k] > most[k] ? x[i + k] : most[k];
        poison[k] += x[i + k] * 0.0F;
      }
    for (; i < count; ++i) {
      least[0] = x[i] < least[0] ? x[i] : least[0];
      most[0] = x[i] > most[0] ? x[i] : most[0];
      poison[0] += x[i] * 0.0F;
    }
  }
  float half[2][kRangeRows * kLanes / 2], quarter[2][kRangeRows * kLanes / 4], eighth[2][kRangeRows * kLanes / 8];
  const auto pairs = [](const float* from, const float* from_high, float* to, float* to_high, int64_t many) {
    for (int64_t i = 0; i < many; ++i) {
      to[i] = from[2 * i + 1] < from[2 * i] ? from[2 * i + 1] : from[2 * i];
      to_high[i] = from_high[2 * i + 1] > from_high[2 * i] ? from_high[2 * i + 1] : from_high[2 * i];
    }
  };
  pairs(lows, highs, half[0], half[1], 8 * rows);
  pairs(half[0], half[1], quarter[0], quarter[1], 4 * rows);
  pairs(quarter[0], quarter[1], eighth[0], eighth[1], 2 * rows);
  pairs(eighth[0], eighth[1], low, high, rows);
  return std::all_of(poison, poison + kLanes, [](float sum) { return sum == 0; });
}

struct ValueRange {
  float low, high;
};

// Of at least one value, none NaN.
[[gnu::always_inline]] inline ValueRange range_of(const float* x, int64_t count) {
  ValueRange range{};
  ranges_of(x, 0, 1, count, &range.low, &range.high);
  return range;
}

}  // namespace kvsweep
