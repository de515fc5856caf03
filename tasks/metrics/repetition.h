#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// Repetition within one generated text, over token ids. All are in [0, 1] but longest_loop.

// Share of n-grams that have occurred before: 1 - distinct / all (seq-rep-n of Welleck et al., 2020, "Neural Text
// Generation with Unlikelihood Training"). 0 for a text shorter than n.
double rep_n(const std::vector<int32_t>& tokens, int64_t n);
// distinct / all n-grams (Li et al., 2016); 1 for a text shorter than n, where nothing repeats.
double distinct_n(const std::vector<int32_t>& tokens, int64_t n);

// Tokens of the longest stretch in which a block of at most kLongestPeriod tokens stands at least twice in a row,
// partial copies at the end included: "a b c a b c a" is 7. 0 without one.
constexpr int64_t kLongestPeriod = 128;
int64_t longest_loop(const std::vector<int32_t>& tokens);

// Of `summary`, the share of words that lie in a fragment copied from `document`, and the mean length of the fragment
// that a word lies in (Grusky et al., 2018, "Newsroom": coverage, density). Words are those of google_rouge_tokens
// without stemming. From each word of the summary on the longest fragment that occurs anywhere in the document is
// taken; the published procedure scans the document left to right and may miss a longer one that overlaps. An empty
// summary has 0 of both.
struct Extractive {
  double coverage = 0;  // [0, 1]
  double density = 0;   // words
};
Extractive extractive(std::string_view document, std::string_view summary);

}  // namespace kvsweep
