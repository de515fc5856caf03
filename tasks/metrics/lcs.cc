#include "tasks/metrics/lcs.h"

#include <algorithm>

namespace kvsweep {

std::vector<int32_t> Interner::ids(const std::vector<std::string>& words) {
  std::vector<int32_t> out;
  out.reserve(words.size());
  for (const std::string& word : words)
    out.push_back(ids_.emplace(word, static_cast<int32_t>(ids_.size())).first->second);
  return out;
}

int64_t lcs_length(const std::vector<int32_t>& x, const std::vector<int32_t>& y) {
  if (y.size() > x.size()) return lcs_length(y, x);
  std::vector<int32_t> row(y.size() + 1);
  for (const int32_t a : x) {
    int32_t diagonal = 0;
    for (size_t j = 1; j <= y.size(); ++j) {
      const int32_t above = row[j];
      row[j] = a == y[j - 1] ? diagonal + 1 : std::max(above, row[j - 1]);
      diagonal = above;
    }
  }
  return row.back();
}

std::optional<std::vector<size_t>> lcs_positions(const std::vector<int32_t>& x, const std::vector<int32_t>& y,
                                                 LcsTie tie, int64_t most_steps) {
  const size_t n = x.size(), m = y.size();
  std::vector<bool> back_in_x(n * m);
  std::vector<int32_t> row(m + 1);
  for (size_t i = 1; i <= n; ++i) {
    int32_t diagonal = 0;
    for (size_t j = 1; j <= m; ++j) {
      const int32_t above = row[j], left = row[j - 1];
      if (x[i - 1] == y[j - 1]) {
        row[j] = diagonal + 1;
      } else {
        row[j] = std::max(above, left);
        if (above > left || (above == left && tie == LcsTie::kBackInX)) back_in_x[(i - 1) * m + j - 1] = true;
      }
      diagonal = above;
    }
  }
  std::vector<size_t> positions;
  size_t i = n, j = m;
  for (int64_t steps = 1; i > 0 && j > 0; ++steps) {
    if (steps >= most_steps) return std::nullopt;
    if (x[i - 1] == y[j - 1]) {
      positions.push_back(i - 1);
      --i, --j;
    } else if (back_in_x[(i - 1) * m + j - 1]) {
      --i;
    } else {
      --j;
    }
  }
  std::reverse(positions.begin(), positions.end());
  return positions;
}

}  // namespace kvsweep
