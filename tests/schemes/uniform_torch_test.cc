// Contract: what full and uniform store, in bytes written out, and which settings they refuse.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "schemes/codec/affine.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 128, kTokens = 100;

struct Fixture {
  Rope rope{std::vector<float>(kDim / 2, 0.01F), 1, at::kCPU, 256};
  CacheContext context{kLayers, kHeads, kDim, at::kFloat, at::kCPU, &rope, kTokens};
  at::Tensor k = normals({kHeads, kTokens, kDim}, 1), v = normals({kHeads, kTokens, kDim}, 2);

  std::unique_ptr<KvCache> filled(const std::string& name, const Settings& settings) const {
    auto cache = make_scheme(name, settings)->make_cache(context);
    for (int64_t layer = 0; layer < kLayers; ++layer) cache->append(layer, {k, v, 0});
    return cache;
  }
  ByteLedger bytes(const std::string& name, const Settings& settings) const {
    ByteLedger ledger;
    filled(name, settings)->account(ledger);
    return ledger;
  }
};

TEST_CASE_METHOD(Fixture, "full keeps four bytes for every value and reserves them once") {
  const ByteLedger ledger = bytes("full", {});
  CHECK(ledger.live(ByteRole::kWindow) == 2 * kLayers * kHeads * kTokens * kDim * 4);  // K and V
  CHECK(ledger.live_bytes() == ledger.live(ByteRole::kWindow));
  CHECK(ledger.reserved_bytes() == ledger.live_bytes());
}

TEST_CASE_METHOD(Fixture, "full gives back keys after RoPE and values as they came") {
  const auto cache = filled("full", {});
  const KvView view = cache->read(1);
  CHECK(view.keys[0].rotation == KeyRotation::kApplied);
  CHECK(decode_runs(view.keys).equal(rope.apply(k, 0)));
  CHECK(decode_runs(view.values).equal(v));
}

TEST_CASE_METHOD(Fixture, "full keeps bfloat16 in two bytes") {
  context.dtype = at::kBFloat16;
  k = k.to(at::kBFloat16);
  v = v.to(at::kBFloat16);
  CHECK(bytes("full", {}).live_bytes() == 2 * kLayers * kHeads * kTokens * kDim * 2);
  CHECK(decode_runs(filled("full", {})->read(0).values).equal(v.to(at::kFloat)));
}

TEST_CASE_METHOD(Fixture, "uniform per token stores packed codes and two fp16 numbers a group") {
  const ByteLedger ledger = bytes("uniform", {{"k_bits", "3"}, {"v_bits", "2"}, {"k_group", "64"}, {"v_group", "32"}});
  const int64_t rows = kLayers * kHeads * kTokens;  // tokens of all heads and layers
  CHECK(ledger.live(ByteRole::kCodes) == rows * (kDim * 3 / 8 + kDim * 2 / 8));
  CHECK(ledger.live(ByteRole::kScales) == rows * (kDim / 64 + kDim / 32) * 2);
  CHECK(ledger.live(ByteRole::kZeros) == ledger.live(ByteRole::kScales));
  CHECK(ledger.live(ByteRole::kWindow) == 0);
}

TEST_CASE_METHOD(Fixture, "uniform per channel keeps the tokens of an unfilled group exact") {
  const ByteLedger ledger = bytes("uniform", {{"k_axis", "channel"}, {"group", "32"}, {"metadata", "fp32"}});
  constexpr int64_t kGroups = kTokens / 32, kTail = kTokens % 32;  // 3 groups, 4 tokens
  const int64_t rows = kLayers * kHeads;
  CHECK(ledger.live(ByteRole::kCodes) == rows * (kGroups * 32 + kTokens) * kDim * 4 / 8);
  CHECK(ledger.live(ByteRole::kScales) == rows * (kGroups * kDim + kTokens * kDim / 32) * 4);
  CHECK(ledger.live(ByteRole::kWindow) == rows * kTail * kDim * 4);
}

TEST_CASE_METHOD(Fixture, "sink and window stay exact; symmetric codes have no zero") {
  const ByteLedger ledger = bytes("uniform", {{"symmetric", "true"}, {"sink", "4"}, {"window", "20"}});
  const int64_t rows = 2 * kLayers * kHeads;  // K and V
  CHECK(ledger.live(ByteRole::kWindow) == rows * (4 + 20) * kDim * 4);
  CHECK(ledger.live(ByteRole::kCodes) == rows * (kTokens - 24) * kDim * 4 / 8);
  CHECK(ledger.live(ByteRole::kScales) == rows * (kTokens - 24) * kDim / 64 * 2);
  CHECK(ledger.live(ByteRole::kZeros) == 0);
  const auto cache = filled("uniform", {{"sink", "4"}, {"window", "20"}});
  const KvView view = cache->read(0);
  REQUIRE(view.values.size() == 3);
  CHECK(view.values[0].codec->decode(view.values[0].parts).equal(v.narrow(1, 0, 4)));
  CHECK(view.values[2].codec->decode(view.values[2].parts).equal(v.narrow(1, 80, 20)));
}

TEST_CASE_METHOD(Fixture, "uniform compresses keys after RoPE, or before it and leaves the rotation to attention") {
  const AffineCodec codec(AffineOptions{}, kDim);
  const auto rotated = filled("uniform", {}), pending = filled("uniform", {{"k_rope", "before"}});
  const KvView after = rotated->read(0), before = pending->read(0);
  CHECK(after.keys[0].rotation == KeyRotation::kApplied);
  CHECK(before.keys[0].rotation == KeyRotation::kPending);
  CHECK(decode_runs(after.keys).equal(codec.decode(codec.encode(rope.apply(k, 0)))));
  CHECK(decode_runs(before.keys).equal(codec.decode(codec.encode(k))));
  CHECK(decode_runs(after.values).equal(codec.decode(codec.encode(v))));
}

TEST_CASE_METHOD(Fixture, "a side of 16 bits stays as it came, in every layer or in some") {
  const ByteLedger keys = bytes("uniform", {{"k_bits", "16"}, {"v_bits", "2"}});
  const int64_t rows = kLayers * kHeads * kTokens;
  CHECK(keys.live(ByteRole::kWindow) == rows * kDim * 4);
  CHECK(keys.live(ByteRole::kCodes) == rows * kDim * 2 / 8);
  const auto exact = filled("uniform", {{"k_bits", "16"}, {"v_bits", "2"}});
  CHECK(decode_runs(exact->read(0).keys).equal(rope.apply(k, 0)));
  const auto scheme = make_scheme("uniform", {{"k_bits", "16"}, {"v_bits", "2"}});
  CHECK(scheme->nominal_bits(2).k == 16);
  CHECK(scheme->compressed_from(kTokens, kTokens).keys.min().item<int64_t>() == kNeverCompressed);
  CHECK(scheme->compressed_from(kTokens, kTokens).values.max().item<int64_t>() < kTokens);
  CHECK(!scheme->traits().lossless);
  CHECK(make_scheme("uniform", {{"k_bits", "16"}, {"v_bits", "16"}})->traits().lossless);
  Params params("uniform", "sweep.yaml", {{"k_bits", {"16", 1, {}}}, {"v_bits", {"16", 1, {{1, 1, "2", 1}}}}});
  const auto entry = std::find_if(scheme_table().begin(), scheme_table().end(),
                                  [](const SchemeEntry& one) { return one.name == "uniform"; });
  const auto some = entry->make(params);
  CHECK(!some->traits().lossless);
  CHECK(some->nominal_bits(2).v == 9);
  const auto cache = some->make_cache(context);
  for (int64_t layer = 0; layer < kLayers; ++layer) cache->append(layer, {k, v, 0});
  CHECK(decode_runs(cache->read(0).values).equal(v));
  CHECK(!decode_runs(cache->read(1).values).equal(v));
}

TEST_CASE("nominal bits are those of the settings") {
  CHECK(make_scheme("full", {})->nominal_bits(2).k == 16);
  CHECK(make_scheme("uniform", {})->nominal_bits(2).k == 4);
  const NominalBits bits = make_scheme("uniform", {{"k_bits", "8"}, {"v_bits", "3"}})->nominal_bits(2);
  CHECK(bits.k == 8);
  CHECK(bits.v == 3);
}

TEST_CASE_METHOD(Fixture, "settings that do not fit are refused by name") {
  const auto refused = [this](const Settings& settings, const std::string& why) {
    INFO(describe("uniform", settings));
    CHECK_THROWS_MATCHES(make_scheme("uniform", settings)->make_cache(context), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  };
  refused({{"k_bits", "9"}}, "1 to 8 bits, or 16: exact");
  refused({{"v_bits", "0"}}, "v_bits");
  refused({{"k_axis", "tokens"}}, "k_axis");
  refused({{"symmetric", "true"}, {"v_bits", "1"}}, "v_bits");
  refused({{"k_group", "48"}}, "uniform.k_group = 48 does not divide the model's head dim 128");
  refused({{"group", "256"}, {"k_axis", "channel"}}, "uniform.v_group = 256");
  refused({{"grup", "32"}}, "group");
}

TEST_CASE_METHOD(Fixture, "a slab that does not follow is refused") {
  const auto cache = filled("uniform", {});
  CHECK_THROWS_WITH(cache->append(0, {k, v, kTokens + 1}), ContainsSubstring("does not follow"));
  CHECK_THROWS(cache->append(kLayers, {k, v, kTokens}));
  CHECK_THROWS(cache->append(0, {k, v.narrow(1, 0, 3), kTokens}));
}

}  // namespace
}  // namespace kvsweep::testing
