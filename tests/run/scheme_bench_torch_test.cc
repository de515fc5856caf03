// Contract: a bench times every scheme on the same keys and values and states bytes of live tensors.
#include "harness/run/scheme_bench.h"

#include <c10/core/InferenceMode.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/support/torch/scheme_probe.h"
#include "tests/support/torch/tiny_model.h"

namespace kvsweep::testing {
namespace {

TEST_CASE("a bench has a cost for every scheme, in order, with its bits") {
  const c10::InferenceMode no_autograd;
  const Llama llama = tiny_llama();
  const auto full = make_scheme("full", {}), uniform = make_scheme("uniform", {{"k_bits", "2"}, {"group", "16"}});
  const BenchResult result = bench_schemes(llama, {full.get(), uniform.get()}, 96, 2);
  CHECK(result.values == 2 * 2 * 2 * 96 * 16);  // keys and values × layers × heads × tokens × dims
  CHECK(result.prefill_ms > 0);
  REQUIRE(result.costs.size() == 2);
  CHECK(result.costs[0].effective_bits == 32);
  CHECK(result.costs[1].effective_bits == (2 + 4) / 2.0 + 2 * 16 / 16.0);  // codes + fp16 scale and zero a group
  for (const SchemeCost& cost : result.costs) {
    CHECK(cost.encode_ms > 0);
    CHECK(cost.decode_ms > 0);
    CHECK(cost.shared_bytes == 0);
  }
}

TEST_CASE("a bench of more tokens than the model has positions is refused") {
  const c10::InferenceMode no_autograd;
  CHECK_THROWS_MATCHES(bench_schemes(tiny_llama(), {}, 513, 1), ConfigError,
                       Catch::Matchers::MessageMatches(Catch::Matchers::ContainsSubstring("513") &&
                                                       Catch::Matchers::ContainsSubstring("512")));
}

}  // namespace
}  // namespace kvsweep::testing
