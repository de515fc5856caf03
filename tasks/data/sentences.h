#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "harness/core/random.h"

namespace kvsweep {

// English-like filler sentences from a small grammar over the project's word lists. A pure function of the seed; never
// the same sentence twice; no digit and never the words that a needle is recognised by ("special", "magic").
class SentenceGenerator {
 public:
  explicit SentenceGenerator(uint64_t seed) : rng_(seed) {}
  std::string next();

 private:
  std::string draw();
  std::string thing_phrase();
  std::string place_phrase();

  Rng rng_;
  std::unordered_set<std::string> made_;
};

// Sentences of running text, in order, without the spaces between them. Runs of white space count as one space (the
// protocol's re.sub(r'\s+', ' ')). A sentence ends at '.', '!' or '?', with closing quotes and brackets, before a space
// that no lower-case letter follows. Joined by " " they are the text again.
std::vector<std::string> split_sentences(std::string_view text);

}  // namespace kvsweep
