#include "tasks/metrics/string_match.h"

#include <algorithm>
#include <stdexcept>

#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

std::string post_processed(std::string_view output) {
  std::string text = python_strip(output);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c >= 0 && c < 0x20; }, '\n');
  return python_lower(python_strip(text));
}

int64_t occurring(std::string_view output, const std::vector<std::string>& answers) {
  if (answers.empty()) throw std::invalid_argument("string_match: no answers");
  const std::string text = post_processed(output);
  return std::count_if(answers.begin(), answers.end(),
                       [&](const std::string& answer) { return text.find(python_lower(answer)) != std::string::npos; });
}

}  // namespace

double string_match_all(std::string_view output, const std::vector<std::string>& answers) {
  return static_cast<double>(occurring(output, answers)) / static_cast<double>(answers.size());
}

double string_match_part(std::string_view output, const std::vector<std::string>& answers) {
  return occurring(output, answers) > 0 ? 1 : 0;
}

}  // namespace kvsweep
