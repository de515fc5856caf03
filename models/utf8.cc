#include "models/utf8.h"

namespace kvsweep {

namespace {

// Continuation bytes that a lead byte asks for, and the range of the first of them.
struct Lead {
  int64_t continuations = 0;
  uint8_t low = 0x80, high = 0xBF;
};

Lead lead_of(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};
  if (byte == 0xED) return {2, 0x80, 0x9F};  // no surrogates
  if (byte >= 0xE1 && byte <= 0xEF) return {2};
  if (byte == 0xF0) return {3, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {3};
  if (byte == 0xF4) return {3, 0x80, 0x8F};
  return {};
}

}  // namespace

Utf8Step first_utf8(std::string_view text) {
  const auto byte = [&](int64_t i) { return static_cast<uint8_t>(text[static_cast<size_t>(i)]); };
  if (byte(0) < 0x80) return {1, true, byte(0)};
  const Lead lead = lead_of(byte(0));
  if (lead.continuations == 0) return {1};
  char32_t code = byte(0) & (0x3F >> lead.continuations);
  for (int64_t i = 1; i <= lead.continuations; ++i) {
    const bool first = i == 1;
    if (i >= static_cast<int64_t>(text.size()) || byte(i) < (first ? lead.low : 0x80) ||
        byte(i) > (first ? lead.high : 0xBF))
      return {i};
    code = (code << 6) | (byte(i) & 0x3F);
  }
  return {lead.continuations + 1, true, code};
}

void append_utf8(std::string& text, char32_t code) {
  const auto put = [&](char32_t bits) { text += static_cast<char>(bits); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | (code >> 6));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

}  // namespace kvsweep
