// Golden: affine codes on stored inputs, real keys and values and synthetic edge cases.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "harness/files/safetensors.h"
#include "schemes/codec/affine.h"
#include "tests/support/golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

constexpr int64_t kDim = 64;

// [T, heads * 64] or [.., heads, T, 64] -> [heads, T, 64], T cut to whole groups of 32.
at::Tensor read_heads(const SafetensorsFile& file, const std::string& name) {
  const std::vector<int64_t>& shape = file.tensor(name).shape;
  at::Tensor x = at::empty(shape, at::kFloat);
  file.read(name, x.mutable_data_ptr<float>());
  if (x.dim() == 2) x = x.view({shape[0], -1, kDim}).transpose(0, 1);
  x = x.reshape({-1, x.size(-2), kDim});
  return x.narrow(1, 0, x.size(1) / 32 * 32);
}

bool is_cache(const SafetensorsTensor& tensor) {
  const auto dims = tensor.shape.size();
  return (dims == 2 && tensor.shape[1] % kDim == 0) || (dims >= 3 && tensor.shape.back() == kDim);
}

// The golden files of inputs with keys and values, or a visible skip.
std::vector<std::filesystem::path> inputs_or_skip() {
  const auto files = golden_files("schemes/inputs/(real|synthetic)[.]safetensors");
  if (files.empty()) SKIP("no schemes/inputs below tests/golden or $KVSWEEP_GOLDEN");
  return files;
}

TEST_CASE("stored inputs give the same parts by CPU loops and tensor operations, and finite values", "[golden]") {
  const int64_t bits = GENERATE(1, 2, 3, 4, 8);
  const GroupAxis axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  const bool symmetric = bits > 1 && GENERATE(false, true);
  const AffineCodec codec({bits, 32, axis, symmetric, at::kHalf}, kDim);
  int64_t seen = 0;
  for (const auto& path : inputs_or_skip()) {
    const SafetensorsFile file(path);
    for (const auto& [name, tensor] : file.tensors()) {
      if (!is_cache(tensor)) continue;
      INFO(path.string() << " " << name << ", " << bits << " bits");
      const at::Tensor x = read_heads(file, name);
      const std::vector<at::Tensor> parts = codec.encode(x), by_ops = codec.encode_with_ops(x);
      for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].equal(by_ops[i]));
      CHECK(codec.decode(parts).isfinite().all().item<bool>());
      CHECK(codec.decode(parts).equal(codec.decode_with_ops(parts)));
      ++seen;
    }
  }
  CHECK(seen > 0);
}

// KIVI (arXiv 2402.02750), table 2: keys have channels of large magnitude, so groups along tokens lose less.
TEST_CASE("real keys lose less in groups along tokens than along channels", "[golden]") {
  const AffineCodec tokens({2, 32, GroupAxis::kChannel, false, at::kHalf}, kDim), channels({2, 32}, kDim);
  int64_t seen = 0;
  for (const auto& path : inputs_or_skip()) {
    const SafetensorsFile file(path);
    for (const auto& [name, tensor] : file.tensors()) {
      if (!name.ends_with("_kpre")) continue;
      INFO(name);
      const at::Tensor x = read_heads(file, name);
      CHECK(nmse(x, tokens.decode(tokens.encode(x))) < nmse(x, channels.decode(channels.encode(x))));
      ++seen;
    }
  }
  if (seen == 0) SKIP("no real keys among the golden inputs");
}

}  // namespace
}  // namespace kvsweep::testing
