#include "schemes/parts/bit_allocation.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace kvsweep {
namespace {

constexpr double kTolerance = 1e-6;

template <class T>
void sort_unique(std::vector<T>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

double inverse(int64_t group) {
  return 1 / static_cast<double>(group);
}

}  // namespace

double mean_bits(const PerLayer<std::string>& bits, int64_t layers) {
  double sum = 0;
  for (const std::string& text : bits.values(layers)) sum += std::stod(text);
  return sum / static_cast<double>(layers);
}

std::vector<double> allocate_bits_greedy(const std::vector<double>& sensitivities, double total,
                                         std::vector<double> allowed, double exponent) {
  sort_unique(allowed);
  std::vector<size_t> level(sensitivities.size(), 0);
  double used = static_cast<double>(sensitivities.size()) * allowed.front();
  while (used + kTolerance < total) {
    std::optional<size_t> best;
    double best_gain = -1, best_step = 0;
    for (size_t i = 0; i < level.size(); ++i) {
      if (level[i] + 1 == allowed.size()) continue;
      const double bits = allowed[level[i]], next = allowed[level[i] + 1];
      if (used + (next - bits) - total > kTolerance) continue;
      const double weight = std::pow(sensitivities[i], exponent);
      const double gain =
          (weight * std::pow(2, -exponent * bits) - weight * std::pow(2, -exponent * next)) / (next - bits);
      if (gain <= best_gain + kTolerance) continue;
      best = i;
      best_gain = gain;
      best_step = next - bits;
    }
    if (!best) break;
    ++level[*best];
    used += best_step;
  }
  std::vector<double> bits;
  for (const size_t at : level) bits.push_back(allowed[at]);
  return bits;
}

std::vector<int64_t> allocate_groups_greedy(const std::vector<double>& sensitivities, double target,
                                            std::vector<int64_t> allowed) {
  sort_unique(allowed);
  double roots = 0;
  for (const double s : sensitivities) roots += std::sqrt(s);
  std::vector<size_t> level;
  double sum = 0;
  for (const double s : sensitivities) {
    const double optimum = roots / target / std::sqrt(s);
    const auto distance = [optimum](int64_t g) { return std::abs(static_cast<double>(g) - optimum); };
    const auto nearest = std::min_element(allowed.begin(), allowed.end(),
                                          [&](int64_t a, int64_t b) { return distance(a) < distance(b); });
    level.push_back(static_cast<size_t>(nearest - allowed.begin()));
    sum += inverse(*nearest);
  }
  while (std::abs(sum - target) > kTolerance) {
    const bool grow = sum > target;
    std::optional<size_t> best;
    double best_value = 0;
    for (size_t i = 0; i < level.size(); ++i) {
      if (level[i] + (grow ? 1 : 0) == (grow ? allowed.size() : 0)) continue;
      const int64_t size = allowed[level[i]], next = allowed[grow ? level[i] + 1 : level[i] - 1];
      const double step = inverse(next) - inverse(size);
      if (grow ? sum + step + kTolerance < target : sum + step - kTolerance > target) continue;
      // Growing: the error that a unit of the sum costs. Shrinking: what it gains.
      const double value =
          sensitivities[i] * static_cast<double>(grow ? next - size : size - next) / (grow ? -step : step);
      if (best && (grow ? value >= best_value : value <= best_value)) continue;
      best = i;
      best_value = value;
    }
    if (!best) break;
    const size_t from = level[*best];
    level[*best] = grow ? from + 1 : from - 1;
    sum += inverse(allowed[level[*best]]) - inverse(allowed[from]);
  }
  std::vector<int64_t> sizes;
  for (const size_t at : level) sizes.push_back(allowed[at]);
  return sizes;
}

}  // namespace kvsweep
