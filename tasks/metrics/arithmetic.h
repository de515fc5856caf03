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
// letters x and X before a number, × ÷ · − ∗, with the usual precedence, from left to right; brackets; a minus before a
// number only where no operation could stand. The calculation reaches back to the next "=" or to whatever is none of
// this: "2y + 5 - 3 = 10", "5 apples + 3 apples = 8" and "3 x 1 1/2 = 4.5" are not calculations, and a bullet is no
// minus.
//
// The result is the number behind "=". It is right when the calculation equals it, or it stands with "%" and the
// calculation equals it without, or a whole calculation begins with it and equals the first one ("2 * (3 + 4) = 2 * 7 =
// 14"). Equal is within half a unit of the result's last written decimal; without decimals within 1e-6 of its size, or
// within a half behind a division. A division by zero is an error. What is not equal and only begins with a number
// ("= 30 + M", "= 3 1/2") is not counted.
Arithmetic check_arithmetic(std::string_view text);

}  // namespace kvsweep
