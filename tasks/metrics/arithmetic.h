#pragma once

#include <cstdint>
#include <string_view>

namespace kvsweep {

// Calculations that a text writes out: "16 - 3 - 4 = 9", "9 * 2 = $18", "2 x 40,000 = 80000", "20% of" is none.
struct Arithmetic {
  int64_t steps = 0;   // calculations with a result behind "="
  int64_t errors = 0;  // of these, where the result is not what the calculation gives
};

// Every `a op b [op c ...] = r` in the text. Numbers: digits with commas between them, a decimal part, "$" and a unary
// minus before, "%" behind; op: + - * / x X × ÷ · − with the usual precedence, left to right; brackets around
// what begins and ends on the same side. A result is right when it is within half a unit of its last written digit, or
// within 1e-6 of its size: "10 / 3 = 3.33" is right, "= 3.3" too, "= 3" too, "= 4" not. A division by zero is an error.
// In a chain "1 + 2 = 3 + 4 = 7" each "=" is a step whose left side reaches back to the "=" before.
Arithmetic check_arithmetic(std::string_view text);

}  // namespace kvsweep
