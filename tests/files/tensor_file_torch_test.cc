// contract: tensors come back from a file as they were written, whatever their dtype, layout and size.
#include "harness/files/tensor_file.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/support/golden.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

}  // namespace

TEST_CASE("every dtype comes back bit for bit, NaN and all") {
  const auto type = GENERATE(at::kFloat, at::kHalf, at::kBFloat16, at::kDouble, at::kByte, at::kBool, at::kChar,
                             at::kShort, at::kInt, at::kLong, at::kFloat8_e4m3fn);
  INFO(c10::toString(type));
  const TemporaryDirectory directory;
  const auto path = directory.path() / "x.safetensors";
  at::Tensor bytes = at::arange(256 * 8, at::kLong).to(at::kByte);  // every byte, as a tensor of the dtype
  if (type == at::kBool) bytes = bytes.remainder(2);
  const at::Tensor x = bytes.view(type).view({4, -1});
  write_tensors(path, {{"x", x}}, {});
  const at::Tensor y = read_tensor(SafetensorsFile(path), "x");
  CHECK(y.scalar_type() == type);
  CHECK(y.sizes() == x.sizes());
  CHECK(at::equal(y.view(at::kByte), x.view(at::kByte)));
}

TEST_CASE("views, scalars and empty tensors are written as what they show") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "x.safetensors";
  const at::Tensor all = at::arange(24, at::kFloat).view({2, 3, 4});
  const TensorMap tensors = {{"turned", all.transpose(0, 2)},
                             {"part", all.narrow(1, 1, 1)},
                             {"spread", all.select(0, 1).select(0, 0).expand({5, 4})},
                             {"scalar", at::scalar_tensor(7, at::kLong)},
                             {"none", at::empty({0, 3}, at::kHalf)}};
  write_tensors(path, tensors, {{"key", "value"}});
  const SafetensorsFile file(path);
  CHECK(file.metadata() == std::map<std::string, std::string>{{"key", "value"}});
  const TensorMap read = read_tensors(file);
  CHECK(read.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    CHECK(at::equal(read.at(name), tensor));
    CHECK(read.at(name).is_contiguous());
  }
}

TEST_CASE("what was read stays when the file is replaced or gone") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "x.safetensors";
  write_tensors(path, {{"x", at::full({1000}, 1.0f)}}, {});
  const at::Tensor x = read_tensor(SafetensorsFile(path), "x");
  write_tensors(path, {{"x", at::full({1000}, 2.0f)}}, {});
  std::filesystem::remove(path);
  CHECK(at::equal(x, at::full({1000}, 1.0f)));
}

TEST_CASE("a dtype without a counterpart and a missing tensor name file and tensor") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "x.safetensors";
  const std::vector<uint8_t> bytes(8);
  write_safetensors(path, {{"x", "C64", {1}, bytes}}, {});
  const SafetensorsFile file(path);
  CHECK_THROWS_MATCHES(
      read_tensor(file, "x"), DataError,
      MessageMatches(ContainsSubstring("x.safetensors") && ContainsSubstring("tensor 'x' has dtype C64")));
  CHECK_THROWS_MATCHES(read_tensor(file, "y"), DataError,
                       MessageMatches(ContainsSubstring("x.safetensors") && ContainsSubstring("has no tensor 'y'")));
}

}  // namespace kvsweep::testing
