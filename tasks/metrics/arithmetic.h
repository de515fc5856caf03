#pragma once

#include <cstdint>
#include <string_view>

namespace kvsweep {

// Calculations that a text writes out.
struct Arithmetic {
  int64_t steps = 0;   // calculations with a result behind "="
  int64_t errors = 0;  // of these, whose result is not what the calculation gives
};

// Every `a op b [op c ...] = r` in the text: "16 - 3 - 4 = 9", "9 * 2 = $18", "<<9*2=18>>", "(2 + 3) x 4 = 20".
// Numbers: digits with commas in groups of three and a decimal part, "$" before and "%" behind; op: + - * / and the
// letters x and X, × ÷ · − ∗, with the usual precedence, from left to right; brackets; a minus before a number only
// where no operation could stand. Anything else between two signs of equality or from the last line break on ends what
// is looked at: "2y + 5 - 3 = 10" and "5 apples + 3 apples = 8" are not calculations, a bullet is no minus.
//
// A result is right when the calculation equals the first number behind "=", or the whole calculation that stands there
// ("2 * (3 + 4) = 2 * 7 = 14"), or, where the number has "%" on one side only, a hundredth of it; equal is within half
// a unit of the result's last written decimal, of a result without decimals within 1e-6 of its size or, behind a
// division, within half. A division by zero is an error.
Arithmetic check_arithmetic(std::string_view text);

}  // namespace kvsweep
