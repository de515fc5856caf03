#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace kvsweep {

// A seed for one purpose: SHA-256 of "<seed>/<label>", first eight bytes. Different labels give independent streams.
uint64_t derive_seed(uint64_t seed, std::string_view label);

// xoshiro256** seeded through splitmix64 (Blackman and Vigna, 2018). The same numbers on every platform, which
// std::uniform_int_distribution does not promise.
class Rng {
 public:
  explicit Rng(uint64_t seed);
  uint64_t next();
  // Uniform in [0, bound), without modulo bias. bound > 0.
  uint64_t below(uint64_t bound);
  // Uniform in [low, high].
  int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(below(uint64_t(high - low) + 1)); }
  // Uniform in [0, 1) with 53 random bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  // Standard normal by Box-Muller.
  double normal();
  template <class T>
  const T& pick(const std::vector<T>& items) {
    return items[static_cast<size_t>(below(items.size()))];
  }
  // Fisher-Yates.
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[static_cast<size_t>(below(i))]);
  }

 private:
  uint64_t state_[4];
};

}  // namespace kvsweep
