#pragma once

#include <string>
#include <string_view>

namespace kvsweep {

// Where a GSM8K answer is looked for in generated text. Regular expressions as in the originals
// (EleutherAI/lm-evaluation-harness, lm_eval/tasks/gsm8k; openai/grade-school-math, dataset.py), matched by hand in one
// pass.
enum class Gsm8kRule {
  kStrict,       // gsm8k:           first `#### (\-?[0-9\.\,]+)`
  kCotStrict,    // gsm8k_cot:       first `The answer is (\-?[0-9\.\,]+).`, the last dot any character
  kLlamaStrict,  // gsm8k_cot_llama: last `The final answer is ((-?[$0-9.,]{2,})|(-?[0-9]+))`
  kFlexible,     // all three:       last `(-?[$0-9.,]{2,})|(-?[0-9]+)`
  kOpenAi,       // first `#### (\-?[0-9\.\,]+)`, commas removed
};

// "[invalid]" where there is none.
std::string gsm8k_extract(std::string_view text, Gsm8kRule rule);

// lm-eval's exact_match of the gsm8k tasks: both sides lose every ",", "$", all up to the last "#### ", and a full stop
// at the end, and case. gold: the data set's whole answer, or the number alone. Returns 0 or 1.
double gsm8k_exact_match(std::string_view extracted, std::string_view gold);

// The original's is_correct: both extracted by kOpenAi and compared as they are. Returns 0 or 1; throws
// std::invalid_argument when `gold` has no answer, as the original asserts.
double gsm8k_openai_correct(std::string_view text, std::string_view gold);

}  // namespace kvsweep
