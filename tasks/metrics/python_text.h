#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// Texts as Python 3 sees them, for metrics whose originals are Python: characters are code points, and letters, digits
// and white space are Unicode's. Texts are UTF-8; what is not counts as U+FFFD.

std::u32string decode_utf8(std::string_view text);
std::string encode_utf8(std::u32string_view text);

bool is_python_space(char32_t c);  // str.isspace, and \s of re
bool is_python_digit(char32_t c);  // \d of re: any decimal digit, so full-width ones too
bool is_python_word(char32_t c);   // \w of re: letters, numbers of every kind, underscore

std::string python_lower(std::string_view text);  // str.lower
std::string python_strip(std::string_view text);  // str.strip
std::vector<std::string> python_split(std::string_view text);
// text.split(separator): n separators make n + 1 parts, empty ones too.
std::vector<std::string> split_at(std::string_view text, char separator);
// string.punctuation: the 32 ASCII marks; not “ ” ’.
bool is_ascii_punctuation(char c);
std::string without_ascii_punctuation(std::string_view text);

}  // namespace kvsweep
