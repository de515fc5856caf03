#pragma once

#include <string_view>

namespace kvsweep {

// fuzzywuzzy 0.18 takes one or the other, by what else is installed. LongBench's requirements give kDifflib.
enum class CodeSimilarity {
  kDifflib,      // difflib.SequenceMatcher.ratio, its autojunk included
  kLevenshtein,  // python-Levenshtein's ratio, 1 - indel distance / summed length (0.20 and later: before that the
                 // same number was rounded another way)
};

// LongBench's code_sim_score, in [0, 1] in steps of 0.01: fuzz.ratio of `answer` and the first line of `output` that
// has no "`", "#" or "//" (it may be empty). Leading line breaks are dropped.
double code_similarity(std::string_view output, std::string_view answer, CodeSimilarity form);

// fuzzywuzzy.fuzz.ratio, 0 to 100: equal texts 100, an empty one 0, halves round to even.
int fuzz_ratio(std::string_view a, std::string_view b, CodeSimilarity form);

}  // namespace kvsweep
