#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/core/task.h"

namespace kvsweep {

// `count` whole numbers, evenly over [low, high], as numpy's round(linspace(low, high, count)): halves go to the even
// number. The classical grid's lengths and depths. count >= 2.
std::vector<int64_t> even_grid(int64_t low, int64_t high, int64_t count);

// Depths in per cent: even_grid(0, 100, count); one depth is the middle, 50.
std::vector<int64_t> depth_grid(int64_t count);

// 0..count-1 in an order whose every beginning is spread evenly (van der Corput's sequence in base 2): 0, 5, 2, 7, ...
std::vector<int64_t> spread_order(int64_t count);

// Where haystack sentences come from, and what stands between them. `next` never runs dry.
struct Haystack {
  std::string separator;
  std::function<std::string()> next;
};

// Sentences of the project's generator; each seed is a different text.
Haystack generated_haystack(uint64_t seed);
// RULER's "noise" line over and over, one a line.
Haystack noise_haystack();
// `sentences` from the first, and again from the first at their end. The vector must outlive the result.
Haystack text_haystack(const std::vector<std::string>& sentences);

// A text file, or all .txt files of a folder in the order of their names, one after the other. Throws DataError when
// there is none.
std::string haystack_text(const DataLocator& data, const std::string& path);

// Sentences of a text file, or of all .txt files of a folder in the order of their names. Throws DataError when there
// is none.
std::vector<std::string> haystack_sentences(const DataLocator& data, const std::string& path);

}  // namespace kvsweep
