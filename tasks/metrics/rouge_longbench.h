#pragma once

#include <string_view>

#include "tasks/metrics/jieba.h"

namespace kvsweep {

// LongBench's rouge_score: F of ROUGE-L as the package `rouge` 1.0.1 (pltrdy/rouge) computes it, in [0, 1). It is not
// the usual ROUGE-L:
// * sentences end at "." and nowhere else; white space is collapsed; case and other punctuation stay;
// * counts are of distinct words, and the "LCS" is the set of words that are on a longest common subsequence of any
//   pair of sentences: a text that repeats itself is not punished;
// * F = 2pr / (p + r + 1e-8), so equal texts score 0.999999995;
// * the subsequence is read out by recursion, which Python ends at 1000 frames: where one pair of sentences needs more,
//   LongBench catches the error and scores 0. Here: kRougeSteps steps, as in a plain run of its eval.py.
// An empty text scores 0.
double rouge_l_longbench(std::string_view output, std::string_view answer);

// rouge_zh_score: both texts are cut by jieba and joined by spaces first.
double rouge_l_longbench_zh(std::string_view output, std::string_view answer, const Jieba& jieba);

}  // namespace kvsweep
