#include "tasks/metrics/python_text.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>

namespace kvsweep {
namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"  // in the macro
// Code point at `at`, which moves behind it.
char32_t next_code(std::string_view text, size_t& at) {
  UChar32 code = 0;
  U8_NEXT_OR_FFFD(text.data(), at, text.size(), code);
  return static_cast<char32_t>(code);
}
#pragma GCC diagnostic pop

}  // namespace

std::u32string decode_utf8(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) out += next_code(text, at);
  return out;
}

std::string encode_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t code : text) {
    char bytes[U8_MAX_LENGTH];
    int32_t length = 0;
    U8_APPEND_UNSAFE(bytes, length, code);
    out.append(bytes, static_cast<size_t>(length));
  }
  return out;
}

bool is_python_space(char32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_python_digit(char32_t c) {
  return u_charType(static_cast<UChar32>(c)) == U_DECIMAL_DIGIT_NUMBER;
}

bool is_python_word(char32_t c) {
  constexpr uint32_t kLettersAndNumbers = U_GC_L_MASK | U_GC_N_MASK;
  return c == '_' || (U_MASK(u_charType(static_cast<UChar32>(c))) & kLettersAndNumbers) != 0;
}

std::string python_lower(std::string_view text) {
  std::string out;
  if (is_ascii(text)) {
    out = text;
    for (char& c : out)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return out;
  }
  icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())})
      .toLower(icu::Locale::getRoot())
      .toUTF8String(out);
  return out;
}

std::string python_strip(std::string_view text) {
  size_t first = text.size(), last = 0;  // of what stays
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (is_python_space(next_code(text, at))) continue;
    first = std::min(first, start);
    last = at;
  }
  return first < last ? std::string(text.substr(first, last - first)) : "";
}

std::vector<std::string> python_split(std::string_view text) {
  std::vector<std::string> words;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t here = at;
    if (!is_python_space(next_code(text, at))) continue;
    if (here > start) words.emplace_back(text.substr(start, here - start));
    start = at;
  }
  if (start < text.size()) words.emplace_back(text.substr(start));
  return words;
}

std::vector<std::string> split_at(std::string_view text, char separator) {
  std::vector<std::string> parts;
  size_t start = 0;
  for (size_t end = text.find(separator); end != std::string_view::npos; end = text.find(separator, start)) {
    parts.emplace_back(text.substr(start, end - start));
    start = end + 1;
  }
  parts.emplace_back(text.substr(start));
  return parts;
}

bool is_ascii_punctuation(char c) {
  return (c > 0x20 && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 0x7f);
}

std::string without_ascii_punctuation(std::string_view text) {
  std::string out(text);
  std::erase_if(out, is_ascii_punctuation);
  return out;
}

}  // namespace kvsweep
