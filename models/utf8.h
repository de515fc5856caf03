#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvsweep {

// The first character of a text, or the first bytes that are none.
struct Utf8Step {
  int64_t bytes = 0;  // length of the sequence; when not valid, of its longest ill-formed prefix (at least 1)
  bool valid = false;
  char32_t code = 0;  // when valid
};

// text is not empty. Well-formed sequences as in table 3-7 of the Unicode standard, ill-formed ones cut as its section
// 3.9 recommends (one replacement character for each maximal subpart).
Utf8Step first_utf8(std::string_view text);

void append_utf8(std::string& text, char32_t code);

}  // namespace kvsweep
