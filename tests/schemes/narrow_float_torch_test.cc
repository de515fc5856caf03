// Oracle: rounding to narrow types against c10's conversions.
#include "schemes/kernels/narrow_float.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <vector>

namespace kvsweep::testing {
namespace {

float from_bits(uint32_t bits) {
  return std::bit_cast<float>(bits);
}

template <class Narrow>
float narrow_from_bits(uint32_t bits) {
  return static_cast<float>(Narrow(static_cast<uint16_t>(bits), Narrow::from_bits()));
}

// Every value of the type, the middle between it and the next, what lies beside both, and float32 patterns all over.
template <class Narrow>
std::vector<float> interesting() {
  std::vector<float> all;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = narrow_from_bits<Narrow>(bits), next = narrow_from_bits<Narrow>((bits + 1) & 0xffff);
    const auto middle = static_cast<float>((static_cast<double>(x) + static_cast<double>(next)) / 2);
    for (const float y : {x, middle}) {
      all.push_back(y);
      all.push_back(std::nextafter(y, HUGE_VALF));
      all.push_back(std::nextafter(y, -HUGE_VALF));
    }
  }
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 1021) all.push_back(from_bits(static_cast<uint32_t>(bits)));
  for (const float limit : {65504.0F, 65519.996F, 65520.0F, 65536.0F, 0x1.FEp127F, 0x1.FFp127F, 0x1.FFFFFEp127F})
    for (const float y : {limit, -limit}) all.push_back(y);
  return all;
}

template <class Narrow, class Round>
int64_t other_bits(const Round& round) {
  int64_t wrong = 0;
  for (const float x : interesting<Narrow>()) {
    const float mine = round(x), theirs = static_cast<float>(static_cast<Narrow>(x));
    wrong += std::isnan(theirs) ? !std::isnan(mine) : std::bit_cast<uint32_t>(mine) != std::bit_cast<uint32_t>(theirs);
  }
  return wrong;
}

TEST_CASE("rounding to a narrow type is c10's conversion, bit for bit") {
  CHECK(other_bits<c10::Half>([](float x) { return nearest_half(x); }) == 0);
  CHECK(other_bits<c10::BFloat16>([](float x) { return nearest_bfloat16(x); }) == 0);
}

TEST_CASE("fp16 without a largest value keeps eleven bits") {
  int64_t seen = 0, wrong = 0;
  for (const float x : interesting<c10::Half>()) {
    if (!(std::fabs(x) < 0x1p100F)) continue;
    const float mine = nearest_half_unbounded(x);
    // Within fp16's range c10 says it; beyond it the same number shifted into the range does.
    const int shift = std::fabs(x) < 65504 ? 0 : std::ilogb(x) - 10;
    const float theirs = std::ldexp(static_cast<float>(c10::Half(std::ldexp(x, -shift))), shift);
    wrong += std::bit_cast<uint32_t>(mine) != std::bit_cast<uint32_t>(theirs);
    ++seen;
  }
  CHECK(seen > 1000000);
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace kvsweep::testing
