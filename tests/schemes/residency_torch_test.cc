// Oracle: published residency rules, token counts after T tokens as the originals give them.
#include "schemes/parts/residency.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "harness/core/scheme.h"

namespace kvsweep {
namespace {

constexpr int64_t kR = 128;
const Residency kKiviKeys{0, 1, kR};
const Residency kKiviValues{0, kR + 1, 1};

TEST_CASE("KIVI holds the counts that its cache shows after each step") {
  struct Count {
    int64_t tokens, k_compressed, v_compressed;
  };
  const Count count =
      GENERATE(Count{1, 0, 0}, Count{31, 0, 0}, Count{127, 0, 0}, Count{128, 128, 0}, Count{129, 128, 1},
               Count{255, 128, 127}, Count{256, 256, 128}, Count{300, 256, 172}, Count{1000, 896, 872});
  INFO(count.tokens << " tokens");
  // What is left after a step is what the next token finds beside itself.
  CHECK(kKiviKeys.compressed_end(count.tokens + 1) == count.k_compressed);
  CHECK(kKiviValues.compressed_end(count.tokens + 1) == count.v_compressed);
}

TEST_CASE("published masks follow from compressed_from") {
  struct Case {
    const char* name;
    Residency residency;
    bool (*compressed)(int64_t t, int64_t i);
  };
  const Case c =
      GENERATE(Case{"KIVI keys", kKiviKeys, [](int64_t t, int64_t i) { return t < kR * (i / kR); }},
               Case{"KIVI values", kKiviValues, [](int64_t t, int64_t i) { return t < i - kR; }},
               Case{"SKVQ", {5, 128, 1}, [](int64_t t, int64_t i) { return 5 <= t && t < i + 1 - 128; }},
               Case{"per token, nothing kept", {0, 0, 1}, [](int64_t t, int64_t i) { return t <= i; }},
               Case{"groups of 32 tokens", {0, 0, 32}, [](int64_t t, int64_t i) { return t < (i + 1) / 32 * 32; }});
  INFO(c.name);
  constexpr int64_t kTokens = 600;
  const at::Tensor from = c.residency.compressed_from(0, kTokens);
  int64_t wrong = 0;
  for (int64_t i = 0; i < kTokens; ++i)
    for (int64_t t = 0; t <= i; ++t) {
      const bool by_end = t >= c.residency.sink && t < c.residency.compressed_end(i + 1);
      const bool by_from = from.const_data_ptr<int64_t>()[t] <= i;
      if (by_end != c.compressed(t, i) || by_from != c.compressed(t, i)) ++wrong;
    }
  CHECK(wrong == 0);
}

TEST_CASE("SKVQ moves its oldest window token out at 134 tokens") {
  const Residency skvq{5, 128, 1};
  CHECK(skvq.compressed_end(5) == 5);
  CHECK(skvq.compressed_end(133) == 5);
  CHECK(skvq.compressed_end(134) == 6);
}

TEST_CASE("AQUA-KV compresses its whole buffer once 128 tokens wait") {
  const Residency aqua{4, 0, 128, true};
  // Chunks of 32 tokens; (compressed, buffer) after each, as the next chunk finds it.
  const std::vector<std::pair<int64_t, int64_t>> expected = {{0, 28},   {0, 60},   {0, 92},   {0, 124}, {156, 0},
                                                             {156, 32}, {156, 64}, {156, 96}, {284, 0}};
  int64_t end = 0, tokens = 0;
  for (const auto& [compressed, buffer] : expected) {
    end = aqua.next_end(end, tokens, tokens + 32);
    tokens += 32;
    const int64_t found = aqua.next_end(end, tokens, tokens + 1);
    INFO(tokens << " tokens");
    CHECK(found - 4 == compressed);
    CHECK(tokens - found == buffer);
  }
  CHECK(aqua.next_end(aqua.next_end(0, 0, 131), 131, 132) == 4);
  CHECK(aqua.next_end(aqua.next_end(0, 0, 132), 132, 133) == 132);
}

TEST_CASE("AQUA-KV after a prompt of at least 132 tokens compresses by blocks of decoded tokens") {
  const int64_t prompt = GENERATE(132, 300);
  const Residency aqua{4, 0, 128, true};
  const at::Tensor from = aqua.compressed_from(prompt, 700);
  int64_t wrong = 0;
  for (int64_t i = prompt; i < 700; ++i)
    for (int64_t t = 0; t <= i; ++t)
      wrong += (from.const_data_ptr<int64_t>()[t] <= i) != (4 <= t && t < prompt + 128 * ((i - prompt) / 128));
  CHECK(wrong == 0);
}

TEST_CASE("a residency without sense is refused") {
  CHECK_THROWS((Residency{-1, 0, 1}.check()));
  CHECK_THROWS((Residency{0, -1, 1}.check()));
  CHECK_THROWS((Residency{0, 0, 0}.check()));
  CHECK_THROWS((Residency{0, 1, 128, true}.check()));
}

}  // namespace
}  // namespace kvsweep
