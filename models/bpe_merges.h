#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace kvsweep {

// Pairs of adjacent symbols that merge into one, and in which order.
class BpeMerges {
 public:
  void reserve(int64_t pairs) { pairs_.reserve(static_cast<size_t>(pairs)); }
  // A lower rank merges first. A pair that is added twice keeps the later rank.
  void add(int32_t left, int32_t right, int32_t merged, int32_t rank);

  // Merges until no pair is left: always the pair of lowest rank, the leftmost among equals. O(n log n).
  void apply(std::vector<int32_t>& symbols) const;

 private:
  struct Merge {
    int32_t rank, merged;
  };
  class Run;

  std::unordered_map<uint64_t, Merge> pairs_;  // left << 32 | right
};

}  // namespace kvsweep
