// Oracle: affine codes in fp16 arithmetic and of the reciprocal and zero-point forms, against plain loops in double.
#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "schemes/codec/affine.h"
#include "schemes/codec/bitpack.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

// To `digits` significant bits, half to even; below 2^least_exponent with the spacing there.
double round_bits(double x, int digits, int least_exponent) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int unit = std::max(std::ilogb(x), least_exponent) - digits + 1;
  return std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
}

double round_to(double x, at::ScalarType type) {
  if (type == at::kHalf) return round_bits(x, 11, -14);
  if (type == at::kBFloat16) return round_bits(x, 8, -126);
  return round_bits(x, 24, -126);
}

double largest(at::ScalarType type) {
  if (type == at::kHalf) return 65504;
  if (type == at::kBFloat16) return 0x1.FEp127;
  return 0x1.FFFFFEp127;
}

double stored(double x, at::ScalarType type) {
  return round_to(std::clamp(x, -largest(type), largest(type)), type);
}

struct Group {
  double scale = 0, zero = 0;  // as stored
  std::vector<double> codes, values;
};

// One group by the header's formulas. An operation on two float32 or fp16 numbers in double, rounded, is that
// operation's correctly rounded result.
Group encode_group(std::vector<double> x, const AffineOptions& o) {
  const auto round = [&o](double y) { return round_to(y, o.arithmetic); };
  if (o.arithmetic == at::kHalf)
    for (double& value : x) value = round(std::clamp(value, -65504.0, 65504.0));
  const double top = std::ldexp(1, static_cast<int>(o.bits)) - 1;
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const double range = *high - *low;
  const double step = o.form == AffineForm::kReciprocal
                          ? round(round_to(round_to(range, at::kFloat) * round_to(1 / top, at::kFloat), at::kFloat))
                          : round(round(range) / top);
  Group g;
  g.scale = stored(step, o.metadata);
  g.zero = stored(*low, o.metadata);
  const double point = round(-*low / step);
  const bool fits = std::fabs(round_to(point, o.metadata)) <= largest(o.metadata);
  const bool empty = g.scale == 0 || (o.form == AffineForm::kZeroPoint && !fits);
  for (const double value : x) {
    double code = 0;
    if (!empty && o.form == AffineForm::kMinimum) code = std::nearbyint(round(round(value - g.zero) / g.scale));
    if (!empty && o.form == AffineForm::kReciprocal)
      code = std::nearbyint(round(round(value - g.zero) * round(1 / g.scale)));
    if (!empty && o.form == AffineForm::kZeroPoint) code = std::floor(round(round(round(value / step) + point) + 0.5));
    g.codes.push_back(std::clamp(code, 0.0, top));
  }
  if (o.form == AffineForm::kZeroPoint) g.zero = empty ? -g.zero : round_to(point, o.metadata);
  if (empty) g.scale = o.arithmetic == at::kHalf && o.form != AffineForm::kZeroPoint ? 0 : 1;
  for (const double code : g.codes)
    g.values.push_back(o.form == AffineForm::kZeroPoint ? round(round(code - g.zero) * g.scale)
                                                        : round(round(code * g.scale) + g.zero));
  return g;
}

// Calls check(group by hand, head, first token, first channel) for every group of x [H, T, D].
template <class Check>
void for_each_group(const at::Tensor& x, const AffineOptions& o, const Check& check) {
  const auto values = x.accessor<float, 3>();
  const bool channel = o.axis == GroupAxis::kChannel;
  for (int64_t h = 0; h < x.size(0); ++h)
    for (int64_t t = 0; t < x.size(1); t += channel ? o.group : 1)
      for (int64_t d = 0; d < x.size(2); d += channel ? 1 : o.group) {
        std::vector<double> group;
        for (int64_t i = 0; i < o.group; ++i) group.push_back(channel ? values[h][t + i][d] : values[h][t][d + i]);
        check(encode_group(group, o), h, t, d);
      }
}

// Constant and nearly constant rows, a channel far off, and scales from below fp16 to beyond it.
at::Tensor hard_input(int64_t heads, int64_t tokens, int64_t dim) {
  at::Tensor x = normals({heads, tokens, dim}, 21);
  x.select(2, 3).add_(25);
  x.select(1, 5).mul_(1e-3);
  x.select(1, 6).mul_(1e-7);
  x.select(1, 7).add_(3000);
  x.select(0, heads - 1).narrow(1, 0, 4).fill_(-2.5);
  x.select(0, heads - 1).narrow(1, 8, 8).mul_(3e4);
  return x;
}

AffineOptions generated_options(int64_t group) {
  AffineOptions o;
  o.bits = GENERATE(range(1, 9));
  o.group = group;
  o.axis = GENERATE(GroupAxis::kToken, GroupAxis::kChannel);
  o.metadata = GENERATE(at::kHalf, at::kBFloat16, at::kFloat);
  o.arithmetic = GENERATE(at::kFloat, at::kHalf);
  o.form = GENERATE(AffineForm::kMinimum, AffineForm::kReciprocal, AffineForm::kZeroPoint);
  return o;
}

std::string label(const AffineOptions& o) {
  const char* forms[] = {"minimum", "reciprocal", "zero-point"};
  return std::to_string(o.bits) + " bits, group " + std::to_string(o.group) + " per " +
         (o.axis == GroupAxis::kToken ? "token" : "channel") + ", " + c10::toString(o.metadata) + " metadata, " +
         c10::toString(o.arithmetic) + " arithmetic, " + forms[static_cast<int>(o.form)];
}

TEST_CASE("every form in every arithmetic is that of plain loops, bit for bit") {
  const AffineOptions o = generated_options(GENERATE(8, 40));
  INFO(label(o));
  const at::Tensor x = hard_input(2, 40, 80);
  const AffineCodec codec(o, 80);
  const std::vector<at::Tensor> parts = codec.encode(x);
  REQUIRE(parts[1].scalar_type() == o.metadata);
  REQUIRE(parts[2].scalar_type() == o.metadata);
  const at::Tensor codes = unpack_bits(parts[0], o.bits, 80).view({2, 40, 80});
  const at::Tensor scale = parts[1].to(at::kFloat), zero = parts[2].to(at::kFloat), decoded = codec.decode(parts);
  const auto q = codes.accessor<uint8_t, 3>();
  const auto y = decoded.accessor<float, 3>(), s = scale.accessor<float, 3>(), z = zero.accessor<float, 3>();
  const bool channel = o.axis == GroupAxis::kChannel;
  int64_t values = 0, other_codes = 0, other_metadata = 0, other_values = 0, not_finite = 0;
  for_each_group(x, o, [&](const Group& g, int64_t h, int64_t t, int64_t d) {
    const int64_t row = channel ? t / o.group : t, column = channel ? d : d / o.group;
    other_metadata += s[h][row][column] != g.scale || z[h][row][column] != g.zero;
    for (int64_t i = 0; i < o.group; ++i, ++values) {
      const int64_t token = channel ? t + i : t, at = channel ? d : d + i;
      other_codes += q[h][token][at] != g.codes[static_cast<size_t>(i)];
      other_values += y[h][token][at] != g.values[static_cast<size_t>(i)];
      not_finite += !std::isfinite(y[h][token][at]);
    }
  });
  REQUIRE(values == x.numel());
  CHECK(other_codes == 0);
  CHECK(other_metadata == 0);
  CHECK(other_values == 0);
  CHECK(not_finite == 0);
}

TEST_CASE("tensor operations give the bits of the CPU loops in every form and arithmetic") {
  const AffineOptions o = generated_options(20);
  INFO(label(o));
  const AffineCodec codec(o, 40);
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA);
  const at::Tensor x = hard_input(3, 40, 40);
  const std::vector<at::Tensor> expected = codec.encode(x);
  for (const at::Device device : devices) {
    INFO(device.str());
    const std::vector<at::Tensor> parts = codec.encode_with_ops(x.to(device));
    for (size_t i = 0; i < expected.size(); ++i) CHECK(parts[i].cpu().equal(expected[i]));
    CHECK(codec.decode_with_ops(parts).cpu().equal(codec.decode(expected)));
    const std::vector<at::Tensor> none = codec.encode_with_ops(x.narrow(1, 0, 0).to(device));
    for (size_t i = 0; i < none.size(); ++i) CHECK(none[i].sizes() == codec.encode(x.narrow(1, 0, 0))[i].sizes());
  }
}

// Figures of the project's specification (section 1.7): what is rounded where moves none of them by 2 %.
TEST_CASE("the error on normal values does not depend on form and arithmetic") {
  struct Figure {
    int64_t bits, group;
    double nmse;
  };
  const Figure f = GENERATE(Figure{2, 32, .1539}, Figure{2, 128, .2499}, Figure{4, 32, 6.10e-3}, Figure{4, 64, 8.02e-3},
                            Figure{8, 64, 2.78e-5});
  AffineOptions o{f.bits, f.group};
  o.arithmetic = GENERATE(at::kFloat, at::kHalf);
  o.form = GENERATE(AffineForm::kMinimum, AffineForm::kReciprocal, AffineForm::kZeroPoint);
  INFO(label(o));
  // At 8 bits fp16 arithmetic adds its own rounding: a quotient of up to 255 in steps of 1/8, values in steps of 2^-11.
  if (f.bits == 8 && o.arithmetic == at::kHalf) return;
  static const at::Tensor x = normals({2, 2048, 256}, 2026);  // 2^20 values
  const AffineCodec codec(o, 256);
  CHECK(nmse(x, codec.decode(codec.encode(x))) == Catch::Approx(f.nmse).epsilon(.02));
}

TEST_CASE("a half goes up beside a zero-point and to the even code beside a minimum") {
  const at::Tensor x = at::tensor({0.F, .5F, 1.F, 1.5F, 2.F, 2.5F, 3.F, 3.F}).view({1, 1, 8});
  const auto codes = [&x](AffineForm form) {
    AffineOptions o{2, 8};
    o.form = form;
    return unpack_bits(AffineCodec(o, 8).encode(x)[0], 2, 8).flatten();
  };
  CHECK(codes(AffineForm::kZeroPoint).equal(at::tensor({0, 1, 1, 2, 2, 3, 3, 3}, at::kByte)));
  CHECK(codes(AffineForm::kMinimum).equal(at::tensor({0, 0, 1, 2, 2, 2, 3, 3}, at::kByte)));
}

TEST_CASE("a group without a range decodes to its stored minimum in every form and arithmetic") {
  AffineOptions o = generated_options(16);
  const double value = GENERATE(0.0, 1.25, -3.0, 65504.0, 6e-8);
  INFO(label(o) << " of " << value);
  const AffineCodec codec(o, 16);
  const std::vector<at::Tensor> parts = codec.encode(at::full({2, 16, 16}, value, at::kFloat));
  CHECK(parts[0].eq(0).all().item<bool>());
  // A scale of 0, as KIVI stores it, beside a minimum in fp16 arithmetic; else 1.
  const bool kivi = o.arithmetic == at::kHalf && o.form != AffineForm::kZeroPoint;
  CHECK(parts[1].eq(kivi ? 0 : 1).all().item<bool>());
  const double minimum = round_to(stored(value, o.metadata), o.arithmetic);
  CHECK(codec.decode(parts).eq(minimum).all().item<bool>());
  CHECK(codec.decode_with_ops(parts).eq(minimum).all().item<bool>());
}

TEST_CASE("a range of more than fp16's largest value has codes in fp16 arithmetic") {
  AffineOptions o{4, 32};
  o.arithmetic = at::kHalf;
  o.form = GENERATE(AffineForm::kMinimum, AffineForm::kReciprocal);
  const at::Tensor x = normals({1, 8, 32}, 5).sign() * 65504;
  const AffineCodec codec(o, 32);
  CHECK(codec.decode(codec.encode(x)).allclose(x, 1e-3));  // fp16 keeps 11 bits of a scale of 8734
}

TEST_CASE("values beyond fp16 saturate in fp16 arithmetic") {
  AffineOptions o{8, 8};
  o.arithmetic = at::kHalf;
  const AffineCodec codec(o, 8);
  const at::Tensor x = at::tensor({-1e6F, 0.F, 65504.F, 65519.F, 65520.F, 1e6F, 3e38F / 4, -65504.F}).view({1, 1, 8});
  CHECK(codec.encode(x)[0].equal(codec.encode(x.clamp(-65504, 65504))[0]));
  CHECK(codec.encode_with_ops(x)[0].equal(codec.encode(x)[0]));
}

TEST_CASE("a zero-point that does not fit its type leaves the minimum") {
  AffineOptions o{8, 32};
  o.form = AffineForm::kZeroPoint;
  const at::Tensor x = normals({2, 8, 32}, 6) + 30000;  // about 1.2 million steps from zero
  const AffineCodec half(o, 32);
  const std::vector<at::Tensor> parts = half.encode(x);
  CHECK(parts[1].eq(1).all().item<bool>());
  CHECK(half.decode(parts).equal(x.amin(2, true).to(at::kHalf).to(at::kFloat).expand_as(x)));
  o.metadata = at::kFloat;
  const AffineCodec single(o, 32);
  CHECK((single.decode(single.encode(x)) - x).abs().max().item<double>() < .2);
}

TEST_CASE("a scale without a finite reciprocal leaves the minimum") {
  AffineOptions o{4, 32};
  o.form = AffineForm::kReciprocal;
  o.metadata = at::kFloat;
  const double unit = GENERATE(0x1p-126, 0x1p-136);  // a fifteenth of it and its reciprocal: finite, infinite
  const at::Tensor x = at::arange(32, at::kFloat).view({1, 1, 32}) * unit;
  const AffineCodec codec(o, 32);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const double scale = unit < 0x1p-130 ? 1 : 31 * unit / 15;  // a product with the rounded 1 / 15: an ulp or two off
  CHECK(((parts[1].to(at::kDouble) / scale - 1).abs() < 1e-6).all().item<bool>());
  CHECK(parts[0].eq(0).all().item<bool>() == (unit < 0x1p-130));
  CHECK(codec.encode_with_ops(x)[0].equal(parts[0]));
  CHECK(codec.decode(parts).isfinite().all().item<bool>());
}

TEST_CASE("fp16 arithmetic decodes to fp16 values") {
  AffineOptions o{GENERATE(2, 4, 8), 32, GENERATE(GroupAxis::kToken, GroupAxis::kChannel)};
  o.arithmetic = at::kHalf;
  const AffineCodec codec(o, 64);
  const at::Tensor y = codec.decode(codec.encode(normals({2, 64, 64}, 7)));
  CHECK(y.equal(y.to(at::kHalf).to(at::kFloat)));
}

TEST_CASE("forms and arithmetic outside the contract are refused") {
  AffineOptions o{4, 32};
  o.arithmetic = at::kBFloat16;
  CHECK_THROWS_WITH(AffineCodec(o, 64), ContainsSubstring("arithmetic in BFloat16; allowed: Half, Float"));
  o = {4, 32, GroupAxis::kToken, true};
  o.form = GENERATE(AffineForm::kReciprocal, AffineForm::kZeroPoint);
  CHECK_THROWS_WITH(AffineCodec(o, 64), ContainsSubstring("symmetric"));
  o.form = AffineForm::kMinimum;
  o.arithmetic = at::kHalf;
  CHECK_THROWS_WITH(AffineCodec(o, 64), ContainsSubstring("symmetric"));
}

}  // namespace
}  // namespace kvsweep::testing
