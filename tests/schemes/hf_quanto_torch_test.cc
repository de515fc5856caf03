// Contract: what hf_quanto stores, in bytes written out, and which settings it refuses.
#include <ATen/ATen.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "schemes/codec/quanto.h"
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
    auto cache = make_scheme("hf_quanto", settings)->make_cache(context);
    for (int64_t layer = 0; layer < kLayers; ++layer)
      cache->append(layer, {k.narrow(1, 0, kPrompt), v.narrow(1, 0, kPrompt), 0});
    cache->finish_context();
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

TEST_CASE_METHOD(Fixture, "hf_quanto stores packed codes, two fp16 numbers a group, and new tokens as they came") {
  const ByteLedger ledger = bytes({{"k_bits", "4"}, {"v_bits", "2"}});
  const int64_t rows = kLayers * kHeads;
  CHECK(ledger.live(ByteRole::kCodes) == rows * kPrompt * kDim * (4 + 2) / 8);
  CHECK(ledger.live(ByteRole::kScales) == 2 * rows * kPrompt * kDim / 64 * 2);  // K and V, one for 64 values, fp16
  CHECK(ledger.live(ByteRole::kZeros) == ledger.live(ByteRole::kScales));
  CHECK(ledger.live(ByteRole::kWindow) == 2 * rows * kDecoded * kDim * 4);  // float32, as the harness computes
  CHECK(ledger.live_bytes() ==
        ledger.live(ByteRole::kCodes) + 2 * ledger.live(ByteRole::kScales) + ledger.live(ByteRole::kWindow));
}

TEST_CASE_METHOD(Fixture, "hf_quanto packs everything anew once the residual is full") {
  // 100 tokens of prompt and 16 of the residual are packed together before the 17th.
  const ByteLedger ledger = bytes({{"residual", "16"}, {"group", "128"}, {"dtype", "fp32"}, {"k_axis", "-1"}});
  const int64_t rows = kLayers * kHeads, packed = kPrompt + 16;
  CHECK(ledger.live(ByteRole::kCodes) == 2 * rows * packed * kDim * 4 / 8);
  const int64_t values = rows * packed * kDim;
  const int64_t value_groups = values / 128;                                    // 11136 values a layer are 87 groups
  const int64_t key_groups = kLayers * kDim * ((kHeads * packed + 127) / 128);  // 348 rows: 128 + 128 + 92
  CHECK(ledger.live(ByteRole::kScales) == (value_groups + key_groups) * 4);
  CHECK(ledger.live(ByteRole::kWindow) == 2 * rows * (kDecoded - 16) * kDim * 4);
}

TEST_CASE_METHOD(Fixture, "hf_quanto packs keys after RoPE") {
  const QuantoCodec codec({4, GroupCut::kConsecutive, 64, at::kHalf}, kHeads, kDim);
  const auto cache = filled({});
  const KvView view = cache->read(1);
  REQUIRE(view.keys.size() == 2);
  CHECK(view.keys[0].rotation == KeyRotation::kApplied);
  const at::Tensor prompt = rope.apply(k, 0).narrow(1, 0, kPrompt);
  CHECK(codec.decode(view.keys[0].parts).equal(codec.decode(codec.encode(prompt))));
  CHECK(view.keys[1].codec->decode(view.keys[1].parts).equal(rope.apply(k, 0).narrow(1, kPrompt, kDecoded)));
  CHECK(view.values[1].codec->decode(view.values[1].parts).equal(v.narrow(1, kPrompt, kDecoded)));
}

TEST_CASE("hf_quanto's nominal bits are those of its codes") {
  const NominalBits bits = make_scheme("hf_quanto", {{"k_bits", "2"}})->nominal_bits(2);
  CHECK(bits.k == 2);
  CHECK(bits.v == 4);
}

TEST_CASE_METHOD(Fixture, "hf_quanto refuses what it lacks by name") {
  const auto refused = [this](const Settings& settings, const std::string& why) {
    INFO(describe("hf_quanto", settings));
    CHECK_THROWS_MATCHES(make_scheme("hf_quanto", settings)->make_cache(context), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  };
  refused({{"k_bits", "3"}}, "hf_quanto.k_bits = '3' is not one of 2, 4");
  refused({{"v_axis", "1"}}, "hf_quanto.v_axis = '1' is not one of 0, -1");
  refused({{"group", "1"}}, "hf_quanto.group = 1 is outside [2, 1024]");
  refused({{"dtype", "fp64"}}, "hf_quanto.dtype");
  refused({{"nbits", "4"}}, "hf_quanto.nbits is not a parameter");
}

}  // namespace
}  // namespace kvsweep::testing
