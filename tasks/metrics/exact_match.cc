#include "tasks/metrics/exact_match.h"

#include <algorithm>
#include <stdexcept>

#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

std::string normalized(std::string_view text, const ExactMatchRules& rules) {
  std::string out = rules.ignore_case ? python_lower(text) : std::string(text);
  return rules.ignore_punctuation ? without_ascii_punctuation(out) : out;
}

}  // namespace

double exact_match(std::string_view output, const std::vector<std::string>& answers, const ExactMatchRules& rules) {
  if (answers.empty()) throw std::invalid_argument("exact_match: no answers");
  const std::string text = normalized(python_strip(output), rules);
  return std::any_of(answers.begin(), answers.end(),
                     [&](const std::string& answer) { return normalized(answer, rules) == text; })
             ? 1
             : 0;
}

}  // namespace kvsweep
