#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "harness/core/random.h"
#include "harness/core/task.h"

namespace kvsweep {

// What RULER's niah family and its front `needle` share. Source of all strings: NVIDIA/RULER at c3f5e3b,
// scripts/data/synthetic/constants.py and niah.py.

// Words that keys and values are made of.
struct Vocabulary {
  std::vector<std::string> adjectives, nouns;
};

// words: "generated" (the project's lists) or "wonderwords" (the protocol's, from a data root).
Vocabulary vocabulary(const std::string& words, const DataLocator& data);
// Files that it reads, as Task::data() names them.
std::vector<std::string> vocabulary_data(const std::string& words);
// Lines of a word list, empty ones left out. Throws DataError when there is none.
std::vector<std::string> word_lines(const DataLocator& data, const std::string& file);

// Random keys and values, no two alike. kind: "number" (7 digits), "word" (adjective-noun), "uuid" (version 4).
class Drawer {
 public:
  // Both must outlive it.
  Drawer(const Vocabulary& words, Rng& rng) : words_(words), rng_(rng) {}
  std::string draw(const std::string& kind);

 private:
  std::string uuid4();

  const Vocabulary& words_;
  Rng& rng_;
  std::set<std::string> drawn_;
};

// "One of the special magic numbers for <key> is: <value>."
std::string niah_needle(const std::string& kind, const std::string& key, const std::string& value);

// The prompt around the haystack: `head` before it, `question` and `answer_prefix` after it.
struct NiahFrame {
  std::string head, question, answer_prefix;
};
// asked: values asked for, keys times values; one is asked for in the singular. query: "a, b, and c".
NiahFrame niah_frame(const std::string& kind, const std::string& query, int64_t asked);

// "a", "a, and b", "a, b, and c"
std::string enumerate(const std::vector<std::string>& items);

}  // namespace kvsweep
