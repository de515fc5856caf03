#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvsweep {

// Python's random.Random(seed), as far as random.sample(range(n), k) needs it (CPython, Modules/_randommodule.c and
// Lib/random.py): the Mersenne Twister MT19937 of Matsumoto and Nishimura (1998), seeded by an array.
class PythonRandom {
 public:
  explicit PythonRandom(uint32_t seed);
  // sample(range(population), count): `count` different numbers below `population`, in the order they were drawn.
  std::vector<int64_t> sample(int64_t population, int64_t count);

 private:
  uint32_t next();
  int64_t below(int64_t bound);  // bound > 0 and below 2^32

  std::array<uint32_t, 624> state_{};
  size_t at_ = 624;
};

}  // namespace kvsweep
