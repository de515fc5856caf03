#pragma once

#include <string_view>

#include "tasks/metrics/jieba.h"

namespace kvsweep {

// LongBench's qa_f1_score (THUDM/LongBench, metrics.py), after SQuAD: F1 of the multisets of words, in [0, 1].
// Normalised in this order: lower case, ASCII punctuation deleted, the words a, an and the deleted, split at white
// space. "New York-based" is therefore "new yorkbased"; curly quotes stay. Two texts without a word score 0.
// One answer; a record with several takes the largest score.
double qa_f1(std::string_view output, std::string_view answer);

// qa_f1_zh_score: words are jieba's, lower case, ASCII and Chinese punctuation and white space deleted, empty ones
// dropped; articles stay.
double qa_f1_zh(std::string_view output, std::string_view answer, const Jieba& jieba);

}  // namespace kvsweep
