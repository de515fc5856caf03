#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kvsweep {

// Texts as numbers, equal ones alike: what the longest common subsequences below are of.
class Interner {
 public:
  std::vector<int32_t> ids(const std::vector<std::string>& words);

 private:
  std::map<std::string, int32_t> ids_;
};

int64_t lcs_length(const std::vector<int32_t>& x, const std::vector<int32_t>& y);

// Where a longest common subsequence is read out of the table of lengths T from its end: at (i, j) with x[i-1] !=
// y[j-1] to i - 1 or to j - 1, whichever entry is larger; of equal ones to what the tie says.
enum class LcsTie { kBackInX, kBackInY };

// Positions in x of that subsequence, in order. Nothing when it takes more than `most_steps` positions (i, j), the one
// it ends at included. Time |x| * |y|, memory one bit for each.
std::optional<std::vector<size_t>> lcs_positions(const std::vector<int32_t>& x, const std::vector<int32_t>& y,
                                                 LcsTie tie, int64_t most_steps);

}  // namespace kvsweep
