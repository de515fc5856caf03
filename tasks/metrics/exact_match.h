#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// What lm-evaluation-harness' exact_match ignores on request.
struct ExactMatchRules {
  bool ignore_case = true;
  bool ignore_punctuation = true;  // ASCII marks are deleted
};

// 1 when the stripped output is one of `answers` under the rules, else 0. With both rules it is lm-eval's triviaqa:
// articles stay, inner white space counts. answers must not be empty.
double exact_match(std::string_view output, const std::vector<std::string>& answers, const ExactMatchRules& rules = {});

}  // namespace kvsweep
