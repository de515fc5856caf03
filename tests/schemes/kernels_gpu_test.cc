// Oracle: a codec's kernels against its tensor operations on the same CUDA tensors, bit for bit.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <limits>

#include "schemes/codec/affine.h"
#include "schemes/codec/clustered.h"
#include "schemes/codec/float8.h"
#include "schemes/codec/ggml_block.h"
#include "schemes/codec/hadamard.h"
#include "schemes/codec/hqq.h"
#include "schemes/codec/lattice.h"
#include "schemes/codec/nvfp4.h"
#include "schemes/codec/quanto.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

void need_cuda() {
  if (!at::globalContext().hasCUDA()) SKIP("no CUDA device");
}

struct Input {
  std::string name;
  at::Tensor x;  // [H, T, D] on CUDA
};

// Normal values with hard tokens, heads and channels among them, in each dtype and as views with gaps. T: `tokens`.
std::vector<Input> inputs(int64_t tokens, int64_t dim) {
  at::Tensor x = normals({3, tokens, dim}, 17).to(at::kCUDA);
  x.select(2, dim / 3).add_(25);
  x.select(1, tokens / 2).zero_();
  x.select(1, tokens / 3).fill_(-2.5);
  x.select(1, tokens / 4).mul_(1e-9);
  x.select(1, tokens / 5).mul_(1e-4);
  std::vector<Input> all;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf})
    all.push_back({std::string("mixed, ") + c10::toString(type), x.to(type)});
  for (const double factor : {0.0, 1e-9, 1e-30, 1e6, 1e30})
    all.push_back({"times " + std::to_string(factor), x * factor});
  all.push_back({"constant", at::full_like(x, 0.3)});
  all.push_back({"heads inside tokens", x.to(at::kBFloat16).transpose(0, 1).contiguous().transpose(0, 1)});
  all.push_back({"odd start", at::cat({x, x}, 2).to(at::kHalf).narrow(2, 3, dim)});
  all.push_back({"tokens inside channels", x.transpose(1, 2).contiguous().transpose(1, 2)});
  all.push_back({"one head", x.narrow(0, 1, 1).to(at::kBFloat16)});
  return all;
}

// Parts as a cache shows them: rows of a larger buffer.
std::vector<at::Tensor> inside_buffers(const std::vector<at::Tensor>& parts) {
  std::vector<at::Tensor> inside;
  for (const at::Tensor& part : parts) {
    std::vector<int64_t> sizes = part.sizes().vec();
    sizes[1] += 5;
    inside.push_back(at::zeros(sizes, part.options()).narrow(1, 3, part.size(1)).copy_(part));
  }
  return inside;
}

template <class C>
void compare(const C& codec, int64_t tokens, int64_t dim) {
  for (const Input& input : inputs(tokens, dim)) {
    INFO(input.name << " [3, " << tokens << ", " << dim << "]");
    const std::vector<at::Tensor> expected = codec.encode_with_ops(input.x), parts = codec.encode(input.x);
    REQUIRE(parts.size() == expected.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      INFO(codec.parts()[i].name);
      REQUIRE(parts[i].sizes() == expected[i].sizes());
      REQUIRE(parts[i].scalar_type() == expected[i].scalar_type());
      CHECK(parts[i].equal(expected[i]));
    }
    const at::Tensor values = codec.decode_with_ops(expected);
    CHECK(codec.decode(expected).equal(values));
    CHECK(codec.decode(inside_buffers(expected)).equal(values));
  }
}

TEST_CASE("affine kernels give the bits of tensor operations") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  AffineOptions o;
  o.bits = GENERATE(1, 2, 3, 4, 7, 8);
  o.axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  o.metadata = GENERATE(at::kHalf, at::kBFloat16, at::kFloat);
  struct Kind {
    AffineForm form;
    at::ScalarType arithmetic;
    bool symmetric;
  };
  const Kind kind =
      GENERATE(Kind{AffineForm::kMinimum, at::kFloat, true}, Kind{AffineForm::kMinimum, at::kFloat, false},
               Kind{AffineForm::kMinimum, at::kHalf, false}, Kind{AffineForm::kReciprocal, at::kFloat, false},
               Kind{AffineForm::kReciprocal, at::kHalf, false}, Kind{AffineForm::kZeroPoint, at::kFloat, false},
               Kind{AffineForm::kZeroPoint, at::kHalf, false});
  o.form = kind.form;
  o.arithmetic = kind.arithmetic;
  o.symmetric = kind.symmetric;
  if (o.symmetric && o.bits == 1) return;  // refused
  INFO(o.bits << " bits, form " << static_cast<int>(o.form) << ", " << c10::toString(o.arithmetic) << ", metadata "
              << c10::toString(o.metadata) << (o.symmetric ? ", symmetric" : ""));
  struct Shape {
    int64_t tokens, dim, group;
  };
  const bool channel = o.axis == GroupAxis::kChannel;
  for (const Shape& shape : channel ? std::vector<Shape>{{96, 64, 32}, {6, 80, 2}, {130, 20, 65}}
                                    : std::vector<Shape>{{67, 64, 32}, {1, 80, 80}, {7, 80, 5}, {9, 20, 4}}) {
    o.group = shape.group;
    INFO("group " << o.group << (channel ? " of tokens" : " of channels"));
    compare(AffineCodec(o, shape.dim), shape.tokens, shape.dim);
  }
}

TEST_CASE("float8 kernels give the bits of tensor operations") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  const Float8Format format = GENERATE(Float8Format::kE4M3, Float8Format::kE5M2);
  const auto on_cuda = at::dtype(at::kFloat).device(at::kCUDA);
  INFO((format == Float8Format::kE4M3 ? "E4M3" : "E5M2"));
  for (const auto& [tokens, dim] : {std::pair{67, 64}, {1, 80}, {9, 20}, {3, 520}}) {
    compare(Float8Codec(format, {}), tokens, dim);
    compare(Float8Codec(format, at::full({1}, 0.7, on_cuda)), tokens, dim);
  }
  const Float8Codec by_head(format, at::tensor({0.1F, 1.0F, 3.0F}, on_cuda));
  const at::Tensor x = inputs(67, 64).front().x;
  CHECK(by_head.encode(x)[0].equal(by_head.encode_with_ops(x)[0]));
  CHECK(by_head.decode(inside_buffers(by_head.encode(x))).equal(by_head.decode_with_ops(by_head.encode(x))));
}

TEST_CASE("NVFP4 kernels give the bits of tensor operations") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  const NvFp4Scales scales = GENERATE(NvFp4Scales::kModelOpt, NvFp4Scales::kTorchAo);
  const float tensor_scale = GENERATE(1.0F, 0.003F, 7.7F);
  INFO("tensor scale " << tensor_scale << ", " << static_cast<int>(scales));
  for (const auto& [tokens, dim] : {std::pair{67, 64}, {1, 80}, {9, 16}})
    compare(NvFp4Codec(dim, tensor_scale, scales), tokens, dim);
}

TEST_CASE("kernels of ggml's blocks give the bits of tensor operations") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  const std::string name(GENERATE(from_range(kGgmlTypeNames)));
  INFO(name);
  const GgmlType type = ggml_type(name);
  for (const auto& [tokens, dim] : {std::pair{67, 64}, {1, 128}, {9, 192}}) compare(GgmlCodec(type, dim), tokens, dim);
  // Peaks of both signs, in every place.
  at::Tensor x = at::zeros({1, 32, 64}, at::kCUDA);
  for (int64_t t = 0; t < 32; ++t) {
    x[0][t][t].fill_(-3);
    x[0][t][31 - t].fill_(3);
    x[0][t][32 + t].fill_(1e38);
  }
  const GgmlCodec codec(type, 64);
  const std::vector<at::Tensor> parts = codec.encode(x), expected = codec.encode_with_ops(x);
  for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].equal(expected[i]));
}

TEST_CASE("quanto kernels give the bits of tensor operations") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  QuantoOptions o;
  o.bits = GENERATE(2, 4);
  o.cut = GENERATE(GroupCut::kConsecutive, GroupCut::kRows);
  o.dtype = GENERATE(at::kHalf, at::kBFloat16, at::kFloat);
  o.group = GENERATE(64, 7, 100);
  INFO(o.bits << " bits, group " << o.group << (o.cut == GroupCut::kRows ? " by rows, " : ", ")
              << c10::toString(o.dtype));
  for (const auto& [tokens, dim] : {std::pair{67, 64}, {1, 80}, {9, 20}, {11, 33}})
    for (const Input& input : inputs(tokens, dim)) {
      INFO(input.name << " [3, " << tokens << ", " << dim << "]");
      const QuantoCodec codec(o, input.x.size(0), dim);
      const std::vector<at::Tensor> expected = codec.encode_with_ops(input.x), parts = codec.encode(input.x);
      for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].equal(expected[i]));
      CHECK(codec.decode(expected).equal(codec.decode_with_ops(expected)));
    }
}

// A power or the mean error in another last bit may move a value on the edge between two codes.
TEST_CASE("HQQ kernels end where tensor operations do") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  HqqOptions o;
  o.bits = GENERATE(1.0, 2.0, 3.0, 4.0, 8.0);
  o.cut = GENERATE(GroupCut::kConsecutive, GroupCut::kStrided);
  o.dtype = GENERATE(at::kHalf, at::kBFloat16, at::kFloat);
  o.group = GENERATE(64, 20);
  INFO(o.bits << " bits, group " << o.group << (o.cut == GroupCut::kStrided ? " strided, " : ", ")
              << c10::toString(o.dtype));
  for (const auto& [tokens, dim] : {std::pair{201, 64}, {9, 20}})
    for (const Input& input : inputs(tokens, dim)) {
      if (input.name.starts_with("times")) continue;
      INFO(input.name << " [3, " << tokens << ", " << dim << "]");
      const HqqCodec codec(o, input.x.size(0), dim);
      const std::vector<at::Tensor> expected = codec.encode_with_ops(input.x), parts = codec.encode(input.x);
      for (size_t i = 0; i < parts.size(); ++i) REQUIRE(parts[i].sizes() == expected[i].sizes());
      const auto moved = [](const at::Tensor& a, const at::Tensor& b) {
        return a.ne(b).to(at::kDouble).mean().item<double>();
      };
      CHECK(moved(codec.codes(parts), codec.codes(expected)) < 1e-3);
      CHECK(parts[1].equal(expected[1]));
      CHECK(moved(parts[2], expected[2]) < 1e-2);
      CHECK(codec.decode(expected).equal(codec.decode_with_ops(expected)));
    }
}

// Three clusters or more of different sizes, in a random order.
ChannelClusters random_clusters(int64_t channels) {
  return {at::randperm(channels).to(at::kShort),
          at::tensor({int64_t{0}, int64_t{1}, channels / 3, channels / 3 + 2, channels}, at::kShort)};
}

TEST_CASE("clustered kernels give the bits of tensor operations") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  ClusteredOptions o;
  o.levels = GENERATE(2, 3, 4, 8, 13, 256);
  o.trits = o.levels == 3;
  o.clip = o.levels < 5 ? 0.92 : 1;
  o.arithmetic = GENERATE(at::kHalf, at::kBFloat16, at::kFloat);
  o.fp8 = GENERATE(false, true);
  o.codes_from_rounded = GENERATE(false, true);
  INFO(o.levels << " levels, clip " << o.clip << ", " << c10::toString(o.arithmetic) << (o.fp8 ? ", fp8" : "")
                << (o.codes_from_rounded ? ", codes from rounded" : ""));
  for (const auto& [tokens, dim] : {std::pair{67, 64}, {1, 80}, {9, 20}})
    for (const Input& input : inputs(tokens, dim))
      for (const bool ordered : {false, true}) {
        INFO(input.name << " [3, " << tokens << ", " << dim << "]" << (ordered ? ", ordered" : ""));
        const int64_t heads = input.x.size(0), channels = heads * dim;
        const ClusteredCodec codec(o, heads, dim,
                                   ordered ? random_clusters(channels) : ChannelClusters::neighbours(channels, dim / 4),
                                   at::Device(at::kCUDA, 0));
        const std::vector<at::Tensor> expected = codec.encode_with_ops(input.x), parts = codec.encode(input.x);
        for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].to(at::kFloat).equal(expected[i].to(at::kFloat)));
        CHECK(codec.decode(expected).equal(codec.decode_with_ops(expected)));
      }
}

TEST_CASE("the Hadamard kernel gives the bits of tensor operations") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  const int64_t n = GENERATE(1, 2, 64, 512, 2048, 8192);
  INFO(n << " values");
  const at::Tensor x = normals({3, 5, n}, 4).to(at::kCUDA);
  for (const at::Tensor& input : {x, x.to(at::kBFloat16), x.transpose(0, 1), x.narrow(1, 0, 0)})
    CHECK(hadamard_transform(input).equal(hadamard_transform_with_ops(input)));
}

// Tensor operations may round a score differently: the CPU's loops are what the kernel repeats.
TEST_CASE("HIGGS kernels give the bits of the CPU's loops") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  HiggsOptions o;
  const LatticeGrid grid = GENERATE(from_range(lattice_grids().begin(), lattice_grids().end()));
  o.dim = grid.dim;
  o.points = grid.points;
  o.group = GENERATE(4, 64, 256);
  o.norm_type = GENERATE(at::kFloat, at::kHalf);
  o.saturate = GENERATE(true, false);
  INFO(grid.name << ", blocks of " << o.group << ", norms " << c10::toString(o.norm_type));
  for (const auto& [tokens, dim] : {std::pair{67, 64}, {1, 80}, {9, 20}})
    for (const Input& input : inputs(tokens, dim)) {
      INFO(input.name << " [3, " << tokens << ", " << dim << "]");
      const HiggsCodec codec(o, input.x.size(0), dim);
      const std::vector<at::Tensor> expected = codec.encode(input.x.cpu()), parts = codec.encode(input.x);
      for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].cpu().equal(expected[i]));
      CHECK(at::allclose(codec.decode(parts).cpu(), codec.decode(expected), 0, 0, /*equal_nan=*/true));
    }
}

TEST_CASE("an affine kernel marks groups with NaN, infinity or too wide a range, and no others") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  AffineOptions o;
  o.group = 32;
  o.axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  const bool channel = o.axis == GroupAxis::kChannel;
  const double bad = GENERATE(std::numeric_limits<double>::quiet_NaN(), HUGE_VAL, -HUGE_VAL, 3e38);
  INFO(bad << (channel ? " in a group of tokens" : " in a group of channels"));
  const AffineCodec codec(o, 64);
  at::Tensor x = normals({2, 64, 64}, 3).to(at::kCUDA);
  x[1][40][37].fill_(bad);
  const at::Tensor marked = codec.decode(codec.encode(x)).isnan();
  at::Tensor expected = at::zeros_like(marked);
  if (channel)
    expected[1].narrow(0, 32, 32).select(1, 37).fill_(true);
  else
    expected[1][40].narrow(0, 32, 32).fill_(true);
  CHECK(marked.equal(expected));
}

TEST_CASE("a cache on CUDA refuses NaN and infinity by place") {
  need_cuda();
  const c10::InferenceMode no_autograd;
  const Rope rope(std::vector<float>(32, 0.03F), 1, at::Device(at::kCUDA, 0), 512);
  const CacheContext context{1, 3, 64, at::kBFloat16, at::Device(at::kCUDA, 0), &rope, 300};
  const auto cache = make_scheme("uniform", {})->make_cache(context);
  const at::Tensor good = normals({300, 3, 64}, 5).to(at::kCUDA, at::kBFloat16).transpose(0, 1);
  at::Tensor bad = good.clone();
  bad[2][299][63].fill_(GENERATE(std::numeric_limits<double>::quiet_NaN(), HUGE_VAL, -HUGE_VAL));
  CHECK_THROWS_WITH(cache->append(0, {good, bad, 0}), ContainsSubstring("a value at head 2, position 299, channel 63"));
  CHECK_THROWS_WITH(cache->append(0, {bad, good, 0}), ContainsSubstring("a key at head 2, position 299, channel 63"));
  CHECK_NOTHROW(cache->append(0, {good, good, 0}));
}

}  // namespace
}  // namespace kvsweep::testing
