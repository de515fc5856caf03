#include "tasks/metrics/code_similarity.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tasks/metrics/lcs.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

// difflib.SequenceMatcher(None, a, b), as far as ratio() needs it: the number of characters in matching blocks.
class Matcher {
 public:
  Matcher(const std::u32string& a, const std::u32string& b) : a_(a) {
    for (size_t j = 0; j < b.size(); ++j) where_[b[j]].push_back(j);
    // autojunk: in a long b, characters that make up more than 1 % of it start no match but may extend one.
    const std::map<char32_t, std::vector<size_t>> all = where_;
    if (b.size() >= 200) std::erase_if(where_, [&](const auto& one) { return one.second.size() > b.size() / 100 + 1; });
    b_ = b;
    before_.resize(b.size() + 1);
    here_.resize(b.size() + 1);
  }

  int64_t matches() {
    int64_t sum = 0;
    std::vector<Range> waiting = {{0, a_.size(), 0, b_.size()}};
    while (!waiting.empty()) {
      const Range range = waiting.back();
      waiting.pop_back();
      const auto [i, j, length] = longest(range);
      if (length == 0) continue;
      sum += static_cast<int64_t>(length);
      if (range.a_begin < i && range.b_begin < j) waiting.push_back({range.a_begin, i, range.b_begin, j});
      if (i + length < range.a_end && j + length < range.b_end)
        waiting.push_back({i + length, range.a_end, j + length, range.b_end});
    }
    return sum;
  }

 private:
  struct Range {
    size_t a_begin, a_end, b_begin, b_end;
  };
  struct Block {
    size_t i, j, length;
  };

  // find_longest_match: the first longest one, then extended to both sides by whatever is equal.
  Block longest(const Range& range) {
    Block best{range.a_begin, range.b_begin, 0};
    std::vector<size_t> touched_before, touched_here;
    for (size_t i = range.a_begin; i < range.a_end; ++i) {
      if (const auto at = where_.find(a_[i]); at != where_.end()) {
        const std::vector<size_t>& places = at->second;
        for (auto j = std::lower_bound(places.begin(), places.end(), range.b_begin);
             j != places.end() && *j < range.b_end; ++j) {
          const size_t length = before_[*j] + 1;  // before_[j]: of the match that ends at a[i - 1], b[j - 1]
          here_[*j + 1] = length;
          touched_here.push_back(*j + 1);
          if (length > best.length) best = {i + 1 - length, *j + 1 - length, length};
        }
      }
      for (const size_t j : touched_before) before_[j] = 0;
      before_.swap(here_);
      touched_before.swap(touched_here);
      touched_here.clear();
    }
    for (const size_t j : touched_before) before_[j] = 0;
    while (best.i > range.a_begin && best.j > range.b_begin && a_[best.i - 1] == b_[best.j - 1])
      --best.i, --best.j, ++best.length;
    while (best.i + best.length < range.a_end && best.j + best.length < range.b_end &&
           a_[best.i + best.length] == b_[best.j + best.length])
      ++best.length;
    return best;
  }

  std::u32string a_, b_;
  std::map<char32_t, std::vector<size_t>> where_;  // of characters of b
  std::vector<size_t> before_, here_;
};

double ratio(const std::u32string& a, const std::u32string& b, CodeSimilarity form) {
  const auto total = static_cast<double>(a.size() + b.size());
  if (form == CodeSimilarity::kDifflib) return 2.0 * static_cast<double>(Matcher(a, b).matches()) / total;
  const std::vector<int32_t> x(a.begin(), a.end()), y(b.begin(), b.end());
  return 1.0 - (total - 2.0 * static_cast<double>(lcs_length(x, y))) / total;
}

}  // namespace

int fuzz_ratio(std::string_view a, std::string_view b, CodeSimilarity form) {
  if (a == b) return 100;
  if (a.empty() || b.empty()) return 0;
  return static_cast<int>(std::nearbyint(100 * ratio(decode_utf8(a), decode_utf8(b), form)));
}

double code_similarity(std::string_view output, std::string_view answer, CodeSimilarity form) {
  output.remove_prefix(std::min(output.find_first_not_of('\n'), output.size()));
  std::string line;
  for (const std::string& one : split_at(output, '\n')) {
    if (one.find('`') != std::string::npos || one.find('#') != std::string::npos || one.find("//") != std::string::npos)
      continue;
    line = one;
    break;
  }
  return fuzz_ratio(line, answer, form) / 100.0;
}

}  // namespace kvsweep
