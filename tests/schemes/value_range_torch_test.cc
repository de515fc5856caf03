// oracle: lowest and highest values of rows against plain loops.
#include "schemes/codec/value_range.h"

#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <limits>
#include <vector>

#include "harness/core/random.h"

namespace kvsweep {

TEST_CASE("ranges of rows are those of plain loops, whatever the rows beside them") {
  Rng rng(3);
  for (const int64_t rows : {1, 2, 3, 15, 16})
    for (const int64_t count : {1, 2, 15, 16, 17, 32, 64, 75}) {
      const int64_t stride = count + 3;
      std::vector<float> x(static_cast<size_t>(rows * stride));
      for (float& value : x) {
        value = static_cast<float>(static_cast<int>(rng.below(9)) - 4);
        if (value == 0 && rng.below(2) == 0) value = -0.0F;
      }
      float low[kRangeRows], high[kRangeRows];
      REQUIRE(ranges_of(x.data(), stride, rows, count, low, high));
      for (int64_t row = 0; row < rows; ++row) {
        INFO(rows << " rows, row " << row << " of " << count << " values");
        const float* from = x.data() + row * stride;
        CHECK(low[row] == *std::min_element(from, from + count));
        CHECK(high[row] == *std::max_element(from, from + count));
        const ValueRange alone = range_of(from, count);
        CHECK(std::bit_cast<uint32_t>(alone.low) == std::bit_cast<uint32_t>(low[row]));
        CHECK(std::bit_cast<uint32_t>(alone.high) == std::bit_cast<uint32_t>(high[row]));
      }
      const size_t last = static_cast<size_t>((rows - 1) * stride + count - 1);
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        x[last] = bad;
        CHECK_FALSE(ranges_of(x.data(), stride, rows, count, low, high));
      }
      x[last] = 0;
      if (count + 1 < stride || rows > 1) {
        x[static_cast<size_t>(count)] = std::numeric_limits<float>::quiet_NaN();  // between rows
        CHECK(ranges_of(x.data(), stride, rows, count, low, high));
      }
    }
}

}  // namespace kvsweep
