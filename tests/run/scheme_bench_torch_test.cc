// Contract: a bench times every scheme on the same keys and values, states bytes of live tensors and which attention it
// timed. Times themselves are measured, not tested.
#include "harness/run/scheme_bench.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

#include "harness/core/error.h"
#include "harness/run/bit_factorial.h"
#include "harness/run/one_pass_bench.h"
#include "harness/run/step_bench.h"
#include "tests/support/torch/scheme_probe.h"
#include "tests/support/torch/tiny_model.h"

namespace kvsweep::testing {
namespace {

constexpr int64_t kValues = 2 * 2 * 2 * 96 * 16;  // keys and values × layers × heads × tokens × dims of tiny_llama()

bool ordered(const Timing& time) {
  return 0 < time.low && time.low <= time.median && time.median <= time.high;
}

TEST_CASE("a timing is median and quartiles") {
  const Timing odd = timing_of({5, 1, 3, 2, 4}), even = timing_of({4, 1, 3, 2}), one = timing_of({7});
  CHECK(odd.median == 3);
  CHECK(odd.low == 2);
  CHECK(odd.high == 4);
  CHECK(even.median == 2.5);
  CHECK(even.low == 1.75);
  CHECK(even.high == 3.25);
  CHECK(one.low == 7);
  CHECK(one.high == 7);
}

TEST_CASE("an encode bench has a cost for every scheme, in order, with its bytes") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  const auto full = make_scheme("full", {}), uniform = make_scheme("uniform", {{"k_bits", "2"}, {"group", "16"}});
  const BenchContext context(llama, 128, 0, "--tokens");
  const EncodeBench result = bench_encode(context, {full.get(), uniform.get()}, 96, 2);
  CHECK(result.tokens == 96);
  CHECK(result.values == kValues);
  CHECK(ordered(result.prefill_ms));
  REQUIRE(result.costs.size() == 2);
  CHECK(result.costs[0].bytes.bits == 32);
  CHECK(result.costs[1].bytes.bits == (2 + 4) / 2.0 + 2 * 16 / 16.0);  // codes + fp16 scale and zero a group
  CHECK(result.costs[1].bytes.key_bits == 2 + 2);
  CHECK(result.costs[1].bytes.value_bits == 4 + 2);
  for (const EncodeCost& cost : result.costs) {
    CHECK(ordered(cost.encode_ms));
    CHECK(ordered(cost.read_ms));
    CHECK(cost.bytes.shared == 0);
    CHECK(cost.bytes.live == static_cast<int64_t>(cost.bytes.bits * kValues / 8));
    CHECK(cost.bytes.reserved >= cost.bytes.live);
    CHECK(cost.bytes.transient > 0);  // keys after RoPE, of one layer
    CHECK(cost.bytes.transient < 16 * 2 * 96 * 16 * 4);
  }
}

TEST_CASE("a decode bench states which attention it timed, and what it took beside the cache") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  const auto full = make_scheme("full", {}), uniform = make_scheme("uniform", {{"group", "16"}});
  const BenchContext context(llama, 96, 0, "--tokens");
  const DecodeBench result = bench_decode(context, {full.get(), uniform.get()}, 64, 2);
  CHECK(result.tokens == 64);
  REQUIRE(result.costs.size() == 2);
  for (const DecodeCost& cost : result.costs) {
    CHECK(ordered(cost.attend_ms));
    CHECK(cost.ns_per_token_head == Catch::Approx(1e6 * cost.attend_ms.median / (2 * 2 * 64)));
    CHECK(cost.bytes.transient > 0);
  }
}

TEST_CASE("a context is the beginning of the longest one") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  const BenchContext longer(llama, 96, 0, "--tokens"), shorter(llama, 40, 0, "--tokens");
  for (int64_t layer = 0; layer < 2; ++layer) {
    CHECK(at::allclose(longer.slab(layer, 40).k, shorter.slab(layer, 40).k, 1e-4, 1e-5));
    CHECK(at::allclose(longer.slab(layer, 40).v, shorter.slab(layer, 40).v, 1e-4, 1e-5));
    CHECK(at::equal(longer.query(layer), shorter.query(layer)));
  }
}

TEST_CASE("a bench of more tokens than the model has positions is refused") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  using Catch::Matchers::ContainsSubstring;
  CHECK_THROWS_MATCHES(
      BenchContext(llama, 513, 0, "--tokens"), ConfigError,
      Catch::Matchers::MessageMatches(ContainsSubstring("--tokens 513") && ContainsSubstring("allows 512")));
  CHECK_THROWS_MATCHES(BenchContext(llama, 510, 4, "--tokens"), ConfigError,
                       Catch::Matchers::MessageMatches(ContainsSubstring("--tokens 510 and 4 decoded")));
}

TEST_CASE("a latency bench fits a line to every scheme and finds where it meets full precision") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  const auto uniform = make_scheme("uniform", {{"group", "16"}}), full = make_scheme("full", {});
  const BenchContext context(llama, 128, kStepTokens, "--tokens");
  const std::vector<ItlCost> costs = bench_itl(context, {uniform.get(), full.get()}, {32, 128}, 3);
  REQUIRE(costs.size() == 2);
  for (const ItlCost& cost : costs) {
    REQUIRE(cost.lengths.size() == 2);
    CHECK(cost.lengths[1].tokens == 128);
    for (const ItlLength& length : cost.lengths) {
      CHECK(ordered(length.itl_ms));
      CHECK(ordered(length.attend_ms));
      CHECK(length.attend_ms.median < length.itl_ms.median);
    }
    CHECK(cost.itl.coefficients.size() == 2);
    CHECK(cost.attend.standard_error(1) >= 0);
  }
  CHECK(costs[0].bytes.bits == 4 + 2);
  CHECK(std::isnan(costs[1].break_even));  // a line does not meet itself
}

TEST_CASE("a concurrency bench fits sequences into a budget by their reserved bytes and caps the batch") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  const auto full = make_scheme("full", {}), uniform = make_scheme("uniform", {{"k_bits", "4"}, {"group", "16"}});
  const BenchContext context(llama, 96, kStepTokens, "--tokens");
  const int64_t budget = 200000;
  const auto costs = bench_concurrency(context, {full.get(), uniform.get()}, 96, budget, 5, 2);
  REQUIRE(costs.size() == 2);
  // 100 tokens of 2 layers × 2 heads × 16 dims × keys and values: 12,800 values, in float32 and at 6 bits.
  CHECK(costs[0].bytes_per_sequence >= 12800 * 4);
  CHECK(costs[1].bytes_per_sequence >= 12800 * 6 / 8);
  CHECK(costs[1].bytes_per_sequence < 12800 * 2);
  for (const ConcurrencyCost& cost : costs) {
    CHECK(cost.sequences == budget / cost.bytes_per_sequence);
    CHECK(cost.rows == std::min<int64_t>(5, cost.sequences));
    CHECK(ordered(cost.step_ms));
    CHECK(cost.tokens_per_second == Catch::Approx(1000 * static_cast<double>(cost.rows) / cost.step_ms.median));
  }
  CHECK(costs[0].rows == 3);
  CHECK(costs[1].rows == 5);
  const auto none = bench_concurrency(context, {full.get()}, 96, 1000, 5, 1);
  CHECK(none[0].sequences == 0);
  CHECK(none[0].rows == 0);
}

TEST_CASE("the factorial covers every pair of bits, full precision on a side is that side of the full scheme") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  const BenchContext context(llama, 96, kStepTokens, "--tokens");
  const auto full = make_scheme("full", {}), uniform = make_scheme("uniform", {{"k_bits", "4"}, {"group", "16"}});
  const auto mixed = mixed_bits(kFullBits, 4, 16);
  CHECK_FALSE(mixed->traits().lossless);
  CHECK(mixed_bits(kFullBits, kFullBits, 16)->traits().lossless);
  const auto a = context.fill(*mixed, 96, 96), b = context.fill(*full, 96, 96), c = context.fill(*uniform, 96, 96);
  CHECK(at::equal(decode_runs(a->read(1).keys), decode_runs(b->read(1).keys)));
  CHECK(at::equal(decode_runs(a->read(1).values), decode_runs(c->read(1).values)));
  CHECK(at::equal(lossy_tokens(a->read(1).keys), at::zeros({96}, at::kBool)));
  const CompressedFrom from = mixed->compressed_from(90, 96);
  CHECK(from.keys.min().item<int64_t>() == kNeverCompressed);
  CHECK(at::equal(from.values, uniform->compressed_from(90, 96).values));

  const BitFactorial result = bench_factorial(context, {16, 96}, 16, 1);
  REQUIRE(result.points.size() == 16);
  CHECK(result.points[1].k_bits == 16);
  CHECK(result.points[1].v_bits == 8);
  for (const BitFactorial::Point& point : result.points) {
    const auto stored = [](int64_t bits) { return static_cast<double>(bits == kFullBits ? 32 : bits + 2); };
    CHECK(point.cost.bytes.key_bits == stored(point.k_bits));
    CHECK(point.cost.bytes.value_bits == stored(point.v_bits));
  }
  CHECK(result.itl.coefficients.size() == 3);
  CHECK(result.attend.difference_error(1, 2) > 0);
}

TEST_CASE("a text scored in one pass and token by token has one likelihood and two times") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  const std::vector<int32_t> tokens = random_tokens(150, 97, 3);
  const auto full = make_scheme("full", {});
  const auto windowed = make_scheme("uniform", {{"k_bits", "8"}, {"v_bits", "8"}, {"group", "16"}, {"window", "8"}});
  const auto repacked = make_scheme("hf_quanto", {{"group", "16"}, {"residual", "32"}});  // has no one-pass form
  for (const Scheme* scheme : {full.get(), windowed.get(), repacked.get()}) {
    const OnePassCost cost = bench_one_pass(llama, *scheme, tokens);
    CHECK(cost.scored == 149);
    CHECK(cost.one_pass_ms > 0);
    CHECK(cost.streamed_ms > 0);
    CHECK(std::abs(cost.mean_difference) < 1e-3);  // a code may fall on the other side of a border
    CHECK(cost.largest_difference >= std::abs(cost.mean_difference));
  }
  CHECK(bench_one_pass(llama, *full, tokens).largest_difference < 2e-5);
}

}  // namespace
}  // namespace kvsweep::testing
