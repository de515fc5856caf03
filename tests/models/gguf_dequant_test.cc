// golden, oracle: dequantization is bit-equal to the gguf package's; the golden hashes are of its float32 bytes.
#include "models/gguf_dequant.h"

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/files/float_bits.h"
#include "models/gguf.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
using testing::bytes_of;

namespace {

size_t count_of(const std::vector<int64_t>& shape) {
  return static_cast<size_t>(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
}

std::string sha256_of(const std::vector<float>& values) {
  return sha256_hex({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
}

std::vector<float> first16(const std::vector<float>& values) {
  return {values.begin(), values.begin() + 16};
}

void check_tensor(const GgufFile& file, const json& expected) {
  const GgufTensor& tensor = file.tensor(expected["name"].get<std::string>());
  INFO(tensor.name << " " << expected["type"]);
  const GgufType* type = gguf_type(tensor.type);
  REQUIRE(type != nullptr);
  CHECK(type->name == expected["type"].get<std::string>());
  CHECK(tensor.shape == expected["shape"].get<std::vector<int64_t>>());
  REQUIRE(tensor.bytes == expected["n_bytes"].get<int64_t>());
  std::vector<float> values(count_of(tensor.shape));
  file.read(tensor, values.data());
  CHECK(first16(values) == expected["first16"].get<std::vector<float>>());
  CHECK(sha256_of(values) == expected["sha256_f32"].get<std::string>());
}

// One block through the type with this number.
std::vector<float> decode(uint32_t id, const std::string& packed) {
  const GgufType* type = gguf_type(id);
  REQUIRE(type != nullptr);
  std::vector<float> out(packed.size() / static_cast<size_t>(type->block_bytes) *
                         static_cast<size_t>(type->block_values));
  gguf_dequantize(*type, {reinterpret_cast<const uint8_t*>(packed.data()), packed.size()}, out.data());
  return out;
}

constexpr uint16_t kHalfOne = 0x3c00, kHalfTwo = 0x4000;

}  // namespace

TEST_CASE("every float16 has its exact value") {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const int exponent = bits >> 10 & 31;
    const int mantissa = bits & 1023;
    const double sign = bits & 0x8000 ? -1 : 1;
    const float value = half_to_float(static_cast<uint16_t>(bits));
    INFO(bits);
    REQUIRE(std::signbit(value) == (sign < 0));
    if (exponent == 31) {
      REQUIRE((mantissa == 0 ? std::isinf(value) : std::isnan(value)));
      continue;
    }
    const double expected = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    REQUIRE(static_cast<double>(value) == sign * expected);
  }
}

TEST_CASE("nibbles are the first half of a block, then the second") {
  const std::string codes = "\x10\x32\x54\x76\x98\xba\xdc\xfe" + std::string(8, '\0');
  const std::vector<float> values = decode(3, bytes_of(kHalfTwo) + bytes_of(kHalfOne) + codes);  // Q4_1: 2 q + 1
  CHECK(std::vector<float>(values.begin(), values.begin() + 8) == std::vector<float>{1, 5, 9, 13, 17, 21, 25, 29});
  CHECK(std::vector<float>(values.begin() + 16, values.begin() + 24) ==
        std::vector<float>{3, 7, 11, 15, 19, 23, 27, 31});
}

TEST_CASE("a type that is no weight type is not dequantized") {
  CHECK(gguf_type(4) == nullptr);  // a number that ggml gave up
  REQUIRE(gguf_type(24) != nullptr);
  CHECK_THROWS_MATCHES(decode(24, "x"), DataError,
                       MessageMatches(ContainsSubstring("I8") && ContainsSubstring("Q6_K, IQ4_NL")));
  float out[32];
  const std::array<uint8_t, 19> odd{};
  CHECK_THROWS_AS(gguf_dequantize(*gguf_type(2), odd, out), DataError);
}

TEST_CASE("every tensor of a small GGUF file dequantizes to its golden bits", "[golden]") {
  const auto files = testing::golden_files("models/[^/]*[.]gguf[.]json");
  REQUIRE_FALSE(files.empty());
  for (const auto& path : files) {
    INFO(path.string());
    const json expected = json::parse(testing::read_text(path));
    const GgufFile file(std::filesystem::path(path).replace_extension());
    REQUIRE(file.tensors().size() == expected["tensors"].size());
    for (const json& tensor : expected["tensors"]) check_tensor(file, tensor);
  }
}

TEST_CASE("every tensor of SmolLM2 has its golden place, bytes and bits", "[golden]") {
  const auto model = testing::smollm2_or_skip();
  const auto files = testing::golden_files("models/gguf_tensors_smollm2[.]jsonl");
  REQUIRE_FALSE(files.empty());
  const GgufFile file(model);
  const std::string hash = sha256_file(model);
  for (const auto& path : files) {
    INFO(path.string());
    std::ifstream in(path);
    std::string line;
    REQUIRE(std::getline(in, line));
    const json facts = json::parse(line);
    REQUIRE(hash == facts["file_sha256"].get<std::string>());
    CHECK(file.version() == facts["gguf_version"].get<int64_t>());
    CHECK(file.alignment() == facts["alignment"].get<int64_t>());
    CHECK(file.data_offset() == facts["tensor_data_offset"].get<int64_t>());
    REQUIRE(file.tensors().size() == facts["n_tensors"].get<size_t>());
    for (const GgufTensor& tensor : file.tensors()) {
      REQUIRE(std::getline(in, line));
      const json expected = json::parse(line);
      REQUIRE(tensor.name == expected["name"].get<std::string>());
      CHECK(tensor.offset == expected["file_offset"].get<int64_t>());
      const auto packed = file.packed(tensor);
      CHECK(sha256_hex({reinterpret_cast<const char*>(packed.data()), packed.size()}) ==
            expected["sha256_file_bytes"].get<std::string>());
      check_tensor(file, expected);
    }
  }
}

}  // namespace kvsweep
