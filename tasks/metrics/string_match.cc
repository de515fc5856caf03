#include "tasks/metrics/string_match.h"

#include <algorithm>
#include <stdexcept>

namespace kvsweep {
namespace {

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

double string_match_all(std::string_view output, const std::vector<std::string>& answers) {
  if (answers.empty()) throw std::invalid_argument("string_match_all: no answers");
  std::string text = lower_ascii(output);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c >= 0 && c < 0x20; }, '\n');
  const auto found = std::count_if(answers.begin(), answers.end(), [&](const std::string& answer) {
    return text.find(lower_ascii(answer)) != std::string::npos;
  });
  return static_cast<double>(found) / static_cast<double>(answers.size());
}

}  // namespace kvsweep
