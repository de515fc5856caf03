// Contract: what the scheme higgs stores, in bytes written out, and which settings it refuses.
#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "schemes/codec/lattice.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 64, kChannels = kHeads * kDim, kTokens = 300;

struct Fixture {
  CacheContext context{kLayers, kHeads, kDim, at::kFloat, at::kCPU, nullptr, kTokens};
  at::Tensor k = normals({kHeads, kTokens, kDim}, 1), v = normals({kHeads, kTokens, kDim}, 2);

  std::unique_ptr<KvCache> filled(const Settings& settings, int64_t tokens = kTokens) const {
    auto cache = make_scheme("higgs", settings)->make_cache(context);
    for (int64_t layer = 0; layer < kLayers; ++layer)
      cache->append(layer, {k.narrow(1, 0, tokens), v.narrow(1, 0, tokens), 0});
    cache->finish_context();
    return cache;
  }
};

TEST_CASE_METHOD(Fixture, "higgs stores packed codes and a norm for each block of 64 channels") {
  ByteLedger ledger;
  filled({{"k_bits", "3"}})->account(ledger);
  constexpr int64_t kRows = kLayers * (kTokens - 4);  // tokens that are not sink, of all layers
  CHECK(ledger.live(ByteRole::kCodes) == kRows * (kChannels / 2 * 6 / 8 + kChannels / 2 * 4 / 8));  // K 3, V 2 bits
  CHECK(ledger.live(ByteRole::kScales) == kRows * 2 * (kChannels / 64) * 4);                        // K and V
  CHECK(ledger.live(ByteRole::kWindow) == kLayers * 2 * 4 * kChannels * 4);                         // sink
  CHECK(ledger.live_bytes() ==
        ledger.live(ByteRole::kCodes) + ledger.live(ByteRole::kScales) + ledger.live(ByteRole::kWindow));
}

TEST_CASE_METHOD(Fixture, "a context that has been packed no longer holds the room of its exact copy") {
  ByteLedger ledger;
  filled({})->account(ledger);
  // Beside what is live: room for the window of 128 tokens, and for codes up to the expected tokens.
  CHECK(ledger.reserved_bytes() <= ledger.live_bytes() + kLayers * 2 * (128 + 8) * kChannels * 4);
}

TEST_CASE_METHOD(Fixture, "padding to the published block of 1024 is billed") {
  ByteLedger ledger;
  filled({{"hadamard_group", "1024"}, {"norm_type", "fp16"}, {"sink", "0"}})->account(ledger);
  CHECK(ledger.live(ByteRole::kCodes) == kLayers * kTokens * 2 * 1024 / 2 * 4 / 8);  // 512 codes for 192 channels
  CHECK(ledger.live(ByteRole::kScales) == kLayers * kTokens * 2 * 2);
}

TEST_CASE_METHOD(Fixture, "keys are coded before RoPE, all heads of a token together") {
  const std::string bits = GENERATE("2", "3", "4");
  const HiggsCodec codec({2, int64_t{1} << 2 * std::stoll(bits), 64, at::kFloat, true}, kHeads, kDim);
  const auto cache = filled({{"k_bits", bits}, {"v_bits", bits}});
  const KvView view = cache->read(1);
  REQUIRE(view.keys.size() == 2);
  CHECK(view.keys[1].rotation == KeyRotation::kPending);
  const at::Tensor body_k = k.narrow(1, 4, kTokens - 4), body_v = v.narrow(1, 4, kTokens - 4);
  CHECK(view.keys[1].codec->decode(view.keys[1].parts).equal(codec.decode(codec.encode(body_k))));
  CHECK(view.values[1].codec->decode(view.values[1].parts).equal(codec.decode(codec.encode(body_v))));
}

TEST_CASE_METHOD(Fixture, "two bits may be a grid of four dimensions") {
  const HiggsCodec codec({4, 256, 64, at::kFloat, true}, kHeads, kDim);
  const auto cache = filled({{"grid", "EDEN4-256"}, {"sink", "0"}});
  CHECK(decode_runs(cache->read(0).keys).equal(codec.decode(codec.encode(k))));
  CHECK(make_scheme("higgs", {{"grid", "EDEN4-256"}})->nominal_bits(2).k == 2);
}

// Tokens of the sink, coded and waiting after so many: the code's rule, and that of summaries of the paper.
TEST_CASE_METHOD(Fixture, "all that wait are coded at once, or the newest stay") {
  struct Rule {
    std::string rule;
    int64_t tokens, sink, coded, waiting;
  };
  const Rule r = GENERATE(Rule{"flush", 3, 3, 0, 0}, Rule{"flush", 131, 4, 0, 127}, Rule{"flush", 132, 4, 128, 0},
                          Rule{"flush", 300, 4, 296, 0}, Rule{"slide", 131, 4, 0, 127}, Rule{"slide", 133, 4, 1, 128},
                          Rule{"slide", 300, 4, 168, 128});
  INFO(r.rule << ", " << r.tokens << " tokens");
  // Under `slide` it would code what the next token pushes out.
  auto cache = make_scheme("higgs", {{"recent_rule", r.rule}})->make_cache(context);
  for (int64_t layer = 0; layer < kLayers; ++layer)
    cache->append(layer, {k.narrow(1, 0, r.tokens), v.narrow(1, 0, r.tokens), 0});
  if (r.rule == "flush") cache->finish_context();
  int64_t coded = 0, exact = 0;
  for (const KvRun& run : cache->read(0).keys) (run.codec->exact() ? exact : coded) += run.tokens;
  CHECK(coded == r.coded);
  CHECK(exact == r.sink + r.waiting);
}

TEST_CASE("higgs: nominal bits and settings that are refused") {
  const NominalBits bits = make_scheme("higgs", {{"k_bits", "4"}, {"v_bits", "3"}})->nominal_bits(5);
  CHECK(bits.k == 4);
  CHECK(bits.v == 3);
  const auto refused = [](const Settings& settings, const std::string& why) {
    INFO(describe("higgs", settings));
    CHECK_THROWS_MATCHES(make_scheme("higgs", settings), ConfigError, MessageMatches(ContainsSubstring(why)));
  };
  refused({{"k_bits", "1"}}, "higgs.k_bits = 1 is outside [2, 4]");
  refused({{"v_bits", "5"}}, "v_bits");
  refused({{"hadamard_group", "48"}}, "higgs.hadamard_group");
  refused({{"hadamard_group", "2"}}, "power of two from 4");
  refused({{"hadamard_group", "2048"}}, "hadamard_group");
  refused({{"recent", "0"}}, "recent");
  refused({{"grid", "EDEN2-64"}}, "grid");
}

}  // namespace
}  // namespace kvsweep::testing
