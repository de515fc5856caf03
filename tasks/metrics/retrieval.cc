#include "tasks/metrics/retrieval.h"

#include <fmt/format.h>

#include <stdexcept>
#include <string>

#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

size_t digits_end(const std::u32string& text, size_t at) {
  while (at < text.size() && is_python_digit(text[at])) ++at;
  return at;
}

// re.findall(r"\d+", output), compared with `number`.
double share_of_numbers(std::string_view output, const std::u32string& number) {
  const std::u32string text = decode_utf8(output);
  int64_t all = 0, right = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = digits_end(text, at);
    if (end == at) {
      ++at;
      continue;
    }
    ++all;
    if (std::u32string_view(text).substr(at, end - at) == number) ++right;
    at = end;
  }
  return all == 0 ? 0 : static_cast<double>(right) / static_cast<double>(all);
}

// The first number right behind `word`.
std::u32string number_behind(const std::u32string& word, std::string_view answer) {
  const std::u32string text = decode_utf8(answer);
  for (size_t at = text.find(word); at != std::u32string::npos; at = text.find(word, at + 1)) {
    const size_t start = at + word.size(), end = digits_end(text, start);
    if (end > start) return text.substr(start, end - start);
  }
  throw std::invalid_argument(fmt::format("retrieval_score: no paragraph's number in the answer '{}'", answer));
}

}  // namespace

double retrieval_score(std::string_view output, std::string_view answer) {
  return share_of_numbers(output, number_behind(U"Paragraph ", answer));
}

double retrieval_zh_score(std::string_view output, std::string_view answer) {
  return share_of_numbers(output, number_behind(U"段落", answer));
}

double count_score(std::string_view output, std::string_view answer) {
  return share_of_numbers(output, decode_utf8(answer));
}

}  // namespace kvsweep
