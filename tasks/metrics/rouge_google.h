#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

struct Rouge {
  double precision = 0, recall = 0, f = 0;  // each in [0, 1]
};

struct GoogleRouge {
  Rouge rouge1, rouge2, rouge_l, rouge_lsum;
};

// ROUGE as google-research/rouge (rouge_scorer.py) computes it. Tokens: lower case, runs of [a-z0-9], so letters
// outside of ASCII are lost; with `stem`, tokens longer than 3 characters go through porter_stem(). rouge_lsum: one
// sentence a line, union of longest common subsequences with counts clipped. No token on a side: 0.
// Time is |prediction| x |target| in tokens; memory too for rouge_lsum, a pair of sentences at a time.
GoogleRouge google_rouge(std::string_view target, std::string_view prediction, bool stem);

// The tokens that it counts.
std::vector<std::string> google_rouge_tokens(std::string_view text, bool stem);

}  // namespace kvsweep
