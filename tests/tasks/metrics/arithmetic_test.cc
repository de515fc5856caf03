// oracle: calculations counted and checked by hand.
#include "tasks/metrics/arithmetic.h"

#include <catch2/catch_test_macros.hpp>
#include <string>

namespace kvsweep {

TEST_CASE("calculations in a text are found and checked") {
  struct Case {
    const char* text;
    int64_t steps, errors;
  };
  const Case kCases[] = {
      {"She has 16 - 3 - 4 = 9 eggs.", 1, 0},
      {"She has 16 - 3 - 4 = 8 eggs.", 1, 1},
      {"9 * 2 = $<<9*2=18>>18", 1, 0},
      {"9 * 2 = $<<9*2=19>>18", 1, 1},
      {"2 x 40,000 = $80,000 and 2 X 4 = 9", 2, 1},
      {"2 \xc3\x97 3 = 6, 6 \xc3\xb7 4 = 1.5, 5 \xe2\x88\x92 7 = -2", 3, 0},
      {"(2 + 3) * 4 = 20; 2 + 3 * 4 = 14; 2 + 3 * 4 = 20", 3, 1},
      {"20% * 50 = 10 and 5 / 20 = 25% and 5 / 20 * 100 = 25%", 3, 0},
      {"10 / 3 = 3.33, 10 / 3 = 3.3, 10 / 3 = 3, 10 / 3 = 4, 10 / 3 = 3.34", 5, 2},
      {"1.5 + 1.25 = 2.8", 1, 0},  // rounded
      {"2 * 7 = 13", 1, 1},
      {"2 * (3 + 4) = 2 * 7 = 14", 2, 0},
      {"5 + 3 = 8 - 2 = 6", 2, 0},
      {"5 / 0 = 0", 1, 1},
      // none
      {"x = 5 and y - 5 = 20 and 2y + 5 - 3 = 10", 0, 0},
      {"3x - 5 = 16", 0, 0},
      {"3 x 1 1/2 = 4.5 and 2 + 1 1/2 = 3 1/2", 0, 0},
      {"5 apples + 3 apples = 8 apples", 0, 0},
      {"10 = 10 and = 3 and 4 + 4 =", 0, 0},
      {"2 + 2 = 5 + M", 0, 0},
      {"", 0, 0},
      // what stands around
      {"- 16 + 3 = 19\n* 2 + 2 = 4\n1. 5 + 3 = 8", 3, 0},
      {"(as 5 + 3 = 8)", 1, 0},
      {"Step 2: 5+3=8.", 1, 0},
  };
  for (const Case& one : kCases) {
    INFO(one.text);
    const Arithmetic found = check_arithmetic(one.text);
    CHECK(found.steps == one.steps);
    CHECK(found.errors == one.errors);
  }
}

}  // namespace kvsweep
