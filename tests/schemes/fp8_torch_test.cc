// Golden: casts to eight-bit floats of the original libraries. Oracle: the formats by their definition, figures for
// normal values. Contract: what the scheme fp8 stores, in bytes written out, where its scales come from, what it
// refuses.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "harness/core/error.h"
#include "harness/files/artifact.h"
#include "schemes/codec/float8.h"
#include "tests/support/golden.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

void check_casts(const GoldenCase& golden) {
  const at::Tensor x = golden.output("input");
  for (const auto& [format, name] :
       {std::pair{Float8Format::kE4M3, "e4m3fn"}, std::pair{Float8Format::kE5M2, "e5m2"}}) {
    INFO(name);
    const at::Tensor bytes = to_float8(x, format);
    CHECK(bytes.equal(golden.output(std::string(name) + "_saturated_torch")));
    // Casts that do not saturate: the same as long as the value is in range.
    const at::Tensor inside = x.abs().le(float8_top(format));
    for (const char* library : {"_torch", "_ml"})
      CHECK(bytes.masked_select(inside).equal(golden.output(std::string(name) + library).masked_select(inside)));
  }
  const at::Tensor number = x.isnan().logical_not();
  CHECK(from_float8(to_float8(x, Float8Format::kE4M3), Float8Format::kE4M3)
            .masked_select(number)
            .equal(golden.output("e4m3fn_saturated_value").masked_select(number)));
}

TEST_CASE("eight-bit floats are those of torch and ml_dtypes, bit for bit", "[golden]") {
  int64_t checked = 0;
  for (const auto& manifest : golden_manifests_or_skip("fp8_fp4"))
    for (const GoldenCase& golden : manifest->cases()) {
      INFO(golden.label());
      if (golden.name().starts_with("quirk_")) {
        WARN(golden.label() << " documents a defect of the original: skipped");
      } else if (golden.function() == "dtype casts") {
        check_casts(golden);
        ++checked;
      } else if (golden.function().find("NVFP4") == std::string::npos) {
        FAIL("unknown function " << golden.function());
      }
    }
  CHECK(checked > 0);
}

// Bits of exponent, bias, bits of mantissa.
double value_of(int byte, Float8Format format) {
  const int mantissa = format == Float8Format::kE4M3 ? 3 : 2, bias = format == Float8Format::kE4M3 ? 7 : 15;
  const int rest = byte & 127, exponent = rest >> mantissa, fraction = rest & ((1 << mantissa) - 1);
  const double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias - mantissa)
                                         : std::ldexp((1 << mantissa) + fraction, exponent - bias - mantissa);
  return byte >= 128 ? -magnitude : magnitude;
}

TEST_CASE("eight-bit floats follow their definition: nearest value, even byte at a tie, saturating") {
  const Float8Format format = GENERATE(Float8Format::kE4M3, Float8Format::kE5M2);
  const int top = format == Float8Format::kE4M3 ? 0x7E : 0x7B;
  INFO(float8_top(format));
  REQUIRE(value_of(top, format) == float8_top(format));
  std::vector<float> inputs = {0, 1e-9F, 1e30F, static_cast<float>(float8_top(format) * 1.01)};
  for (int byte = 0; byte < top; ++byte) {  // values, ties between two, and what lies beside a tie
    const double tie = (value_of(byte, format) + value_of(byte + 1, format)) / 2;
    for (const double x : {value_of(byte, format), tie, tie * (1 - 1e-6), tie * (1 + 1e-6)})
      inputs.push_back(static_cast<float>(x));
  }
  const at::Tensor random = normals({2000}, 3) * 100;
  for (int64_t i = 0; i < random.size(0); ++i) inputs.push_back(random[i].item<float>());
  const size_t positive = inputs.size();
  for (size_t i = 0; i < positive; ++i) inputs.push_back(-inputs[i]);
  const at::Tensor x = at::tensor(inputs, at::kFloat), bytes = to_float8(x, format), back = from_float8(bytes, format);
  int64_t other = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    int nearest = 0;
    const double magnitude = std::min(std::abs(static_cast<double>(inputs[i])), float8_top(format));
    const auto distance = [&](int byte) { return std::abs(magnitude - value_of(byte, format)); };
    for (int byte = 1; byte <= top; ++byte)
      if (distance(byte) < distance(nearest) || (distance(byte) == distance(nearest) && byte % 2 == 0)) nearest = byte;
    const int expected = nearest + (std::signbit(inputs[i]) ? 128 : 0);
    const auto at = static_cast<int64_t>(i);
    other += bytes[at].item<uint8_t>() != expected || back[at].item<float>() != value_of(expected, format);
  }
  CHECK(other == 0);
  if (at::hasCUDA()) CHECK(to_float8(x.cuda(), format).cpu().equal(bytes));
}

// Specification, sections 1.4 and 7: NMSE of normal values at scale 1, within 2 %.
TEST_CASE("the error of eight-bit floats on normal values is the published one") {
  const auto [format, error] =
      GENERATE(table<Float8Format, double>({{Float8Format::kE4M3, 7.03e-4}, {Float8Format::kE5M2, 2.79e-3}}));
  static const at::Tensor x = normals({2, 4096, 128}, 2026);  // 2^20 values
  const Float8Codec fixed(format, at::ones({1}));
  CHECK(nmse(x, fixed.decode(fixed.encode(x))) == Catch::Approx(error).epsilon(.02));
}

TEST_CASE("a float8 scale fits its tensor, its head or its token") {
  const Float8Format format = GENERATE(Float8Format::kE4M3, Float8Format::kE5M2);
  const double top = float8_top(format);
  at::Tensor x = normals({3, 20, 80}, 5);
  x.select(0, 1).mul_(1e4);
  x.select(1, 7).mul_(100);
  const at::Tensor heads = at::tensor({0.5, 100.0, 2.0}, at::kFloat);
  const Float8Codec tensor(format, at::full({1}, 0.25F)), head(format, heads), token(format, {});
  const at::Tensor by_tensor = tensor.decode(tensor.encode(x)), by_head = head.decode(head.encode(x));
  CHECK(by_tensor.equal(from_float8(to_float8(x / 0.25, format), format) * 0.25));
  for (int64_t h = 0; h < 3; ++h)
    CHECK(by_head[h].equal(from_float8(to_float8(x[h] / heads[h], format), format) * heads[h]));
  const std::vector<at::Tensor> parts = token.encode(x);
  REQUIRE(parts[1].sizes() == at::IntArrayRef({3, 20, 1}));
  for (int64_t h = 0; h < 3; ++h)
    for (int64_t t = 0; t < 20; ++t) {
      const float amax = x[h][t].abs().max().item<float>(), scale = parts[1][h][t][0].item<float>();
      CHECK(scale == amax / static_cast<float>(top));
    }
  const at::Tensor by_token = token.decode(parts);
  CHECK(nmse(x, by_token) < (format == Float8Format::kE4M3 ? 1e-3 : 4e-3));
  CHECK(by_token.narrow(1, 7, 1).equal(token.decode(token.encode(x.narrow(1, 7, 1)))));  // a token is its own
}

TEST_CASE("float8 saturates, and gives small tokens a scale of at least 1e-6") {
  const at::Tensor x = at::tensor({1000.0, -1e9, 448.0, 0.001}, at::kFloat).view({1, 1, 4});
  const Float8Codec fixed(Float8Format::kE4M3, at::ones({1}));
  CHECK(fixed.decode(fixed.encode(x)).flatten().narrow(0, 0, 3).equal(at::tensor({448.0, -448.0, 448.0}, at::kFloat)));
  const Float8Codec token(Float8Format::kE4M3, {});
  const double value = GENERATE(0.0, 1e-9, 1e-40);
  const std::vector<at::Tensor> parts = token.encode(at::full({1, 2, 8}, value));
  CHECK(parts[1].eq(1e-6F).all().item<bool>());
  CHECK(token.decode(parts).allclose(at::full({1, 2, 8}, value), 0.1, 2e-9));
}

TEST_CASE("float8 refuses NaN, infinity and scales that are none") {
  const Float8Format format = Float8Format::kE4M3;
  const double bad = GENERATE(std::nan(""), HUGE_VAL);
  at::Tensor x = normals({2, 4, 8}, 1);
  x[1][2][3] = bad;
  CHECK_THROWS_WITH(Float8Codec(format, at::ones({1})).encode(x), ContainsSubstring("NaN or infinity"));
  CHECK_THROWS_WITH(Float8Codec(format, {}).encode(x), ContainsSubstring("NaN or infinity"));
  CHECK_THROWS_WITH(Float8Codec(format, at::zeros({1})), ContainsSubstring("not above zero"));
  CHECK_THROWS_WITH(Float8Codec(format, at::full({1}, bad)), ContainsSubstring("not finite"));
  CHECK_THROWS(Float8Codec(format, at::ones({1, 1})));
  CHECK_THROWS_WITH(Float8Codec(format, at::ones({3})).encode(normals({2, 4, 8}, 1)), ContainsSubstring("heads"));
}

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 80, kTokens = 100;

struct Fixture {
  Rope rope{std::vector<float>(kDim / 2, 0.01F), 1, at::kCPU, 256};
  CacheContext context{kLayers, kHeads, kDim, at::kFloat, at::kCPU, &rope, kTokens};
  Trace trace = random_trace(kLayers, kHeads, kTokens, kDim, 1);

  std::unique_ptr<KvCache> filled(const Scheme& scheme) const {
    auto cache = scheme.make_cache(context);
    for (size_t layer = 0; layer < kLayers; ++layer)
      cache->append(static_cast<int64_t>(layer), {trace.k[layer], trace.v[layer], 0});
    return cache;
  }
  ByteLedger bytes(const Scheme& scheme) const {
    ByteLedger ledger;
    filled(scheme)->account(ledger);
    scheme.account_shared(ledger);
    return ledger;
  }
  const SchemeEntry& entry() const {
    for (const SchemeEntry& one : scheme_table())
      if (one.name == "fp8") return one;
    throw ConfigError("no fp8");
  }
};

TEST_CASE_METHOD(Fixture, "fp8 stores one byte a value, and scales where they come from the data or an artifact") {
  const int64_t values = 2 * kLayers * kHeads * kTokens * kDim;  // keys and values
  const ByteLedger fixed = bytes(*make_scheme("fp8", {}));
  CHECK(fixed.live(ByteRole::kCodes) == values);
  CHECK(fixed.live_bytes() == values);
  const ByteLedger token = bytes(*make_scheme("fp8", {{"per", "token"}}));
  CHECK(token.live(ByteRole::kCodes) == values);
  CHECK(token.live(ByteRole::kScales) == values / kDim * 4);
  const ByteLedger head = bytes(*make_scheme("fp8", with_random_artifact(entry(), {{"per", "head"}}, context)));
  CHECK(head.live(ByteRole::kCodes) == values);
  CHECK(head.live(ByteRole::kScales) == 2 * kLayers * kHeads * 4);  // of the scheme, for all of its caches
}

TEST_CASE_METHOD(Fixture, "fp8 without calibration has scale 1, or what the sweep says") {
  const auto cache = filled(*make_scheme("fp8", {{"v_scale", "0.5"}, {"v_format", "e5m2"}}));
  const KvView view = cache->read(1);
  CHECK(view.keys[0].tokens == kTokens);
  const at::Tensor k = rope.apply(trace.k[1], 0), v = trace.v[1];
  CHECK(decode_runs(view.keys).equal(from_float8(to_float8(k, Float8Format::kE4M3), Float8Format::kE4M3)));
  CHECK(
      decode_runs(view.values).equal(from_float8(to_float8(v / 0.5, Float8Format::kE5M2), Float8Format::kE5M2) * 0.5));
}

// What a calibration of three sequences saw: with_random_artifact.
TEST_CASE_METHOD(Fixture, "fp8 scales of an artifact are largest magnitudes after RoPE") {
  const bool per_head = GENERATE(true, false);
  const Settings settings = {{"per", per_head ? "head" : "tensor"}, {"v_format", "e5m2"}};
  const auto scheme = make_scheme("fp8", with_random_artifact(entry(), settings, context));
  CHECK(scheme->traits().calibrated);
  at::Tensor k_amax = at::zeros({kHeads}), v_amax = at::zeros({kHeads});
  for (uint64_t seed = 1000; seed < 1300; seed += 100) {
    const Trace seen = random_trace(kLayers, kHeads, 256, kDim, seed);
    k_amax = at::maximum(k_amax, rope.apply(seen.k[1], 0).abs().amax({1, 2}));
    v_amax = at::maximum(v_amax, seen.v[1].abs().amax({1, 2}));
  }
  if (!per_head) {
    k_amax = k_amax.max().expand({kHeads});
    v_amax = v_amax.max().expand({kHeads});
  }
  const auto cache = filled(*scheme);
  const KvView view = cache->read(1);
  const at::Tensor k_scale = (k_amax / 448).view({-1, 1, 1}), v_scale = (v_amax / 57344).view({-1, 1, 1});
  const at::Tensor k = rope.apply(trace.k[1], 0);
  CHECK(decode_runs(view.keys).equal(from_float8(to_float8(k / k_scale, Float8Format::kE4M3), Float8Format::kE4M3) *
                                     k_scale));
  CHECK(decode_runs(view.values)
            .equal(from_float8(to_float8(trace.v[1] / v_scale, Float8Format::kE5M2), Float8Format::kE5M2) * v_scale));
}

TEST_CASE_METHOD(Fixture, "fp8 scales of heads that saw zeros alone are one") {
  Params params("fp8", "", {});
  const auto calibrator = entry().calibrate(params);
  CalibrationLayer layer;
  layer.rope = &rope;
  layer.keys = layer.values = {at::zeros({kHeads, 4, kDim})};
  TensorMap tensors;
  for (int64_t index = 0; index < kLayers; ++index)
    for (const auto& [name, tensor] : calibrator->layer(layer))
      tensors.emplace(fmt::format("layers.{}.{}", index, name), tensor);
  ArtifactHeader header;
  header.scheme = "fp8";
  header.layers = kLayers;
  header.kv_heads = kHeads;
  header.head_dim = kDim;
  const TemporaryDirectory directory;
  const std::string path = (directory.path() / "zeros.safetensors").string();
  write_artifact(path, header, tensors);
  const auto cache = filled(*make_scheme("fp8", {{"per", GENERATE("head", "tensor")}, {"artifact", path}}));
  const at::Tensor v = trace.v[0];
  CHECK(decode_runs(cache->read(0).values).equal(from_float8(to_float8(v, Float8Format::kE4M3), Float8Format::kE4M3)));
  layer.rope = nullptr;
  CHECK_THROWS_WITH(calibrator->layer(layer), ContainsSubstring("after RoPE"));
}

TEST_CASE_METHOD(Fixture, "fp8 formats may differ by layer") {
  Params params("fp8", "night.yaml", {{"k_format", {"e4m3", 3, {{1, 1, "e5m2", 4}}}}});
  const auto scheme = entry().make(params);
  CHECK(scheme->nominal_bits(2).k == 8);
  const auto cache = filled(*scheme);
  for (size_t layer = 0; layer < kLayers; ++layer) {
    const Float8Format format = layer == 0 ? Float8Format::kE4M3 : Float8Format::kE5M2;
    CHECK(decode_runs(cache->read(static_cast<int64_t>(layer)).keys)
              .equal(from_float8(to_float8(rope.apply(trace.k[layer], 0), format), format)));
  }
}

TEST_CASE_METHOD(Fixture, "fp8 settings that do not fit are refused by name") {
  const auto refused = [this](const Settings& settings, const std::string& why) {
    INFO(describe("fp8", settings));
    CHECK_THROWS_MATCHES(make_scheme("fp8", settings)->make_cache(context), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  };
  const std::string artifact = with_random_artifact(entry(), {}, context).at("artifact");
  refused({{"k_format", "e3m4"}}, "fp8.k_format = 'e3m4' is not one of e4m3, e5m2");
  refused({{"k_scale", "0"}}, "fp8.k_scale = 0 is outside");
  refused({{"per", "head"}}, "fp8.per = head: scales of heads come from an artifact");
  refused({{"per", "token"}, {"v_scale", "2"}}, "fp8.per = token");
  refused({{"per", "token"}, {"artifact", artifact}}, "fp8.per = token");
  refused({{"artifact", artifact}, {"v_scale", "2"}}, "fp8.v_scale = 2: an artifact says the scales");
  refused({{"artifact", "/nowhere/a.safetensors"}}, "fp8.artifact = '/nowhere/a.safetensors' is no file");
  refused({{"artifact", ""}}, "fp8.artifact = '' is no file");
  context.layers = 3;
  refused({{"artifact", artifact}}, "made for random (2 layers of 3 kv-heads x 80 dims)");
  Params params("fp8", "", {{"per", {"token", 0}}});
  CHECK_THROWS_MATCHES(entry().calibrate(params), ConfigError, MessageMatches(ContainsSubstring("fp8.per = token")));
}

}  // namespace
}  // namespace kvsweep::testing
