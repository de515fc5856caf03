#include "tasks/data/python_random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>
#include <stdexcept>

namespace kvsweep {

PythonRandom::PythonRandom(uint32_t seed) {
  const auto mixed = [this](size_t i) { return state_[i - 1] ^ (state_[i - 1] >> 30); };
  const auto n = static_cast<uint32_t>(state_.size());
  state_[0] = 19650218;
  for (uint32_t i = 1; i < n; ++i) state_[i] = 1812433253U * mixed(i) + i;
  // init_by_array with the one word `seed`.
  uint32_t i = 1;
  const auto step = [&] {
    if (++i == n) {
      state_[0] = state_[n - 1];
      i = 1;
    }
  };
  for (uint32_t k = 0; k < n; ++k, step()) state_[i] = (state_[i] ^ (mixed(i) * 1664525U)) + seed;
  for (uint32_t k = 1; k < n; ++k, step()) state_[i] = (state_[i] ^ (mixed(i) * 1566083941U)) - i;
  state_[0] = 0x80000000U;
}

uint32_t PythonRandom::next() {
  const size_t n = state_.size(), m = 397;
  if (at_ == n) {
    for (size_t i = 0; i < n; ++i) {
      const uint32_t y = (state_[i] & 0x80000000U) | (state_[(i + 1) % n] & 0x7fffffffU);
      state_[i] = state_[(i + m) % n] ^ (y >> 1) ^ ((y & 1) != 0 ? 0x9908b0dfU : 0);
    }
    at_ = 0;
  }
  uint32_t y = state_[at_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680U;
  y ^= (y << 15) & 0xefc60000U;
  return y ^ (y >> 18);
}

int64_t PythonRandom::below(int64_t bound) {
  const auto bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(bound)));
  while (true) {
    const int64_t drawn = next() >> (32 - bits);
    if (drawn < bound) return drawn;
  }
}

std::vector<int64_t> PythonRandom::sample(int64_t population, int64_t count) {
  if (count < 0 || count > population || population >= int64_t{1} << 32)
    throw std::invalid_argument("PythonRandom::sample: more than there is");
  // A list of all is drawn from when it is smaller than a set of the drawn ones would be.
  double set_size = 21;
  if (count > 5) set_size += std::pow(4, std::ceil(std::log(3 * static_cast<double>(count)) / std::log(4.0)));
  std::vector<int64_t> drawn;
  if (static_cast<double>(population) <= set_size) {
    std::vector<int64_t> pool(static_cast<size_t>(population));
    std::iota(pool.begin(), pool.end(), 0);
    for (int64_t i = 0; i < count; ++i) {
      const auto j = static_cast<size_t>(below(population - i));
      drawn.push_back(pool[j]);
      pool[j] = pool[static_cast<size_t>(population - i - 1)];
    }
    return drawn;
  }
  std::set<int64_t> seen;
  while (std::ssize(drawn) < count)
    if (const int64_t one = below(population); seen.insert(one).second) drawn.push_back(one);
  return drawn;
}

}  // namespace kvsweep
