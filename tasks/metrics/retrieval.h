#pragma once

#include <string_view>

namespace kvsweep {

// LongBench's retrieval_score and retrieval_zh_score, in [0, 1]: the share of numbers in `output` that are the number
// of the paragraph, compared as texts; 0 without a number. answer: "Paragraph 12", "段落12". Throws
// std::invalid_argument for an answer without a number, where the original fails.
double retrieval_score(std::string_view output, std::string_view answer);
double retrieval_zh_score(std::string_view output, std::string_view answer);

// count_score: the share of numbers in `output` that equal `answer` as text.
double count_score(std::string_view output, std::string_view answer);

}  // namespace kvsweep
