// oracle: repetition and copied fragments counted by hand.
#include "tasks/metrics/repetition.h"

#include <catch2/catch_test_macros.hpp>
#include <map>
#include <set>

#include "harness/core/random.h"
#include "tasks/metrics/rouge_google.h"

namespace kvsweep {
namespace {

using Tokens = std::vector<int32_t>;

// The definition, written out: a block of p tokens at least twice in a row.
int64_t slow_longest_loop(const Tokens& tokens) {
  int64_t longest = 0;
  const auto n = static_cast<int64_t>(tokens.size());
  for (int64_t p = 1; p <= kLongestPeriod; ++p) {
    for (int64_t begin = 0; begin + 2 * p <= n; ++begin) {
      int64_t end = begin + p;
      while (end < n && tokens[static_cast<size_t>(end)] == tokens[static_cast<size_t>(end - p)]) ++end;
      if (end - begin >= 2 * p) longest = std::max(longest, end - begin);
    }
  }
  return longest;
}

Tokens random_tokens(Rng& rng, int64_t length, int64_t kinds) {
  Tokens tokens;
  for (int64_t i = 0; i < length; ++i) tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(kinds))));
  return tokens;
}

}  // namespace

TEST_CASE("n-grams that have occurred before") {
  const Tokens tokens = {1, 2, 1, 2, 1, 3};  // bigrams 12 21 12 21 13: three of five are new
  CHECK(distinct_n(tokens, 2) == 3.0 / 5);
  CHECK(rep_n(tokens, 2) == 1 - 3.0 / 5);
  CHECK(distinct_n(tokens, 1) == 3.0 / 6);
  CHECK(rep_n(tokens, 4) == 0);  // 1212 2121 1213
  CHECK(rep_n({7, 7, 7, 7, 7, 7}, 4) == 1 - 1.0 / 3);
  CHECK(rep_n({}, 4) == 0);
  CHECK(distinct_n({1, 2, 3}, 4) == 1);
}

TEST_CASE("n-grams are told apart as sets of them are") {
  Rng rng(3);
  for (int round = 0; round < 50; ++round) {
    const Tokens tokens = random_tokens(rng, 40, 3);
    for (int64_t n = 1; n <= 5; ++n) {
      std::set<Tokens> seen;
      for (size_t i = 0; i + static_cast<size_t>(n) <= tokens.size(); ++i)
        seen.emplace(tokens.begin() + static_cast<std::ptrdiff_t>(i),
                     tokens.begin() + static_cast<std::ptrdiff_t>(i) + n);
      CHECK(distinct_n(tokens, n) == static_cast<double>(seen.size()) / static_cast<double>(40 - n + 1));
    }
  }
}

TEST_CASE("the longest loop") {
  CHECK(longest_loop({1, 2, 3, 1, 2, 3, 1}) == 7);
  CHECK(longest_loop({9, 1, 2, 1, 2, 8}) == 4);
  CHECK(longest_loop({1, 2, 3, 4}) == 0);
  CHECK(longest_loop({1, 1}) == 2);
  CHECK(longest_loop({}) == 0);
  Rng rng(5);
  for (int round = 0; round < 100; ++round) {
    const Tokens tokens = random_tokens(rng, rng.between(0, 60), rng.between(1, 4));
    CHECK(longest_loop(tokens) == slow_longest_loop(tokens));
  }
}

TEST_CASE("what a summary copies") {
  const Extractive copied = extractive("The cat sat on the mat. The dog ran.", "The dog sat on the mat, cat!");
  // "the dog" 2, "sat on the mat" 4, "cat" 1 of 7 words.
  CHECK(copied.coverage == 1);
  CHECK(copied.density == (4.0 + 16 + 1) / 7);
  CHECK(extractive("a b c", "d e").coverage == 0);
  CHECK(extractive("a b c", "").coverage == 0);
  CHECK(extractive("", "a").density == 0);
}

TEST_CASE("copied fragments are the longest that occur anywhere") {
  Rng rng(9);
  const auto text = [&](int64_t length) {
    std::string out;
    for (int64_t i = 0; i < length; ++i) out += std::string(1, static_cast<char>('a' + rng.below(3))) + " ";
    return out;
  };
  for (int round = 0; round < 100; ++round) {
    const std::string document = text(30), summary = text(12);
    double squares = 0;
    for (size_t at = 0; at < summary.size();) {
      size_t length = 0;  // characters, two a word
      while (at + length < summary.size() && document.find(summary.substr(at, length + 2)) != std::string::npos)
        length += 2;
      squares += static_cast<double>(length / 2) * static_cast<double>(length / 2);
      at += std::max<size_t>(length, 2);
    }
    CHECK(extractive(document, summary).density == squares / 12);
  }
}

}  // namespace kvsweep
