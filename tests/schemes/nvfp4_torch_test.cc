// Golden: NVFP4 of Model Optimizer and torchao, bit for bit. Oracle: the same in plain loops, figures for normal
// values. Contract: what the scheme nvfp4 stores, in bytes written out, and what it refuses.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "harness/core/error.h"
#include "schemes/codec/float8.h"
#include "schemes/codec/nvfp4.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

void check_tensor(const GoldenCase& golden, const at::Tensor& x, const std::string& library, NvFp4Scales scales,
                  float tensor_scale) {
  INFO(library);
  const NvFp4Codec codec(x.size(2), tensor_scale, scales);
  const std::vector<at::Tensor> parts = codec.encode(x);
  CHECK(parts[0].flatten(0, 1).equal(golden.output(library + "_packed")));
  CHECK(parts[1].flatten(0, 1).equal(golden.output(library + "_block_scale_e4m3")));
  if (golden.has_output(library + "_dequant"))
    CHECK(codec.decode(parts).flatten(0, 1).equal(golden.output(library + "_dequant")));
}

void check_nvfp4(const GoldenCase& golden) {
  REQUIRE(golden.integer("block") == 16);
  const at::Tensor x = golden.input(0);
  const float scale = (x.abs().max() / (6 * 448)).item<float>();
  for (const auto& [library, scales] :
       {std::pair{"modelopt", NvFp4Scales::kModelOpt}, std::pair{"torchao", NvFp4Scales::kTorchAo}}) {
    CHECK(golden.output(std::string(library) + "_tensor_scale").item<float>() == scale);
    check_tensor(golden, x, library, scales, scale);
  }
  if (golden.has_output("torchao_nots_packed")) check_tensor(golden, x, "torchao_nots", NvFp4Scales::kTorchAo, 1);
}

TEST_CASE("NVFP4 codes and scales are those of Model Optimizer and torchao, bit for bit", "[golden]") {
  int64_t checked = 0;
  for (const auto& manifest : golden_manifests_or_skip("fp8_fp4"))
    for (const GoldenCase& golden : manifest->cases()) {
      INFO(golden.label());
      if (golden.name().starts_with("quirk_")) {
        WARN(golden.label() << " documents a defect of the original: skipped");
        continue;
      }
      if (golden.function() == "NVFP4QTensor.quantize/dequantize; nvfp4_quantize and NVFP4Tensor.dequantize") {
        check_nvfp4(golden);
      } else if (golden.function() == "dtype casts") {
        const at::Tensor x = golden.output("input"), number = x.isnan().logical_not();
        CHECK(from_e2m1(to_e2m1(x)).masked_select(number).equal(golden.output("e2m1_ml").masked_select(number)));
      } else {
        FAIL("unknown function " << golden.function());
      }
      ++checked;
    }
  CHECK(checked > 0);
}

constexpr std::array<double, 8> kLevels = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

// Nearest level, the even code at a tie, sign in bit 3.
int e2m1_by_hand(double x) {
  size_t nearest = 0;
  const auto distance = [&](size_t k) { return std::abs(std::abs(x) - kLevels[k]); };
  for (size_t k = 1; k < 8; ++k)
    if (distance(k) < distance(nearest) || (distance(k) == distance(nearest) && k % 2 == 0)) nearest = k;
  return static_cast<int>(nearest) + (x < 0 ? 8 : 0);
}

TEST_CASE("E2M1 takes the nearest level, the even code at a tie") {
  std::vector<float> inputs = {0, 100, -100, 1e-20F, -1e-20F};
  for (size_t k = 0; k + 1 < 8; ++k)
    for (const double step : {0.0, 0.25, 0.5, 0.75}) {
      const auto x = static_cast<float>(kLevels[k] + step * (kLevels[k + 1] - kLevels[k]));
      for (const float near : {x, std::nextafter(x, 10.0F), std::nextafter(x, -10.0F)}) {
        inputs.push_back(near);
        inputs.push_back(-near);
      }
    }
  const at::Tensor codes = to_e2m1(at::tensor(inputs, at::kFloat));
  const at::Tensor values = from_e2m1(codes);
  for (size_t i = 0; i < inputs.size(); ++i) {
    INFO(inputs[i]);
    const int expected = e2m1_by_hand(inputs[i]);
    CHECK(codes[static_cast<int64_t>(i)].item<int>() == expected);
    const double level = kLevels[static_cast<size_t>(expected % 8)];
    CHECK(values[static_cast<int64_t>(i)].item<double>() == (expected >= 8 ? -level : level));
  }
}

double single(double value) {
  return static_cast<float>(value);
}

// E4M3 by its definition: nearest value, the even byte at a tie.
int e4m3_by_hand(double x) {
  const auto value_of = [](int byte) {
    return byte < 8 ? std::ldexp(byte, -9) : std::ldexp(8 + byte % 8, byte / 8 - 10);
  };
  int nearest = 0;
  for (int byte = 1; byte <= 126; ++byte) {
    const double now = std::abs(x - value_of(byte)), best = std::abs(x - value_of(nearest));
    if (now < best || (now == best && byte % 2 == 0)) nearest = byte;
  }
  return nearest;
}

TEST_CASE("NVFP4 blocks are those of plain loops in double") {
  const auto [heads, tokens, dim] = GENERATE(table<int64_t, int64_t, int64_t>({{1, 1, 16}, {2, 30, 80}}));
  const NvFp4Scales scales = GENERATE(NvFp4Scales::kModelOpt, NvFp4Scales::kTorchAo);
  const float tensor_scale = GENERATE(1.0F, 0.0123F);
  INFO(heads << " heads, " << tokens << " tokens, tensor scale " << tensor_scale);
  at::Tensor x = normals({heads, tokens, dim}, 17);
  x.select(2, 5).add_(25);
  if (tokens > 6) {
    x.select(1, 0).zero_();
    x.select(1, 1).mul_(1e-4);
    x.select(1, 2).mul_(1e-9);
    x.select(1, 3).mul_(1e6);
    x.select(1, 4).fill_(-3);
    x.select(1, 5).copy_((at::arange(dim) % 16 - 8) * 0.75);
  }
  const NvFp4Codec codec(dim, tensor_scale, scales);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const at::Tensor decoded = codec.decode(parts);
  const auto in = x.accessor<float, 3>(), out = decoded.accessor<float, 3>();
  const auto codes = parts[0].accessor<uint8_t, 3>(), stored = parts[1].accessor<uint8_t, 3>();
  const double smallest = scales == NvFp4Scales::kModelOpt ? std::ldexp(1, -9) : std::ldexp(1, -6);
  int64_t other_scales = 0, other_codes = 0, other_values = 0;
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t b = 0; b < dim / 16; ++b) {
        double amax = 0;
        for (int64_t j = 0; j < 16; ++j) amax = std::max(amax, std::abs(static_cast<double>(in[h][t][16 * b + j])));
        double wanted = std::clamp(single(single(amax / 6) / tensor_scale), smallest, 448.0);
        if (amax == 0 && scales == NvFp4Scales::kModelOpt) wanted = 1;
        const int byte = e4m3_by_hand(wanted);
        other_scales += stored[h][t][b] != byte;
        const double scale = byte < 8 ? std::ldexp(byte, -9) : std::ldexp(8 + byte % 8, byte / 8 - 10);
        const double step = single(scale * tensor_scale);
        for (int64_t j = 0; j < 16; ++j) {
          const int64_t d = 16 * b + j;
          const int code = e2m1_by_hand(single(in[h][t][d] / step));
          other_codes += (codes[h][t][d / 2] >> (d % 2 == 0 ? 0 : 4) & 15) != code;
          const double level = kLevels[static_cast<size_t>(code % 8)];
          other_values += out[h][t][d] != static_cast<float>((code >= 8 ? -level : level) * step);
        }
      }
  CHECK(other_scales == 0);
  CHECK(other_codes == 0);
  CHECK(other_values == 0);
  if (!at::hasCUDA()) return;
  const std::vector<at::Tensor> there = codec.encode(x.cuda());
  for (size_t i = 0; i < parts.size(); ++i) CHECK(there[i].cpu().equal(parts[i]));
  CHECK(codec.decode(there).cpu().equal(decoded));
}

// Specification, section 7: within 2 %; 4 bits and 8 for each 16 values.
TEST_CASE("the error of NVFP4 on normal values is the published one") {
  static const at::Tensor x = normals({2, 4096, 128}, 2026);  // 2^20 values
  const float tensor_scale = GENERATE(1.0F, 0.0018F);
  const NvFp4Codec codec(128, tensor_scale, NvFp4Scales::kModelOpt);
  const std::vector<at::Tensor> parts = codec.encode(x);
  CHECK(nmse(x, codec.decode(parts)) == Catch::Approx(9.04e-3).epsilon(.02));
  const int64_t bytes = parts[0].numel() + parts[1].numel();
  CHECK(8.0 * static_cast<double>(bytes) / static_cast<double>(x.numel()) == 4.5);
}

TEST_CASE("NVFP4 refuses NaN, infinity and what has no blocks") {
  const double bad = GENERATE(std::nan(""), HUGE_VAL);
  at::Tensor x = normals({2, 4, 32}, 1);
  x[1][2][3] = bad;
  CHECK_THROWS_WITH(NvFp4Codec(32, 1, NvFp4Scales::kModelOpt).encode(x), ContainsSubstring("NaN or infinity"));
  CHECK_THROWS_WITH(NvFp4Codec(40, 1, NvFp4Scales::kModelOpt), ContainsSubstring("no multiple of 16"));
  CHECK_THROWS_WITH(NvFp4Codec(32, 0, NvFp4Scales::kModelOpt), ContainsSubstring("not above zero"));
  CHECK_THROWS(NvFp4Codec(32, 1, NvFp4Scales::kModelOpt).encode(normals({2, 4, 16}, 1)));
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
  const SchemeEntry& entry() const {
    for (const SchemeEntry& one : scheme_table())
      if (one.name == "nvfp4") return one;
    throw ConfigError("no nvfp4");
  }
};

TEST_CASE_METHOD(Fixture, "nvfp4 stores half a byte a value and a byte for each 16") {
  const int64_t values = 2 * kLayers * kHeads * kTokens * kDim;  // keys and values
  const auto scheme = make_scheme("nvfp4", {});
  ByteLedger ledger;
  filled(*scheme)->account(ledger);
  scheme->account_shared(ledger);
  CHECK(ledger.live(ByteRole::kCodes) == values / 2);
  CHECK(ledger.live(ByteRole::kScales) == values / 16);
  CHECK(ledger.live_bytes() == values / 2 + values / 16);
  CHECK(scheme->nominal_bits(kLayers).k == 4);
}

TEST_CASE_METHOD(Fixture, "nvfp4 takes tensor scales from the sweep, or from largest magnitudes after RoPE") {
  const auto stored = [this](const Settings& settings) {
    const auto cache = filled(*make_scheme("nvfp4", settings));
    const KvView view = cache->read(1);
    return std::pair{decode_runs(view.keys), decode_runs(view.values)};
  };
  const auto expected = [](const at::Tensor& x, float scale, NvFp4Scales scales = NvFp4Scales::kModelOpt) {
    const NvFp4Codec codec(kDim, scale, scales);
    return codec.decode(codec.encode(x));
  };
  const at::Tensor k = rope.apply(trace.k[1], 0), v = trace.v[1];
  CHECK(stored({}).first.equal(expected(k, 1)));
  CHECK(stored({{"k_tensor_scale", "30"}, {"block_scales", "torchao"}})
            .first.equal(expected(k, 30, NvFp4Scales::kTorchAo)));
  CHECK(stored({{"v_tensor_scale", "0.25"}}).second.equal(expected(v, 0.25)));
  float k_amax = 0, v_amax = 0;
  for (uint64_t seed = 1000; seed < 1300; seed += 100) {
    const Trace seen = random_trace(kLayers, kHeads, 256, kDim, seed);
    k_amax = std::max(k_amax, rope.apply(seen.k[1], 0).abs().max().item<float>());
    v_amax = std::max(v_amax, seen.v[1].abs().max().item<float>());
  }
  const auto calibrated = stored(with_random_artifact(entry(), {}, context));
  CHECK(calibrated.first.equal(expected(k, k_amax / (6 * 448))));
  CHECK(calibrated.second.equal(expected(v, v_amax / (6 * 448))));
}

TEST_CASE_METHOD(Fixture, "nvfp4 settings that do not fit are refused by name") {
  const auto refused = [this](const Settings& settings, const std::string& why) {
    INFO(describe("nvfp4", settings));
    CHECK_THROWS_MATCHES(make_scheme("nvfp4", settings)->make_cache(context), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  };
  const std::string artifact = with_random_artifact(entry(), {}, context).at("artifact");
  refused({{"k_tensor_scale", "-1"}}, "nvfp4.k_tensor_scale = -1 is outside");
  refused({{"block_scales", "vllm"}}, "nvfp4.block_scales = 'vllm' is not one of modelopt, torchao");
  refused({{"artifact", artifact}, {"k_tensor_scale", "2"}}, "nvfp4.k_tensor_scale = 2: an artifact says the scales");
  context.kv_heads = 1;
  refused({{"artifact", artifact}}, "the model has 2 layers of 1 kv-heads x 80 dims");
  context.head_dim = 72;
  refused({}, "needs a head dim that is a multiple of 16; the model's is 72");
}

}  // namespace
}  // namespace kvsweep::testing
