#include "harness/report/statistics/multiplicity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

// Indices of the tests, smallest p first.
std::vector<size_t> by_size(std::span<const double> p) {
  std::vector<size_t> order;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] < 0 || p[i] > 1)
      throw DataError(fmt::format("p of test {} is {}; allowed are numbers from 0 to 1", i, p[i]));
    if (!std::isnan(p[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] < p[b]; });
  return order;
}

}  // namespace

std::vector<double> holm(std::span<const double> p) {
  const std::vector<size_t> order = by_size(p);
  std::vector<double> adjusted(p.begin(), p.end());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    largest = std::max(largest, std::min(1.0, static_cast<double>(order.size() - rank) * p[order[rank]]));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

std::vector<double> benjamini_hochberg(std::span<const double> p) {
  const std::vector<size_t> order = by_size(p);
  std::vector<double> adjusted(p.begin(), p.end());
  double smallest = 1;
  for (size_t rank = order.size(); rank > 0; --rank) {
    const double scaled = static_cast<double>(order.size()) / static_cast<double>(rank) * p[order[rank - 1]];
    smallest = std::min(smallest, scaled);
    adjusted[order[rank - 1]] = smallest;
  }
  return adjusted;
}

}  // namespace kvsweep
