// Oracle and golden: quanto's codes against plain loops, against optimum-quanto's own, and figures for normal values.
#include "schemes/codec/quanto.h"

#include <ATen/ATen.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "schemes/codec/bitpack.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr GroupCut kAxis0 = GroupCut::kConsecutive, kAxisLast = GroupCut::kRows;

double narrow(double value, at::ScalarType type) {
  const auto x = static_cast<float>(value);
  if (type == at::kHalf) return static_cast<float>(c10::Half(x));
  if (type == at::kBFloat16) return static_cast<float>(c10::BFloat16(x));
  return x;
}

struct Group {
  double scale = 0, shift = 0;
  std::vector<double> codes, values;
};

// The header's formulas, one group; a double result of two floats rounds to their float32 result.
Group encode_group(std::vector<double> x, int64_t bits, at::ScalarType type) {
  const double top = std::exp2(bits) - 1;
  for (double& value : x) value = narrow(value, type);
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  Group g;
  g.scale = narrow(narrow(*high - *low, type) / top, type);
  g.shift = -*low;
  for (const double value : x) {
    const double steps = narrow(narrow(value + g.shift, type) / g.scale, type);
    g.codes.push_back(std::isnan(steps) ? 0 : std::clamp(std::nearbyint(steps), 0.0, top));
    g.values.push_back(narrow(narrow(g.codes.back() * g.scale, type) - g.shift, type));
  }
  return g;
}

// Calls check(group by hand, its number, flat places of its values) for every group of x [H, T, D].
template <class Check>
void for_each_group(const at::Tensor& x, const QuantoOptions& o, const Check& check) {
  const at::Tensor flat = x.reshape({-1});
  const auto* values = flat.const_data_ptr<float>();
  const int64_t dim = x.size(2), count = x.numel(), rows = x.numel() / dim;
  int64_t number = 0;
  const auto emit = [&](const std::vector<int64_t>& places) {
    std::vector<double> group;
    for (const int64_t place : places) group.push_back(values[place]);
    check(encode_group(group, o.bits, o.dtype), number++, places);
  };
  if (o.cut == kAxis0) {
    for (int64_t from = 0; from < count; from += o.group) {
      std::vector<int64_t> places;
      for (int64_t i = from; i < std::min(from + o.group, count); ++i) places.push_back(i);
      emit(places);
    }
    return;
  }
  for (int64_t from = 0; from < rows; from += o.group)
    for (int64_t d = 0; d < dim; ++d) {
      std::vector<int64_t> places;
      for (int64_t row = from; row < std::min(from + o.group, rows); ++row) places.push_back(row * dim + d);
      emit(places);
    }
}

at::Tensor hard_input(int64_t heads, int64_t tokens, int64_t dim) {
  at::Tensor x = normals({heads, tokens, dim}, 11);
  x.select(2, 3).add_(25);
  x.select(1, 0).mul_(1e-3);
  if (tokens > 2) x.select(1, 2).fill_(-2.5);
  return x;
}

struct Shape {
  int64_t heads, tokens, dim;
};

TEST_CASE("quanto's codes, metadata and values are those of plain loops, bit for bit") {
  const QuantoOptions o{GENERATE(2, 4), GENERATE(kAxis0, kAxisLast), GENERATE(16, 20, 64, 100),
                        GENERATE(at::kFloat, at::kHalf, at::kBFloat16)};
  const auto shape = GENERATE(Shape{2, 32, 64}, Shape{3, 53, 80}, Shape{1, 1, 64}, Shape{1, 7, 20});
  INFO(o.bits << " bits, group " << o.group << (o.cut == kAxis0 ? ", axis 0, " : ", axis -1, ") << o.dtype << ", "
              << shape.heads << " heads, " << shape.tokens << " tokens, " << shape.dim << " dims");
  const at::Tensor x = hard_input(shape.heads, shape.tokens, shape.dim);
  const QuantoCodec codec(o, shape.heads, shape.dim);
  const std::vector<at::Tensor> parts = codec.encode(x);
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].numel() == packed_bytes(x.numel(), o.bits));
  CHECK(parts[1].scalar_type() == o.dtype);
  const at::Tensor codes = unpack_stream(parts[0], o.bits, x.numel()).to(at::kFloat);
  const at::Tensor scale = parts[1].to(at::kFloat), shift = parts[2].to(at::kFloat);
  const at::Tensor decoded = codec.decode(parts), flat = decoded.view({-1});
  REQUIRE(decoded.sizes() == x.sizes());
  REQUIRE(decoded.scalar_type() == at::kFloat);
  int64_t values = 0, groups = 0, other = 0;
  for_each_group(x, o, [&](const Group& g, int64_t number, const std::vector<int64_t>& places) {
    ++groups;
    other += scale[number].item<float>() != static_cast<float>(g.scale);
    other += shift[number].item<float>() != static_cast<float>(g.shift);
    for (size_t i = 0; i < places.size(); ++i, ++values) {
      other += codes.const_data_ptr<float>()[places[i]] != static_cast<float>(g.codes[i]);
      other += flat.const_data_ptr<float>()[places[i]] != static_cast<float>(g.values[i]);
    }
  });
  CHECK(values == x.numel());
  CHECK(groups == parts[1].numel());
  CHECK(other == 0);
}

TEST_CASE("quanto with tensor operations gives the bits of the CPU loops") {
  const QuantoOptions o{GENERATE(2, 4), GENERATE(kAxis0, kAxisLast), GENERATE(16, 100),
                        GENERATE(at::kFloat, at::kHalf, at::kBFloat16)};
  INFO(o.bits << " bits, group " << o.group << (o.cut == kAxis0 ? ", axis 0, " : ", axis -1, ") << o.dtype);
  const QuantoCodec codec(o, 2, 40);
  at::Tensor x = hard_input(2, 77, 40);
  x.select(1, 9).mul_(30000);  // some of it beyond fp16
  const std::vector<at::Tensor> expected = codec.encode(x);
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA);
  for (const at::Device device : devices) {
    INFO(device.str());
    const std::vector<at::Tensor> parts = codec.encode_with_ops(x.to(device));
    for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].cpu().equal(expected[i]));
    CHECK(codec.decode_with_ops(parts).cpu().equal(codec.decode(expected)));
    for (const at::Tensor& none : codec.encode_with_ops(x.narrow(1, 0, 0).to(device))) CHECK(none.numel() == 0);
  }
}

TEST_CASE("quanto codes no tokens as nothing, and a view like a contiguous tensor") {
  const QuantoCodec codec({2, GENERATE(kAxis0, kAxisLast), 64, at::kHalf}, 3, 64);
  const at::Tensor wide = normals({40, 6, 64}, 4).transpose(0, 1);
  const std::vector<at::Tensor> none = codec.encode(wide.narrow(0, 0, 3).narrow(1, 0, 0));
  for (const at::Tensor& part : none) CHECK(part.numel() == 0);
  CHECK(codec.decode(none).sizes() == at::IntArrayRef({3, 0, 64}));
  const at::Tensor view = wide.narrow(0, 2, 3).narrow(1, 5, 32);
  for (size_t i = 0; i < 3; ++i) CHECK(codec.encode(view)[i].equal(codec.encode(view.contiguous())[i]));
}

TEST_CASE("quanto decodes degenerate groups to their minimum and huge ones to finite values") {
  const at::ScalarType type = GENERATE(at::kFloat, at::kHalf, at::kBFloat16);
  const GroupCut cut = GENERATE(kAxis0, kAxisLast);
  const QuantoCodec codec({GENERATE(2, 4), cut, 64, type}, 1, 64);
  INFO(type);
  const at::Tensor constant = at::full({1, 64, 64}, 1.25);
  CHECK(codec.decode(codec.encode(constant)).equal(constant));
  CHECK(codec.decode(codec.encode(at::zeros({1, 64, 64}))).equal(at::zeros({1, 64, 64})));
  const at::Tensor x = normals({1, 64, 64}, 5);
  if (type == at::kHalf) {
    const at::Tensor tiny = codec.decode(codec.encode(x.sign() * 3e-8));  // a range of one subnormal
    CHECK(tiny.abs().max().item<float>() <= 6e-8F);
  }
  for (const double factor : {65504.0, 1e6, 1e30, 1e38}) {
    const at::Tensor y = codec.decode(codec.encode((x * factor).clamp(-3e38, 3e38)));
    INFO("values of about " << factor);
    CHECK(y.isfinite().all().item<bool>());
    const double limit = type == at::kHalf ? 65504.0 : std::exp2(125);
    const at::Tensor clamped = (x * factor).clamp(-limit, limit);
    CHECK(nmse(clamped / clamped.abs().max(), y / clamped.abs().max()) < .5);
  }
}

TEST_CASE("quanto refuses NaN, infinity, other shapes and options that it lacks") {
  const QuantoCodec codec({}, 2, 64);
  at::Tensor x = normals({2, 8, 64}, 6);
  x[1][3][5] = GENERATE(NAN, INFINITY);
  CHECK_THROWS_WITH(codec.encode(x), ContainsSubstring("quanto: NaN or infinity"));
  CHECK_THROWS_WITH(codec.encode(normals({3, 8, 64}, 6)), ContainsSubstring("needs [2, T, 64]"));
  CHECK_THROWS_WITH(QuantoCodec({3}, 2, 64), ContainsSubstring("3 bits; allowed: 2, 4"));
  CHECK_THROWS_WITH(QuantoCodec({4, kAxis0, 0}, 2, 64), ContainsSubstring("group 0"));
  CHECK_THROWS_WITH(QuantoCodec({4, GroupCut::kStrided}, 2, 64), ContainsSubstring("strided"));
  CHECK_THROWS_WITH(QuantoCodec({4, kAxis0, 64, at::kDouble}, 2, 64), ContainsSubstring("Double"));
}

// Specification, section 1.7: NMSE of i.i.d. N(0,1), within 2 %.
TEST_CASE("quanto's error on normal values is the published one") {
  struct Figure {
    int64_t bits, group;
    double nmse;
  };
  const Figure f = GENERATE(Figure{2, 16, .1068}, Figure{2, 32, .1539}, Figure{2, 64, .2018}, Figure{2, 128, .2499},
                            Figure{4, 32, 6.10e-3}, Figure{4, 64, 8.02e-3}, Figure{4, 128, 9.94e-3});
  INFO(f.bits << " bits, group " << f.group);
  static const at::Tensor x = normals({2, 4096, 128}, 2026);  // 2^20 values
  const QuantoCodec codec({f.bits, GENERATE(kAxis0, kAxisLast), f.group, GENERATE(at::kHalf, at::kFloat)}, 2, 128);
  CHECK(nmse(x, codec.decode(codec.encode(x))) == Catch::Approx(f.nmse).epsilon(.02));
}

// sin(0..31) as one group (specification, section 1.7).
TEST_CASE("quanto's codes of a sine are the worked ones") {
  struct Worked {
    int64_t bits;
    float scale;
    std::vector<uint8_t> codes;
  };
  const Worked w = GENERATE(Worked{2, .663532555F, {2, 3, 3, 2, 0, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2,
                                                    1, 0, 0, 2, 3, 3, 1, 0, 0, 1, 3, 3, 2, 1, 0, 1}},
                            Worked{4, .132706508F, {8, 14, 14, 9, 2,  0,  5, 12, 15, 11, 3,  0,  3,  11, 15, 12,
                                                    5, 0,  2,  9, 14, 14, 7, 1,  1,  7,  13, 15, 10, 3,  0,  4}});
  at::Tensor x = at::empty({1, 1, 32}, at::kFloat);
  for (int64_t j = 0; j < 32; ++j) x[0][0][j].fill_(std::sin(static_cast<double>(j)));
  const std::vector<at::Tensor> parts = QuantoCodec({w.bits, kAxis0, 32, at::kFloat}, 1, 32).encode(x);
  CHECK(parts[1].item<float>() == Catch::Approx(w.scale).epsilon(1e-7));
  CHECK(parts[2].item<float>() == Catch::Approx(.999990225F).epsilon(1e-7));
  CHECK(unpack_stream(parts[0], w.bits, 32)
            .equal(at::tensor(std::vector<int64_t>(w.codes.begin(), w.codes.end())).to(at::kByte)));
}

TEST_CASE("quanto has no drift where groups stay, and a large one where they shift") {
  const at::Tensor x = normals({1, 2048, 64}, 77);
  const QuantoCodec codec({2, kAxis0, 64, at::kFloat}, 1, 64);
  const at::Tensor once = codec.decode(codec.encode(x));
  at::Tensor again = once;
  for (int i = 0; i < 6; ++i) again = codec.decode(codec.encode(again));
  CHECK((again - once).abs().max().item<float>() <= 1e-6F);
  // Specification, section 1.7: groups that shift by 16 values each time.
  const double expected[] = {.202, .291, .349, .386, .410, .440, .460};
  at::Tensor shifted = x;
  for (int i = 0; i < 7; ++i) {
    const at::Tensor rolled = shifted.view({-1}).roll({16 * i}).view_as(x);
    shifted = codec.decode(codec.encode(rolled)).view({-1}).roll({-16 * i}).view_as(x);
    INFO("pass " << i);
    CHECK(nmse(x, shifted) == Catch::Approx(expected[i]).epsilon(.05));
  }
}

at::ScalarType dtype_of(const std::string& text) {
  return text.ends_with("fp16") ? at::kHalf : text.ends_with("bf16") ? at::kBFloat16 : at::kFloat;
}

TEST_CASE("quanto's codes, metadata and values are those of optimum-quanto", "[golden]") {
  int64_t checked = 0;
  for (const auto& manifest : golden_manifests_or_skip("hf_quantized_cache"))
    for (const GoldenCase& golden : manifest->cases()) {
      if (golden.function() != "QuantoQuantizedLayer._quantize/_dequantize") continue;
      INFO(golden.label());
      if (golden.name().starts_with("quirk_")) {
        WARN(golden.name() << " documents a defect of the original");
        continue;
      }
      const at::Tensor x = golden.input(0);
      const QuantoOptions o{golden.integer("nbits"), golden.integer("axis") == 0 ? kAxis0 : kAxisLast,
                            golden.integer("q_group_size"), dtype_of(golden.text("dtype"))};
      const QuantoCodec codec(o, x.size(0), x.size(2));
      const std::vector<at::Tensor> parts = codec.encode(x);
      // The original keeps [group, dim * rows / group] on axis -1, channel by channel.
      const int64_t blocks = x.size(0) * x.size(1) / o.group;
      at::Tensor codes = unpack_stream(parts[0], o.bits, x.numel());
      at::Tensor scale = parts[1], shift = parts[2];
      if (o.cut == kAxis0) {
        codes = codes.view({-1, o.group});
      } else {
        codes = codes.view({blocks, o.group, x.size(2)}).permute({1, 2, 0}).reshape({o.group, -1});
        for (at::Tensor* metadata : {&scale, &shift}) *metadata = metadata->view({blocks, x.size(2)}).t().reshape({-1});
      }
      CHECK(codes.equal(golden.output("codes_grouped")));
      CHECK(scale.equal(golden.output("scale").view({-1})));
      CHECK(shift.equal(golden.output("shift").view({-1})));
      if (golden.has_output("dequant")) CHECK(codec.decode(parts).equal(golden.output("dequant")[0].to(at::kFloat)));
      ++checked;
    }
  CHECK(checked > 0);
}

}  // namespace
}  // namespace kvsweep::testing
