// Oracle: packed codes against a bit-by-bit loop.
#include "schemes/codec/bitpack.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "harness/core/random.h"

namespace kvsweep {
namespace {

at::Tensor random_codes(std::vector<int64_t> sizes, int64_t bits, uint64_t seed) {
  Rng rng(seed);
  at::Tensor codes = at::empty(sizes, at::kByte);
  for (int64_t i = 0; i < codes.numel(); ++i)
    codes.mutable_data_ptr<uint8_t>()[i] = static_cast<uint8_t>(rng.below(uint64_t{1} << bits));
  return codes;
}

// The stated layout, one bit at a time.
at::Tensor pack_by_hand(const at::Tensor& codes, int64_t bits) {
  const int64_t rows = codes.size(0), count = codes.size(1);
  at::Tensor packed = at::zeros({rows, (count * bits + 7) / 8}, at::kByte);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t bit = 0; bit < count * bits; ++bit) {
      const int64_t code = codes[row][bit / bits].item<int64_t>();
      if (code >> (bit % bits) & 1) packed[row][bit / 8].bitwise_or_(1 << (bit % 8));
    }
  return packed;
}

std::vector<at::Device> devices() {
  std::vector<at::Device> all = {at::kCPU};
  if (at::hasCUDA()) all.emplace_back(at::kCUDA);
  return all;
}

TEST_CASE("codes of every width are packed as the header says and come back") {
  const int64_t bits = GENERATE(range(1, 9)), count = GENERATE(1, 7, 8, 9, 64, 80, 131);
  INFO(bits << " bits, " << count << " codes a row");
  const at::Tensor codes = random_codes({3, count}, bits, static_cast<uint64_t>(17 * bits + count));
  const at::Tensor expected = pack_by_hand(codes, bits);
  REQUIRE(packed_bytes(count, bits) == expected.size(1));
  for (const at::Device device : devices()) {
    INFO(device.str());
    const at::Tensor packed = pack_bits(codes.to(device), bits);
    CHECK(packed.cpu().equal(expected));
    CHECK(unpack_bits(packed, bits, count).cpu().equal(codes));
  }
}

TEST_CASE("the largest code of every width survives in a long tensor") {
  const int64_t bits = GENERATE(range(1, 9));
  const at::Tensor codes = random_codes({5, 333, 128}, bits, 3);
  codes.select(2, 7).fill_((1 << bits) - 1);
  const at::Tensor packed = pack_bits(codes, bits);
  CHECK(packed.numel() == 5 * 333 * 128 * bits / 8);
  CHECK(unpack_bits(packed, bits, 128).equal(codes));
}

TEST_CASE("two bits lie lowest first") {
  const at::Tensor codes = at::tensor({1, 2, 3, 0, 3}, at::kByte).unsqueeze(0);
  CHECK(pack_bits(codes, 2).equal(at::tensor({0b00'11'10'01, 0b11}, at::kByte).unsqueeze(0)));
}

TEST_CASE("rows without codes pack to rows without bytes") {
  CHECK(pack_bits(at::empty({3, 0, 64}, at::kByte), 3).sizes() == at::IntArrayRef({3, 0, 24}));
  CHECK(unpack_bits(at::empty({3, 0, 24}, at::kByte), 3, 64).sizes() == at::IntArrayRef({3, 0, 64}));
}

TEST_CASE("a width outside 1 to 8, other types and a wrong row length are refused") {
  const at::Tensor codes = at::zeros({2, 8}, at::kByte);
  CHECK_THROWS(pack_bits(codes, 0));
  CHECK_THROWS(pack_bits(codes, 9));
  CHECK_THROWS(pack_bits(codes.to(at::kInt), 4));
  CHECK_THROWS(unpack_bits(codes, 4, 8));
}

}  // namespace
}  // namespace kvsweep
