// Oracle: affine codes against plain double loops, worked codes and figures for normal values.
#include "schemes/codec/affine.h"

#include <ATen/ATen.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "schemes/codec/bitpack.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

AffineOptions options(int64_t bits, int64_t group, GroupAxis axis = GroupAxis::kToken, bool symmetric = false,
                      at::ScalarType metadata = at::kHalf) {
  return {bits, group, axis, symmetric, metadata};
}

// Rounding a double result of two floats to float32 is the float32 result (53 >= 2 * 24 + 2 bits).
double single(double value) {
  return static_cast<float>(value);
}

double round_metadata(double value, at::ScalarType type) {
  const auto x = static_cast<float>(value);
  return type == at::kHalf ? static_cast<float>(c10::Half(std::clamp(x, -65504.0F, 65504.0F))) : x;
}

struct Group {
  double scale = 0, zero = 0;
  std::vector<int64_t> codes;  // as stored
  std::vector<double> values;  // decoded
};

// The header's formulas, one group: in double, rounded to float32 at every step.
Group encode_group(const std::vector<double>& x, const AffineOptions& o) {
  Group g;
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const int64_t levels = o.symmetric ? (1 << (o.bits - 1)) - 1 : (1 << o.bits) - 1;
  const double most = static_cast<double>(levels), offset = o.symmetric ? most : 0;
  if (!o.symmetric) g.zero = round_metadata(*low, o.metadata);
  g.scale = round_metadata((o.symmetric ? std::max(*high, -*low) : single(*high - *low)) / most, o.metadata);
  const bool degenerate = g.scale == 0;
  if (degenerate) g.scale = 1;
  for (const double value : x) {
    const double q = degenerate ? 0
                                : std::clamp(std::nearbyint(single(single(value - g.zero) / g.scale)),
                                             o.symmetric ? -most : 0, most);
    g.codes.push_back(static_cast<int64_t>(q + offset));
    g.values.push_back(single(single(q * g.scale) + g.zero));
  }
  return g;
}

// Calls check(group by hand, where its values lie) for every group of x [H, T, D].
template <class Check>
void for_each_group(const at::Tensor& x, const AffineOptions& o, const Check& check) {
  const auto values = x.accessor<float, 3>();
  const bool channel = o.axis == GroupAxis::kChannel;
  const int64_t token_step = channel ? o.group : 1, channel_step = channel ? 1 : o.group;
  for (int64_t h = 0; h < x.size(0); ++h)
    for (int64_t t = 0; t < x.size(1); t += token_step)
      for (int64_t d = 0; d < x.size(2); d += channel_step) {
        std::vector<double> group;
        for (int64_t i = 0; i < o.group; ++i) group.push_back(channel ? values[h][t + i][d] : values[h][t][d + i]);
        check(encode_group(group, o), h, t, d);
      }
}

at::Tensor hard_input(int64_t heads, int64_t tokens, int64_t dim) {
  at::Tensor x = normals({heads, tokens, dim}, 11);
  x.select(2, 3).add_(25);
  x.select(1, 5).mul_(1e-3);
  x.select(0, 1).narrow(1, 0, 8).fill_(-2.5);
  return x;
}

TEST_CASE("codes, metadata and values are those of plain loops, bit for bit") {
  const int64_t bits = GENERATE(range(1, 9));
  const GroupAxis axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  const bool symmetric = GENERATE(false, true);
  const at::ScalarType metadata = GENERATE(at::kHalf, at::kFloat);
  if (symmetric && bits == 1) return;  // refused: tested below
  const AffineOptions o = options(bits, GENERATE(8, 20, 40), axis, symmetric, metadata);
  INFO(bits << " bits, group " << o.group << (axis == GroupAxis::kToken ? " per token" : " per channel")
            << (symmetric ? ", symmetric" : ""));
  const at::Tensor x = hard_input(2, 80, 40);
  const AffineCodec codec(o, 40);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const at::Tensor codes = unpack_bits(parts[0], bits, 40).view({2, 80, 40});
  const at::Tensor scale = parts[1].to(at::kFloat), zero = symmetric ? at::zeros_like(scale) : parts[2].to(at::kFloat);
  const at::Tensor decoded = codec.decode(parts);
  REQUIRE(decoded.scalar_type() == at::kFloat);
  const bool channel = axis == GroupAxis::kChannel;
  const auto q = codes.accessor<uint8_t, 3>();
  const auto y = decoded.accessor<float, 3>(), s = scale.accessor<float, 3>(), z = zero.accessor<float, 3>();
  int64_t values = 0, other_codes = 0, other_metadata = 0, other_values = 0;
  for_each_group(x, o, [&](const Group& g, int64_t h, int64_t t, int64_t d) {
    const int64_t row = channel ? t / o.group : t, column = channel ? d : d / o.group;
    other_metadata +=
        s[h][row][column] != static_cast<float>(g.scale) || z[h][row][column] != static_cast<float>(g.zero);
    for (int64_t i = 0; i < o.group; ++i, ++values) {
      const int64_t token = channel ? t + i : t, column_of_value = channel ? d : d + i;
      const auto at = static_cast<size_t>(i);
      other_codes += q[h][token][column_of_value] != g.codes[at];
      other_values += y[h][token][column_of_value] != g.values[at];
    }
  });
  REQUIRE(values == x.numel());
  CHECK(other_codes == 0);
  CHECK(other_metadata == 0);
  CHECK(other_values == 0);
}

TEST_CASE("tensor operations give the bits of the CPU loops") {
  const int64_t bits = GENERATE(range(1, 9));
  const GroupAxis axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  const bool symmetric = GENERATE(false, true);
  if (symmetric && bits == 1) return;
  const AffineCodec codec(options(bits, 20, axis, symmetric, GENERATE(at::kHalf, at::kFloat)), 40);
  INFO(bits << " bits" << (symmetric ? ", symmetric" : ""));
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA);
  const at::Tensor x = hard_input(2, 160, 40);
  const std::vector<at::Tensor> expected = codec.encode(x);
  for (const at::Device device : devices) {
    INFO(device.str());
    const std::vector<at::Tensor> parts = codec.encode_with_ops(x.to(device));
    REQUIRE(parts.size() == expected.size());
    for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].cpu().equal(expected[i]));
    CHECK(codec.decode_with_ops(parts).cpu().equal(codec.decode(expected)));
    const std::vector<at::Tensor> none = codec.encode_with_ops(x.narrow(1, 0, 0).to(device));
    for (size_t i = 0; i < none.size(); ++i) CHECK(none[i].sizes() == codec.encode(x.narrow(1, 0, 0))[i].sizes());
  }
}

TEST_CASE("views with gaps encode and decode like contiguous tensors") {
  const GroupAxis axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  const AffineCodec codec(options(3, 16, axis), 64);
  const at::Tensor wide = normals({40, 5, 64}, 4).transpose(0, 1);
  const at::Tensor x = wide.narrow(0, 1, 3).narrow(1, 4, 32);
  const std::vector<at::Tensor> parts = codec.encode(x.contiguous());
  std::vector<at::Tensor> inside;
  for (const at::Tensor& part : codec.encode(x)) {
    std::vector<int64_t> sizes = part.sizes().vec();
    sizes[1] += 7;
    inside.push_back(at::zeros(sizes, part.options()).narrow(1, 2, part.size(1)).copy_(part));
  }
  for (size_t i = 0; i < parts.size(); ++i) CHECK(inside[i].equal(parts[i]));
  CHECK(codec.decode(inside).equal(codec.decode(parts)));
  const at::Tensor turned = x.transpose(1, 2).contiguous().transpose(1, 2);
  CHECK(codec.encode(turned)[0].equal(parts[0]));
}

// Figures of the project's specification (section 1.7): NMSE of i.i.d. N(0,1), fp16 metadata, within 2 %.
struct Figure {
  int64_t bits, group;
  bool symmetric;
  double nmse;
};

TEST_CASE("the error on normal values is the published one") {
  const Figure f = GENERATE(values<Figure>(
      {{2, 16, false, .1068},   {2, 32, false, .1539},    {2, 64, false, .2018},    {2, 128, false, .2499},
       {2, 256, false, .2989},  {3, 32, false, .0281},    {3, 128, false, .0457},   {4, 16, false, 4.22e-3},
       {4, 32, false, 6.10e-3}, {4, 64, false, 8.02e-3},  {4, 128, false, 9.94e-3}, {4, 256, false, 1.19e-2},
       {5, 64, false, 1.87e-3}, {6, 64, false, 4.54e-4},  {6, 128, false, 5.63e-4}, {8, 32, false, 2.12e-5},
       {8, 64, false, 2.78e-5}, {8, 128, false, 3.44e-5}, {2, 32, true, .433},      {2, 128, true, .588},
       {3, 32, true, .0513},    {3, 128, true, .0749},    {4, 32, true, 9.39e-3},   {4, 64, true, 1.16e-2},
       {4, 128, true, 1.37e-2}, {8, 32, true, 2.86e-5},   {8, 128, true, 4.18e-5}}));
  INFO(f.bits << " bits, group " << f.group << (f.symmetric ? ", symmetric" : ""));
  static const at::Tensor x = normals({2, 2048, 256}, 2026);  // 2^20 values
  const GroupAxis axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  const AffineCodec codec(options(f.bits, f.group, axis, f.symmetric), 256);
  CHECK(nmse(x, codec.decode(codec.encode(x))) == Catch::Approx(f.nmse).epsilon(.02));
}

TEST_CASE("eight bits are nearly lossless: relative error below 0.6 % up to groups of 128") {
  const at::Tensor x = normals({4, 2048, 128}, 99);
  const AffineCodec codec(options(8, GENERATE(32, 64, 128)), 128);
  CHECK(std::sqrt(nmse(x, codec.decode(codec.encode(x)))) < .006);
}

// sin(0..31) as one group (specification, section 1.7).
TEST_CASE("the codes of a sine are the worked ones") {
  struct Worked {
    int64_t bits;
    float scale;
    int half;
    std::vector<uint8_t> codes;
  };
  const Worked w =
      GENERATE(Worked{2, .663532555F, 0x394f, {2, 3, 3, 2, 0, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2,
                                               1, 0, 0, 2, 3, 3, 1, 0, 0, 1, 3, 3, 2, 1, 0, 1}},
               Worked{4, .132706508F, 0x303f, {8, 14, 14, 9, 2,  0,  5, 12, 15, 11, 3,  0,  3,  11, 15, 12,
                                               5, 0,  2,  9, 14, 14, 7, 1,  1,  7,  13, 15, 10, 3,  0,  4}},
               Worked{8, .00780626526F, 0x1ffe, {128, 236, 245, 146, 31, 5, 92, 212}});
  INFO(w.bits << " bits");
  at::Tensor x = at::empty({1, 1, 32}, at::kFloat);
  for (int64_t j = 0; j < 32; ++j) x[0][0][j].fill_(std::sin(static_cast<double>(j)));
  const AffineCodec single(options(w.bits, 32, GroupAxis::kToken, false, at::kFloat), 32);
  const std::vector<at::Tensor> parts = single.encode(x);
  CHECK(parts[1].item<float>() == Catch::Approx(w.scale).epsilon(1e-7));
  CHECK(parts[2].item<float>() == Catch::Approx(-.999990225F).epsilon(1e-7));
  const at::Tensor codes = unpack_bits(parts[0], w.bits, 32).flatten();
  for (size_t j = 0; j < w.codes.size(); ++j) {
    INFO("code " << j);
    CHECK(codes[static_cast<int64_t>(j)].item<uint8_t>() == w.codes[j]);
  }
  const std::vector<at::Tensor> half = AffineCodec(options(w.bits, 32), 32).encode(x);
  CHECK(half[1].view(at::kShort).item<int16_t>() == w.half);
  CHECK(static_cast<uint16_t>(half[2].view(at::kShort).item<int16_t>()) == 0xbc00);
}

// D = 128, every 32nd channel at a constant offset of 30 (specification, section 1.7): mean squared error.
TEST_CASE("groups along tokens absorb outlier channels, groups along channels do not") {
  struct Outlier {
    GroupAxis axis;
    int64_t group, bits;
    double mse;
  };
  const Outlier o = GENERATE(values<Outlier>({{GroupAxis::kToken, 32, 2, 5.23},
                                              {GroupAxis::kToken, 128, 2, 7.61},
                                              {GroupAxis::kChannel, 32, 2, .154},
                                              {GroupAxis::kToken, 32, 4, .361},
                                              {GroupAxis::kToken, 128, 4, .412},
                                              {GroupAxis::kChannel, 32, 4, .0061}}));
  INFO(o.bits << " bits, group " << o.group);
  at::Tensor x = normals({2, 2048, 128}, 7);
  x.slice(2, 0, 128, 32).add_(30);
  const AffineCodec codec(options(o.bits, o.group, o.axis), 128);
  const double mse = (x - codec.decode(codec.encode(x))).square().mean().item<double>();
  CHECK(mse == Catch::Approx(o.mse).epsilon(.04));
}

TEST_CASE("a group without a range decodes to its value and stores a scale of one") {
  const GroupAxis axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  const double value = GENERATE(0.0, 1.25, -3.0, 65504.0, 6e-8);
  const int64_t bits = GENERATE(1, 2, 4, 8);
  INFO(bits << " bits of " << value);
  const at::Tensor x = at::full({2, 16, 16}, value, at::kFloat);
  const AffineCodec codec(options(bits, 16, axis), 16);
  const std::vector<at::Tensor> parts = codec.encode(x);
  CHECK(parts[0].eq(0).all().item<bool>());
  CHECK(parts[1].eq(1).all().item<bool>());
  CHECK(codec.decode(parts).eq(parts[2].to(at::kFloat).max()).all().item<bool>());
  CHECK(codec.decode(parts).allclose(x, 0, 4e-8));
}

TEST_CASE("a range too small for fp16 is stored as a group without range") {
  const bool symmetric = GENERATE(false, true);
  const at::Tensor x = normals({2, 8, 32}, 3) * 1e-9 + (symmetric ? 0.0 : 0.5);
  const AffineCodec codec(options(4, 32, GroupAxis::kToken, symmetric), 32);
  const std::vector<at::Tensor> parts = codec.encode(x);
  CHECK(parts[1].eq(1).all().item<bool>());
  CHECK(codec.decode(parts).eq(symmetric ? 0 : 0.5).all().item<bool>());
}

TEST_CASE("metadata beyond fp16 saturates; fp32 metadata does not") {
  const at::Tensor x = normals({2, 8, 32}, 3) * 1e6;
  const AffineCodec half(options(4, 32), 32), single(options(4, 32, GroupAxis::kToken, false, at::kFloat), 32);
  const std::vector<at::Tensor> parts = half.encode(x);
  CHECK(parts[1].to(at::kFloat).abs().le(65504).all().item<bool>());
  CHECK(parts[2].to(at::kFloat).abs().le(65504).all().item<bool>());
  CHECK(half.decode(parts).isfinite().all().item<bool>());
  CHECK(nmse(x, single.decode(single.encode(x))) < .01);
}

TEST_CASE("NaN and infinity are refused with their place") {
  const double bad = GENERATE(std::nan(""), HUGE_VAL, -HUGE_VAL);
  const GroupAxis axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  const int64_t channel = GENERATE(0, 7, 17, 39);
  INFO(bad << " in channel " << channel);
  const AffineCodec codec(options(4, 20, axis), 40);
  at::Tensor x = normals({2, 20, 40}, 1);
  x[1][13][channel].fill_(bad);
  const std::string place = "head 1, token 13, channel " + std::to_string(channel);
  CHECK_THROWS_WITH(codec.encode(x), ContainsSubstring(place));
  CHECK_THROWS_WITH(codec.encode_with_ops(x), ContainsSubstring(place));
  const at::Tensor wide = at::full({1, 20, 40}, 3e38);
  wide.select(2, 0).neg_();
  wide.select(1, 0).neg_();
  CHECK_THROWS_WITH(codec.encode(wide), ContainsSubstring("half of float32's range"));
}

TEST_CASE("options and inputs outside the contract are refused") {
  CHECK_THROWS_WITH(AffineCodec(options(0, 64), 64), ContainsSubstring("outside [1, 8]"));
  CHECK_THROWS_WITH(AffineCodec(options(9, 64), 64), ContainsSubstring("outside [1, 8]"));
  CHECK_THROWS_WITH(AffineCodec(options(1, 64, GroupAxis::kToken, true), 64), ContainsSubstring("outside [2, 8]"));
  CHECK_THROWS_WITH(AffineCodec(options(4, 48), 64), ContainsSubstring("does not divide the head dim 64"));
  CHECK_THROWS(AffineCodec(options(4, 64, GroupAxis::kToken, false, at::kDouble), 64));
  const AffineCodec codec(options(4, 16, GroupAxis::kChannel), 64);
  CHECK_THROWS_WITH(codec.encode(at::zeros({2, 17, 64})), ContainsSubstring("not a multiple of the group 16"));
  CHECK_THROWS(codec.encode(at::zeros({2, 16, 32})));
}

TEST_CASE("each token's codes on the token axis are its own") {
  const AffineCodec codec(options(4, 32), 64);
  const at::Tensor x = normals({2, 50, 64}, 8);
  at::Tensor changed = x.clone();
  changed.select(1, 20).mul_(100);
  const at::Tensor a = codec.decode(codec.encode(x)), b = codec.decode(codec.encode(changed));
  CHECK(a.narrow(1, 0, 20).equal(b.narrow(1, 0, 20)));
  CHECK(a.narrow(1, 21, 29).equal(b.narrow(1, 21, 29)));
  CHECK(codec.decode(codec.encode(x.narrow(1, 20, 1))).equal(a.narrow(1, 20, 1)));
}

TEST_CASE("a permutation inside a group permutes codes and keeps metadata") {
  const at::Tensor x = normals({2, 64, 64}, 9);
  const AffineCodec tokens(options(4, 32, GroupAxis::kChannel), 64), channels(options(4, 32), 64);
  const at::Tensor turned = at::cat({at::arange(31, -1, -1), at::arange(63, 31, -1)});
  const auto plain = tokens.encode(x), permuted = tokens.encode(x.index_select(1, turned));
  CHECK(plain[1].equal(permuted[1]));
  CHECK(plain[2].equal(permuted[2]));
  CHECK(tokens.decode(plain).index_select(1, turned).equal(tokens.decode(permuted)));
  const auto row = channels.encode(x), permuted_row = channels.encode(x.index_select(2, turned));
  CHECK(row[1].equal(permuted_row[1]));
  CHECK(channels.decode(row).index_select(2, turned).equal(channels.decode(permuted_row)));
}

TEST_CASE("codes do not change when powers of two scale the input, nor with a shift when asymmetric") {
  const bool symmetric = GENERATE(false, true);
  const AffineCodec codec(options(4, 32, GroupAxis::kToken, symmetric, at::kFloat), 64);
  const at::Tensor x = (normals({2, 50, 64}, 10) * 1024).round() / 1024;  // shifts below stay exact
  CHECK(codec.encode(x * 8)[0].equal(codec.encode(x)[0]));
  CHECK(codec.encode(x + 16)[0].equal(codec.encode(x)[0]) == !symmetric);
}

TEST_CASE("decoded values keep order, ends and half a step") {
  const int64_t bits = GENERATE(range(1, 9));
  const AffineCodec codec(options(bits, 64, GroupAxis::kToken, false, at::kFloat), 64);
  const at::Tensor x = std::get<0>(normals({2, 50, 64}, 12).sort(2));
  const std::vector<at::Tensor> parts = codec.encode(x);
  const at::Tensor y = codec.decode(parts);
  CHECK(y.narrow(2, 1, 63).ge(y.narrow(2, 0, 63)).all().item<bool>());
  CHECK(y.select(2, 0).equal(x.select(2, 0)));
  CHECK(y.select(2, 63).allclose(x.select(2, 63), 1e-6, 1e-6));
  CHECK((x - y).abs().le(parts[1] * 0.5 + 1e-6).all().item<bool>());
  const std::vector<at::Tensor> again = codec.encode(y);
  CHECK(again[0].equal(parts[0]));
}

TEST_CASE("bytes of a value are those that the header states") {
  struct Bytes {
    int64_t bits, group;
    double bits_a_value;
  };
  const Bytes b = GENERATE(Bytes{2, 32, 3.0}, Bytes{2, 64, 2.5}, Bytes{2, 128, 2.25}, Bytes{4, 128, 4.25},
                           Bytes{8, 64, 8.5}, Bytes{3, 32, 4.0});
  const GroupAxis axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  INFO(b.bits << " bits, group " << b.group);
  const at::Tensor x = normals({2, 256, 128}, 6);
  int64_t bytes = 0;
  for (const at::Tensor& part : AffineCodec(options(b.bits, b.group, axis), 128).encode(x))
    bytes += part.numel() * part.element_size();
  CHECK(8.0 * static_cast<double>(bytes) / static_cast<double>(x.numel()) == b.bits_a_value);
}

}  // namespace
}  // namespace kvsweep::testing
