#include "harness/core/tokenizer.h"

#include "models/utf8.h"

namespace kvsweep {

std::vector<int32_t> encode_with_bos(const Tokenizer& tokenizer, std::string_view text, bool parse_special) {
  std::vector<int32_t> ids = tokenizer.encode(text, parse_special);
  if (tokenizer.adds_bos()) ids.insert(ids.begin(), tokenizer.bos().value());
  return ids;
}

std::string lossy_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = first_utf8(bytes);
    if (step.valid)
      text.append(bytes.substr(0, step.bytes));
    else
      append_utf8(text, 0xFFFD);
    bytes.remove_prefix(step.bytes);
  }
  return text;
}

}  // namespace kvsweep
