#include "tasks/metrics/repetition.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "tasks/metrics/lcs.h"
#include "tasks/metrics/rouge_google.h"

namespace kvsweep {
namespace {

// Number of different n-grams. An n-gram is its first n - 1 tokens' number and its last token.
int64_t distinct_ngrams(const std::vector<int32_t>& tokens, int64_t n) {
  std::vector<int64_t> numbers(tokens.size());  // of the n-gram that begins here
  int64_t distinct = 0;
  for (int64_t length = 1; length <= n; ++length) {
    std::unordered_map<uint64_t, int64_t> known;
    for (size_t i = 0; i + static_cast<size_t>(length) <= tokens.size(); ++i) {
      const auto last = static_cast<uint32_t>(tokens[i + static_cast<size_t>(length) - 1]);
      const uint64_t key = static_cast<uint64_t>(numbers[i]) << 32 | last;
      numbers[i] = known.emplace(key, static_cast<int64_t>(known.size())).first->second;
    }
    distinct = static_cast<int64_t>(known.size());
  }
  return distinct;
}

// Suffix automaton: every substring of a text as a path from state 0, in space and time linear in the text.
class Substrings {
 public:
  explicit Substrings(const std::vector<int32_t>& text) : states_(1) {
    size_t last = 0;
    for (const int32_t token : text) last = extended(last, token);
  }
  // Length of the longest prefix of text[at...] that is a substring.
  size_t longest(const std::vector<int32_t>& text, size_t at) const {
    size_t length = 0;
    for (size_t state = 0; at + length < text.size(); ++length) {
      const auto next = states_[state].next.find(text[at + length]);
      if (next == states_[state].next.end()) break;
      state = next->second;
    }
    return length;
  }

 private:
  static constexpr size_t kNone = static_cast<size_t>(-1);
  struct State {
    size_t length = 0, link = kNone;
    std::map<int32_t, size_t> next;
  };

  size_t extended(size_t last, int32_t token) {
    const size_t added = states_.size();
    states_.emplace_back().length = states_[last].length + 1;
    size_t p = last;
    for (; p != kNone && !states_[p].next.contains(token); p = states_[p].link) states_[p].next[token] = added;
    if (p == kNone) {
      states_[added].link = 0;
      return added;
    }
    const size_t q = states_[p].next[token];
    if (states_[p].length + 1 == states_[q].length) {
      states_[added].link = q;
      return added;
    }
    const size_t copy = states_.size();
    states_.push_back(State(states_[q]));
    states_[copy].length = states_[p].length + 1;
    for (; p != kNone; p = states_[p].link) {
      const auto at = states_[p].next.find(token);
      if (at == states_[p].next.end() || at->second != q) break;
      at->second = copy;
    }
    states_[q].link = states_[added].link = copy;
    return added;
  }

  std::vector<State> states_;
};

}  // namespace

double distinct_n(const std::vector<int32_t>& tokens, int64_t n) {
  const int64_t all = std::ssize(tokens) - n + 1;
  return all <= 0 ? 1 : static_cast<double>(distinct_ngrams(tokens, n)) / static_cast<double>(all);
}

double rep_n(const std::vector<int32_t>& tokens, int64_t n) {
  return 1 - distinct_n(tokens, n);
}

int64_t longest_loop(const std::vector<int32_t>& tokens) {
  const int64_t n = std::ssize(tokens);
  int64_t longest = 0;
  for (int64_t period = 1; period <= std::min(kLongestPeriod, n / 2); ++period) {
    int64_t equal = 0;  // tokens in a row that stand one period before as well
    for (int64_t i = period; i < n; ++i) {
      equal = tokens[static_cast<size_t>(i)] == tokens[static_cast<size_t>(i - period)] ? equal + 1 : 0;
      if (equal >= period) longest = std::max(longest, equal + period);
    }
  }
  return longest;
}

Extractive extractive(std::string_view document, std::string_view summary) {
  Interner interner;
  const Substrings fragments(interner.ids(google_rouge_tokens(document, false)));
  const std::vector<int32_t> words = interner.ids(google_rouge_tokens(summary, false));
  Extractive out;
  for (size_t at = 0; at < words.size();) {
    const size_t length = fragments.longest(words, at);
    out.coverage += static_cast<double>(length);
    out.density += static_cast<double>(length) * static_cast<double>(length);
    at += std::max<size_t>(length, 1);
  }
  if (words.empty()) return out;
  out.coverage /= static_cast<double>(words.size());
  out.density /= static_cast<double>(words.size());
  return out;
}

}  // namespace kvsweep
