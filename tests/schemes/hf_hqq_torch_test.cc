// Contract: what hf_hqq stores, in bytes written out, and which settings it refuses.
#include <ATen/ATen.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "schemes/codec/hqq.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 64, kPrompt = 100, kDecoded = 20;

struct Fixture {
  Rope rope{std::vector<float>(kDim / 2, 0.01F), 1, at::kCPU, 256};
  CacheContext context{kLayers, kHeads, kDim, at::kFloat, at::kCPU, &rope, kPrompt + kDecoded};
  at::Tensor k = normals({kHeads, kPrompt + kDecoded, kDim}, 1), v = normals({kHeads, kPrompt + kDecoded, kDim}, 2);

  std::unique_ptr<KvCache> filled(const Settings& settings) const {
    auto cache = make_scheme("hf_hqq", settings)->make_cache(context);
    for (int64_t layer = 0; layer < kLayers; ++layer)
      cache->append(layer, {k.narrow(1, 0, kPrompt), v.narrow(1, 0, kPrompt), 0});
    for (int64_t t = kPrompt; t < kPrompt + kDecoded; ++t)
      for (int64_t layer = 0; layer < kLayers; ++layer) cache->append(layer, {k.narrow(1, t, 1), v.narrow(1, t, 1), t});
    return cache;
  }
  ByteLedger bytes(const Settings& settings) const {
    ByteLedger ledger;
    filled(settings)->account(ledger);
    return ledger;
  }
};

TEST_CASE_METHOD(Fixture, "hf_hqq stores codes in hqq's slots, two fp16 numbers a group, and new tokens as they came") {
  const ByteLedger ledger = bytes({{"k_bits", "3"}, {"v_bits", "2"}});
  const int64_t rows = kLayers * kHeads;
  // Keys: ten codes in an int32; values: four in a byte.
  CHECK(ledger.live(ByteRole::kCodes) == rows * kPrompt * kDim / 10 * 4 + rows * kPrompt * kDim / 4);
  CHECK(ledger.live(ByteRole::kScales) == 2 * rows * kPrompt * kDim / 64 * 2);
  CHECK(ledger.live(ByteRole::kZeros) == ledger.live(ByteRole::kScales));
  CHECK(ledger.live(ByteRole::kWindow) == 2 * rows * kDecoded * kDim * 4);
}

TEST_CASE_METHOD(Fixture, "hf_hqq keeps its metadata in the type of its arithmetic") {
  const ByteLedger ledger = bytes({{"dtype", "fp32"}, {"group", "32"}, {"k_axis", "0"}, {"residual", "20"}});
  const int64_t values = kLayers * kHeads * kPrompt * kDim;  // the residual is full, and packed with the next token
  CHECK(ledger.live(ByteRole::kCodes) == 2 * values * 4 / 8);
  CHECK(ledger.live(ByteRole::kScales) == 2 * values / 32 * 4);
  CHECK(ledger.live(ByteRole::kWindow) == 2 * kLayers * kHeads * kDecoded * kDim * 4);
}

TEST_CASE_METHOD(Fixture, "hf_hqq packs keys after RoPE, each layer with its bits") {
  ParamValue map{"4", 0, {{1, 1, "8", 0}}};
  Params params("hf_hqq", "", {{"k_bits", map}});
  std::unique_ptr<Scheme> scheme;
  for (const SchemeEntry& entry : scheme_table())
    if (entry.name == "hf_hqq") scheme = entry.make(params);
  CHECK(scheme->nominal_bits(2).k == (4 + 8) / 2);
  const auto cache = scheme->make_cache(context);
  for (int64_t layer = 0; layer < kLayers; ++layer) cache->append(layer, {k, v, 0});
  cache->finish_context();
  for (const int64_t layer : {0, 1}) {
    const HqqCodec codec({layer == 0 ? 4.0 : 8.0, GroupCut::kConsecutive, 64, at::kHalf}, kHeads, kDim);
    const KvView view = cache->read(layer);
    CHECK(view.keys[0].rotation == KeyRotation::kApplied);
    CHECK(codec.decode(view.keys[0].parts).equal(codec.decode(codec.encode(rope.apply(k, 0)))));
  }
}

TEST_CASE("hf_hqq's nominal bits are those of its slots") {
  const NominalBits bits = make_scheme("hf_hqq", {{"k_bits", "3"}, {"v_bits", "1"}})->nominal_bits(2);
  CHECK(bits.k == Catch::Approx(3.2));
  CHECK(bits.v == 1);
}

TEST_CASE_METHOD(Fixture, "hf_hqq decodes hard values to finite ones at all of its bits") {
  const std::string bits = GENERATE("1", "2", "3", "4", "8"), axis = GENERATE("0", "1"),
                    dtype = GENERATE("fp16", "bf16");
  INFO(bits << " bits, axis " << axis << ", " << dtype);
  k = k * 1e6;
  v = v + 30000;
  const auto cache = filled({{"k_bits", bits}, {"v_bits", bits}, {"k_axis", axis}, {"v_axis", axis}, {"dtype", dtype}});
  CHECK(decode_runs(cache->read(0).keys).isfinite().all().item<bool>());
  CHECK(decode_runs(cache->read(0).values).isfinite().all().item<bool>());
}

TEST_CASE_METHOD(Fixture, "hf_hqq refuses what it lacks by name") {
  const auto refused = [this](const Settings& settings, const std::string& why) {
    INFO(describe("hf_hqq", settings));
    CHECK_THROWS_MATCHES(make_scheme("hf_hqq", settings)->make_cache(context), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  };
  refused({{"k_bits", "5"}}, "hf_hqq.k_bits = '5' is not one of 1, 2, 3, 4, 8");
  refused({{"v_axis", "-1"}}, "hf_hqq.v_axis = '-1' is not one of 0, 1");
  refused({{"group", "2000"}}, "hf_hqq.group = 2000 is outside [2, 1024]");
  refused({{"residual", "-1"}}, "hf_hqq.residual");
}

}  // namespace
}  // namespace kvsweep::testing
