// Oracle and golden: HQQ's codes against plain loops in double, against hqq's own, and figures for normal values.
#include "schemes/codec/hqq.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr GroupCut kAxis1 = GroupCut::kConsecutive, kAxis0 = GroupCut::kStrided;

double top_of(double bits) {
  return std::nearbyint(std::exp2(bits) - 1);
}

// Flat places of every group's values in x [H, T, D].
std::vector<std::vector<int64_t>> places_of(const at::Tensor& x, const HqqOptions& o) {
  const int64_t count = x.numel(), groups = (count + o.group - 1) / o.group;
  std::vector<std::vector<int64_t>> places(static_cast<size_t>(groups));
  for (int64_t i = 0; i < count; ++i)
    places[static_cast<size_t>(o.cut == kAxis1 ? i / o.group : i % groups)].push_back(i);
  return places;
}

double single(double value) {
  return static_cast<float>(value);
}

struct Searched {
  std::vector<double> scale, zero;  // s and z of each group
  std::vector<double> codes;        // of each value
};

// The header's search: in double, rounded to float32 at every step but for sums.
Searched search(const at::Tensor& x, const HqqOptions& o) {
  const at::Tensor rounded = x.to(o.dtype).to(at::kDouble).reshape({-1});
  const auto* values = rounded.const_data_ptr<double>();
  const double top = top_of(o.bits), tenth = single(.1);
  const auto places = places_of(x, o);
  Searched s;
  for (const auto& group : places) {
    double low = values[group[0]], high = low;
    for (const int64_t i : group) {
      low = std::min(low, values[i]);
      high = std::max(high, values[i]);
    }
    const double range = single(high - low);
    s.scale.push_back(range <= single(1e-4) ? 1 : std::min(single(single(1 / range) * top), 2e4));
    s.zero.push_back(single(-low * s.scale.back()));
  }
  const auto code = [&](size_t g, int64_t i) {
    return std::clamp(std::nearbyint(single(single(values[i] * s.scale[g]) + s.zero[g])), 0.0, top);
  };
  double best = INFINITY;
  for (int iteration = 0; iteration < 20; ++iteration) {
    double error = 0;
    for (size_t g = 0; g < places.size(); ++g) {
      double sum = 0;
      for (const int64_t i : places[g]) {
        const double decoded = single(single(code(g, i) - s.zero[g]) / s.scale[g]);
        const double e = single(values[i] - decoded), size = std::abs(e);
        const double less = size == 0 ? 0 : single(size - single(tenth * single(std::pow(size, single(-.3)))));
        error += size;
        sum += single(code(g, i) - single(single(values[i] - std::copysign(std::max(0.0, less), e)) * s.scale[g]));
      }
      s.zero[g] = single(sum / static_cast<double>(places[g].size()));
    }
    const double mean = single(error / static_cast<double>(x.numel()));
    if (mean >= best) break;
    best = mean;
  }
  s.codes.resize(static_cast<size_t>(x.numel()));
  for (size_t g = 0; g < places.size(); ++g)
    for (const int64_t i : places[g]) s.codes[static_cast<size_t>(i)] = code(g, i);
  return s;
}

struct Shape {
  int64_t heads, tokens, dim;
};

TEST_CASE("HQQ's codes and zero points are those of plain loops") {
  const HqqOptions o{GENERATE(1, 1.58, 2, 3, 4, 5, 6, 8), GENERATE(kAxis1, kAxis0), GENERATE(32, 64, 100),
                     GENERATE(at::kFloat, at::kBFloat16)};
  const auto shape = GENERATE(Shape{2, 40, 64}, Shape{3, 21, 80}, Shape{1, 1, 64});
  INFO(o.bits << " bits, group " << o.group << (o.cut == kAxis1 ? ", axis 1, " : ", axis 0, ") << o.dtype << ", "
              << shape.heads << " heads, " << shape.tokens << " tokens, " << shape.dim << " dims");
  const at::Tensor x = normals({shape.heads, shape.tokens, shape.dim}, 21) * 2;
  const HqqCodec codec(o, shape.heads, shape.dim);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const Searched expected = search(x, o);
  const at::Tensor codes = codec.codes(parts).reshape({-1}), values = codec.decode(parts).reshape({-1});
  const at::Tensor scale = parts[1].to(at::kDouble), zero = parts[2].to(at::kDouble);
  const auto places = places_of(x, o);
  REQUIRE(parts[1].numel() == static_cast<int64_t>(places.size()));
  const double unit = o.dtype == at::kFloat ? 0x1p-24 : 0x1p-8;  // half a step, relative
  int64_t other_codes = 0, other_metadata = 0, other_values = 0;
  for (size_t g = 0; g < places.size(); ++g) {
    const double s = scale[static_cast<int64_t>(g)].item<double>(), z = zero[static_cast<int64_t>(g)].item<double>();
    other_metadata += std::abs(z - expected.zero[g]) > 1e-4 + unit * std::abs(expected.zero[g]);
    other_metadata += std::abs(s - 1 / expected.scale[g]) > 1.1 * unit * s + 1e-7 * s;
    for (const int64_t i : places[g]) {
      const double code = codes[i].item<uint8_t>();
      other_codes += code != expected.codes[static_cast<size_t>(i)];
      // Difference and product, rounded each.
      const double shifted = std::abs(code - z), y = (code - z) * s;
      other_values += std::abs(values[i].item<float>() - y) > 1.01 * unit * (shifted * s + std::abs(y)) + 1e-9;
    }
  }
  CHECK(other_values == 0);
  // Sums and powers round differently here, so that a value on an edge may fall to the other side, or the search stop
  // one step apart: in 5 of these 384 cases, in one group each.
  CHECK(other_metadata <= 1);
  CHECK(other_codes <= 4);
}

TEST_CASE("HQQ with tensor operations gives the CPU loops' metadata and, but for ties, codes") {
  const HqqOptions o{GENERATE(1, 1.58, 2, 3, 4, 8), GENERATE(kAxis1, kAxis0), GENERATE(64, 100),
                     GENERATE(at::kFloat, at::kHalf)};
  INFO(o.bits << " bits, group " << o.group << (o.cut == kAxis1 ? ", axis 1, " : ", axis 0, ") << o.dtype);
  const at::Tensor x = normals({2, 77, 40}, 31);
  const HqqCodec codec(o, 2, 40);
  const std::vector<at::Tensor> expected = codec.encode(x);
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA);
  for (const at::Device device : devices) {
    INFO(device.str());
    const std::vector<at::Tensor> parts = codec.encode_with_ops(x.to(device));
    CHECK(parts[1].cpu().equal(expected[1]));
    // Of a few dozen groups, in one a value may have met an edge.
    CHECK(parts[2].cpu().ne(expected[2]).sum().item<int64_t>() <= 1 + expected[2].numel() / 10);
    CHECK(parts[2].to(at::kCPU, at::kFloat).sub(expected[2]).abs().gt(1e-3).sum().item<int64_t>() <= 1);
    CHECK(codec.codes(parts).cpu().ne(codec.codes(expected)).sum().item<int64_t>() <= 4);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(parts[i].sizes() == expected[i].sizes());
      CHECK(parts[i].scalar_type() == expected[i].scalar_type());
    }
    std::vector<at::Tensor> there;
    for (const at::Tensor& part : expected) there.push_back(part.to(device));
    CHECK(codec.decode_with_ops(there).cpu().equal(codec.decode(expected)));
    for (const at::Tensor& none : codec.encode_with_ops(x.narrow(1, 0, 0).to(device))) CHECK(none.numel() == 0);
  }
}

TEST_CASE("HQQ stores codes in the slots of the original") {
  struct Slot {
    double bits;
    int64_t bytes;  // of 3 heads x 10 tokens x 64 dims
    double nominal;
  };
  const Slot slot = GENERATE(Slot{1, 240, 1}, Slot{1.58, 480, 2}, Slot{2, 480, 2}, Slot{3, 768, 3.2}, Slot{4, 960, 4},
                             Slot{5, 1920, 8}, Slot{6, 1920, 8}, Slot{8, 1920, 8});
  const HqqCodec codec({slot.bits}, 3, 64);
  const std::vector<at::Tensor> parts = codec.encode(normals({3, 10, 64}, 3));
  INFO(slot.bits << " bits");
  CHECK(parts[0].numel() * parts[0].element_size() == slot.bytes);
  CHECK(codec.nominal_bits() == slot.nominal);
  CHECK(codec.codes(parts).max().item<uint8_t>() == top_of(slot.bits));
  const std::vector<at::Tensor> none = codec.encode(at::empty({3, 0, 64}));
  for (const at::Tensor& part : none) CHECK(part.numel() == 0);
  CHECK(codec.decode(none).sizes() == at::IntArrayRef({3, 0, 64}));
}

TEST_CASE("HQQ decodes degenerate groups exactly and huge ones to finite values") {
  const at::ScalarType type = GENERATE(at::kFloat, at::kHalf, at::kBFloat16);
  const double bits = GENERATE(1, 1.58, 2, 3, 4, 8);
  const HqqCodec codec({bits, GENERATE(kAxis1, kAxis0), 64, type}, 1, 64);
  INFO(type << ", " << bits << " bits");
  const at::Tensor constant = at::full({1, 64, 64}, 1.25);
  CHECK(codec.decode(codec.encode(constant)).equal(constant));
  CHECK(codec.decode(codec.encode(at::zeros({1, 64, 64}))).equal(at::zeros({1, 64, 64})));
  const at::Tensor x = normals({1, 64, 64}, 5);
  for (const double factor : {1e-9, 65504.0, 1e6, 1e30, 1e38})
    CHECK(codec.decode(codec.encode((x * factor).clamp(-3e38, 3e38))).isfinite().all().item<bool>());
  CHECK(codec.decode(codec.encode(x + 30000)).isfinite().all().item<bool>());
}

TEST_CASE("HQQ refuses NaN, infinity, other shapes and options that it lacks") {
  const HqqCodec codec({}, 2, 64);
  at::Tensor x = normals({2, 8, 64}, 6);
  x[1][3][5] = GENERATE(NAN, INFINITY);
  CHECK_THROWS_WITH(codec.encode(x), ContainsSubstring("hqq: NaN or infinity"));
  CHECK_THROWS_WITH(codec.encode(normals({3, 8, 64}, 6)), ContainsSubstring("needs [2, T, 64]"));
  CHECK_THROWS_WITH(HqqCodec({7}, 2, 64), ContainsSubstring("7 bits; allowed: 1, 1.58"));
  CHECK_THROWS_WITH(HqqCodec({4, kAxis1, 0}, 2, 64), ContainsSubstring("group 0"));
  CHECK_THROWS_WITH(HqqCodec({4, GroupCut::kRows}, 2, 64), ContainsSubstring("rows"));
  CHECK_THROWS_WITH(HqqCodec({4, kAxis1, 64, at::kDouble}, 2, 64), ContainsSubstring("Double"));
}

// Specification, section 1.7, as the original gives them: NMSE of i.i.d. N(0,1), within 2 %.
TEST_CASE("HQQ's error on normal values is the published one") {
  struct Figure {
    double bits;
    int64_t group;
    double nmse;
  };
  const Figure f = GENERATE(Figure{2, 32, .1373}, Figure{2, 64, .188}, Figure{2, 128, .2406}, Figure{4, 64, 7.40e-3},
                            Figure{8, 64, 2.57e-5}, Figure{1.58, 64, .419}, Figure{1, 64, 2.19});
  INFO(f.bits << " bits, group " << f.group);
  static const at::Tensor x = normals({2, 4096, 128}, 2026);  // 2^20 values
  const HqqCodec codec({f.bits, GENERATE(kAxis1, kAxis0), f.group, at::kFloat}, 2, 128);
  CHECK(nmse(x, codec.decode(codec.encode(x))) == Catch::Approx(f.nmse).epsilon(.02));
}

// Specification, section 1.2 (g): passes over unchanged groups move values by rounding only.
TEST_CASE("HQQ has next to no drift where groups stay") {
  struct Drift {
    double bits, nmse;
  };
  const Drift drift = GENERATE(Drift{1, 1e-12}, Drift{2, 1e-12}, Drift{3, 1e-12}, Drift{4, 6e-7}, Drift{8, 3e-8});
  INFO(drift.bits << " bits");
  const at::Tensor x = normals({2, 512, 64}, 77);
  const HqqCodec codec({drift.bits, kAxis1, 64, at::kFloat}, 2, 64);
  at::Tensor before = codec.decode(codec.encode(x));
  for (int i = 0; i < 3; ++i) {
    const at::Tensor after = codec.decode(codec.encode(before));
    CHECK(nmse(before, after) <= drift.nmse);
    before = after;
  }
}

at::ScalarType dtype_of(const std::string& text) {
  return text.ends_with("fp16") ? at::kHalf : text.ends_with("bf16") ? at::kBFloat16 : at::kFloat;
}

// Distance from a value of the type to the next one.
double step_at(double value, at::ScalarType type) {
  const int digits = type == at::kHalf ? 10 : type == at::kBFloat16 ? 7 : 23;
  return std::exp2(std::floor(std::log2(std::max(std::abs(value), 1e-5))) - digits);
}

// The original's packing of codes [rows, columns]: it puts rows that are rows / n apart into one slot, the first
// highest.
at::Tensor packed_like_hqq(const at::Tensor& codes, double bits) {
  const int64_t width = bits > 4 ? 8 : bits > 2 ? static_cast<int64_t>(bits) : bits > 1 ? 2 : 1;
  const int64_t each = width == 3 ? 10 : 8 / width, rows = (codes.size(0) + each - 1) / each;
  at::Tensor padded = at::zeros({rows * each, codes.size(1)}, at::kLong);
  padded.narrow(0, 0, codes.size(0)).copy_(codes);
  at::Tensor packed = at::zeros({rows, codes.size(1)}, at::kLong);
  for (int64_t i = 0; i < each; ++i)
    packed.add_(padded.narrow(0, i * rows, rows).bitwise_left_shift((each - 1 - i) * width));
  return packed.to(width == 3 ? at::kInt : at::kByte);
}

TEST_CASE("HQQ's codes, metadata and values are those of hqq", "[golden]") {
  int64_t checked = 0, exceptions = 0;
  for (const auto& manifest : golden_manifests_or_skip("hf_quantized_cache"))
    for (const GoldenCase& golden : manifest->cases()) {
      if (golden.function() != "HQQQuantizedLayer._quantize/_dequantize") continue;
      INFO(golden.label());
      if (golden.name().starts_with("quirk_")) {
        WARN(golden.name() << " documents a defect of the original");
        continue;
      }
      const at::Tensor x = golden.input(0);
      const HqqOptions o{golden.number("nbits"), golden.integer("axis") == 1 ? kAxis1 : kAxis0,
                         golden.integer("q_group_size"), dtype_of(golden.text("dtype"))};
      const HqqCodec codec(o, x.size(0), x.size(2));
      const std::vector<at::Tensor> parts = codec.encode(x);
      const at::Tensor grouped = golden.output("codes_grouped"), codes = codec.codes(parts).view(grouped.sizes());
      const at::Tensor zero = parts[2].to(at::kDouble),
                       expected_zero = golden.output("zero").view({-1}).to(at::kDouble);
      CHECK(parts[1].equal(golden.output("scale_div").view({-1})));
      // 1e-4, or one step of a narrow type.
      const auto zero_tolerance = [&](double z) {
        return o.dtype == at::kFloat ? 1e-4 : std::max(1e-4, step_at(z, o.dtype));
      };
      for (int64_t g = 0; g < zero.numel(); ++g) {
        const double z = expected_zero[g].item<double>();
        INFO("group " << g);
        CHECK(std::abs(zero[g].item<double>() - z) <= zero_tolerance(z));
      }
      // Codes differ only where x * s + z is within 1e-4 of a half, with the z that the search ends in (before it is
      // rounded for storage); rarely.
      const at::Tensor other = codes.ne(grouped);
      const Searched by_hand = search(x, o);
      const at::Tensor flat = x.to(o.dtype).to(at::kDouble).reshape({-1}), flat_other = other.reshape({-1});
      const auto places = places_of(x, o);
      for (size_t g = 0; other.any().item<bool>() && g < places.size(); ++g)
        for (const int64_t i : places[g]) {
          if (!flat_other[i].item<bool>()) continue;
          const double y = flat[i].item<double>() * by_hand.scale[g] + by_hand.zero[g];
          CHECK(std::abs(std::abs(y - std::floor(y)) - .5) <= 1e-4 * std::max(1.0, std::abs(by_hand.zero[g]) * 1e-3));
          ++exceptions;
        }
      CHECK(other.sum().item<int64_t>() * 1000 <= x.numel());
      if (!other.any().item<bool>()) CHECK(packed_like_hqq(codes, o.bits).equal(golden.output("packed")));
      if (golden.has_output("dequant")) {
        const at::Tensor expected = golden.output("dequant")[0].reshape({-1}).to(at::kDouble);
        const at::Tensor decoded = codec.decode(parts).reshape({-1}).to(at::kDouble);
        int64_t outside = 0;
        for (size_t g = 0; g < places.size(); ++g) {
          const auto at = static_cast<int64_t>(g);
          const double scale = parts[1][at].item<double>(), z = expected_zero[at].item<double>();
          for (const int64_t i : places[g]) {
            const double y = expected[i].item<double>();
            const double allowed =
                scale * (zero_tolerance(z) + flat_other[i].item<bool>() + step_at(z, o.dtype)) + step_at(y, o.dtype);
            outside += std::abs(decoded[i].item<double>() - y) > allowed;
          }
        }
        CHECK(outside == 0);
      }
      ++checked;
    }
  CHECK(checked > 0);
  if (exceptions > 0) WARN(exceptions << " codes on a rounding edge in " << checked << " cases");
}

}  // namespace
}  // namespace kvsweep::testing
