#include "harness/core/random.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <numbers>
#include <string>

#include "harness/core/hash.h"

namespace kvsweep {

uint64_t derive_seed(uint64_t seed, std::string_view label) {
  return std::stoull(sha256_hex(fmt::format("{}/{}", seed, label)).substr(0, 16), nullptr, 16);
}

Rng::Rng(uint64_t seed) {
  for (uint64_t& word : state_) {  // splitmix64
    seed += 0x9e3779b97f4a7c15;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
}

uint64_t Rng::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

uint64_t Rng::below(uint64_t bound) {
  const uint64_t threshold = (0 - bound) % bound;  // 2^64 mod bound: values below it would be drawn once too often
  while (true) {
    const uint64_t value = next();
    if (value >= threshold) return value % bound;
  }
}

double Rng::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

}  // namespace kvsweep
