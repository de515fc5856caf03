// contract: the model runner's prefill and step are one model, however tokens are batched or cut.
#include "models/llama.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <limits>

#include "harness/core/error.h"
#include "tests/support/torch/exact_cache.h"
#include "tests/support/torch/tiny_model.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::ExactCache;
using testing::random_tokens;
using testing::tiny_config;
using testing::tiny_configs;
using testing::tiny_llama;
using testing::TinyWeights;

namespace {

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return (a - b).abs().max().item<double>();
}

std::vector<int64_t> ones(size_t count) {
  return std::vector<int64_t>(count, 1);
}

at::Tensor prefill_all(const Llama& llama, const std::vector<int32_t>& tokens) {
  return llama.prefill(tokens, nullptr, static_cast<int64_t>(tokens.size()));
}

// Hidden states of `tokens` fed to one row from position 0.
at::Tensor step_alone(const Llama& llama, KvCache& cache, const std::vector<int32_t>& tokens,
                      const std::vector<int64_t>& slabs, int64_t position = 0) {
  std::vector<Row> rows = {{.cache = &cache, .tokens = tokens, .position = position, .slabs = slabs}};
  return llama.step(rows);
}

}  // namespace

TEST_CASE("decoding token by token gives the hidden states and logits of one prefill") {
  const LlamaConfig config = GENERATE(from_range(tiny_configs()));
  INFO("heads " << config.heads << "/" << config.kv_heads << " D " << config.head_dim);
  const Llama llama = tiny_llama(config);
  const auto tokens = random_tokens(37, config.vocab, 3);
  const at::Tensor expected = prefill_all(llama, tokens);
  ExactCache cache(llama.cache_context(37));
  std::vector<at::Tensor> steps;
  for (size_t i = 0; i < tokens.size(); ++i)
    steps.push_back(step_alone(llama, cache, {tokens[i]}, {1}, static_cast<int64_t>(i)));
  const at::Tensor stepped = at::cat(steps);
  CHECK(largest_difference(stepped, expected) < 1e-4);
  CHECK(largest_difference(llama.logits(stepped), llama.logits(expected)) < 1e-4);
}

TEST_CASE("an exact cache gives the same states however a row is cut into slabs") {
  const Llama llama = tiny_llama();
  const auto tokens = random_tokens(24, 97, 4);
  const auto slabs = GENERATE(std::vector<int64_t>{24}, std::vector<int64_t>{1, 22, 1}, std::vector<int64_t>{7, 7, 10});
  const auto rotation = GENERATE(KeyRotation::kApplied, KeyRotation::kPending);
  ExactCache whole(llama.cache_context(24)), cut(llama.cache_context(24), rotation);
  const at::Tensor expected = step_alone(llama, whole, tokens, ones(24));
  CHECK(largest_difference(step_alone(llama, cut, tokens, slabs), expected) < 1e-5);
}

TEST_CASE("rows of a batched step give what each row gives alone") {
  const LlamaConfig config = GENERATE(from_range(tiny_configs()));
  const Llama llama = tiny_llama(config);
  const std::vector<std::vector<int32_t>> texts = {random_tokens(9, config.vocab, 5), random_tokens(1, config.vocab, 6),
                                                   random_tokens(20, config.vocab, 7)};
  const std::vector<std::vector<int32_t>> contexts = {
      random_tokens(30, config.vocab, 8), {}, random_tokens(3, config.vocab, 9)};
  std::vector<std::unique_ptr<ExactCache>> together;
  std::vector<Row> rows;
  std::vector<at::Tensor> alone;
  for (size_t i = 0; i < texts.size(); ++i) {
    const int64_t position = static_cast<int64_t>(contexts[i].size());
    together.push_back(std::make_unique<ExactCache>(llama.cache_context(64)));
    ExactCache cache(llama.cache_context(64));
    if (position > 0) {
      const auto fill = [&](ExactCache& target) {
        llama.prefill(
            contexts[i], [&](int64_t layer, const KvSlab& slab) { target.append(layer, slab); }, 0);
      };
      fill(*together.back());
      fill(cache);
    }
    alone.push_back(step_alone(llama, cache, texts[i], ones(texts[i].size()), position));
    rows.push_back(
        {.cache = together.back().get(), .tokens = texts[i], .position = position, .slabs = ones(texts[i].size())});
  }
  CHECK(largest_difference(llama.step(rows), at::cat(alone)) < 2e-5);
  for (const Row& row : rows) {
    CHECK(row.compressed_reads == std::vector<int64_t>(row.tokens.size(), 0));
    CHECK(row.attend_ms > 0);
  }
}

TEST_CASE("hidden states that nobody needs are left out, and nothing else") {
  const Llama llama = tiny_llama();
  const int64_t layers = llama.config().layers;
  const std::vector<int64_t> needed_from =
      GENERATE(std::vector<int64_t>{11, 0, 19}, std::vector<int64_t>{12, 5, 20}, std::vector<int64_t>{12, 1, 20});
  const std::vector<std::vector<int64_t>> slabs = {{12}, {3, 2}, {20}};
  std::vector<std::unique_ptr<ExactCache>> caches;
  std::vector<Row> whole, part;
  for (const bool all : {true, false})
    for (size_t i = 0; i < slabs.size(); ++i) {
      const int64_t count = slabs[i][0] + (slabs[i].size() > 1 ? slabs[i][1] : 0);
      caches.push_back(std::make_unique<ExactCache>(llama.cache_context(64)));
      (all ? whole : part)
          .push_back({.cache = caches.back().get(), .tokens = random_tokens(count, 97, 40 + i), .slabs = slabs[i]});
      if (!all) part.back().first_needed = needed_from[i];
    }
  const at::Tensor expected = llama.step(whole), found = llama.step(part);
  REQUIRE(found.sizes() == expected.sizes());
  int64_t first = 0, compared = 0;
  for (size_t i = 0; i < part.size(); ++i) {
    const auto count = static_cast<int64_t>(part[i].tokens.size());
    for (int64_t t = needed_from[i]; t < count; ++t, ++compared) {
      INFO("row " << i << ", token " << t);
      if (llama.row_invariant()) CHECK(found[first + t].equal(expected[first + t]));
      CHECK(largest_difference(found[first + t], expected[first + t]) < 2e-5);
    }
    for (int64_t layer = 0; layer < layers; ++layer)
      CHECK(largest_difference(caches[i]->read(layer).keys[0].parts[0], caches[i + 3]->read(layer).keys[0].parts[0]) <
            2e-5);
    first += count;
  }
  CHECK(compared == 37 - needed_from[0] - needed_from[1] - needed_from[2]);
  part[0].first_needed = 13;
  CHECK_THROWS_WITH(llama.step(part), ContainsSubstring("first_needed 13 is outside [0, 12]"));
}

TEST_CASE("a prefilled cache continues like a longer prefill") {
  const LlamaConfig config = GENERATE(from_range(tiny_configs()));
  const Llama llama = tiny_llama(config);
  const auto tokens = random_tokens(40, config.vocab, 10);
  const std::vector<int32_t> context(tokens.begin(), tokens.begin() + 25), rest(tokens.begin() + 25, tokens.end());
  ExactCache cache(llama.cache_context(40));
  std::vector<int64_t> order;
  llama.prefill(
      context,
      [&](int64_t layer, const KvSlab& slab) {
        order.push_back(layer);
        CHECK(slab.position == 0);
        CHECK(slab.k.sizes() == at::IntArrayRef({config.kv_heads, 25, config.head_dim}));
        CHECK(slab.v.sizes() == slab.k.sizes());
        cache.append(layer, slab);
      },
      0);
  CHECK(static_cast<int64_t>(order.size()) == config.layers);
  CHECK(std::is_sorted(order.begin(), order.end()));
  const at::Tensor expected = prefill_all(llama, tokens).narrow(0, 25, 15);
  CHECK(largest_difference(step_alone(llama, cache, rest, {15}, 25), expected) < 1e-4);
}

TEST_CASE("a prefill behind another is the prefill of both, bit for bit where products keep rows apart") {
  LlamaConfig config = tiny_config();
  config.max_positions = 4096;
  const Llama llama = tiny_llama(config);
  const auto tokens = random_tokens(700, 97, 14);
  const int64_t first = GENERATE(1, 300, 699);
  const std::span<const int32_t> all(tokens);
  PrefillTrace before;
  const PrefillSink keep = [&](int64_t, const KvSlab& slab) {
    before.k.push_back(slab.k.clone(at::MemoryFormat::Contiguous));
    before.v.push_back(slab.v.clone(at::MemoryFormat::Contiguous));
  };
  llama.prefill(all.first(size_t(first)), keep, 0);
  const at::Tensor behind = llama.prefill(all.subspan(size_t(first)), nullptr, 700 - first, &before);
  const at::Tensor expected = prefill_all(llama, tokens).narrow(0, first, 700 - first);
  if (llama.row_invariant())
    CHECK(at::equal(behind, expected));
  else
    CHECK(largest_difference(behind, expected) < 1e-4);
}

TEST_CASE("last_hidden chooses rows of the same states") {
  const Llama llama = tiny_llama();
  const auto tokens = random_tokens(30, 97, 11);
  const at::Tensor all = prefill_all(llama, tokens);
  CHECK(at::equal(llama.prefill(tokens, nullptr, 3), all.narrow(0, 27, 3)));
  CHECK(llama.prefill(tokens, nullptr, 0).size(0) == 0);
}

TEST_CASE("a prefill longer than one block of rows is the same model") {
  LlamaConfig config = tiny_config();
  config.max_positions = 4096;
  const Llama llama = tiny_llama(config);
  const auto tokens = random_tokens(2500, 97, 12);
  ExactCache cache(llama.cache_context(2500));
  const std::vector<int32_t> context(tokens.begin(), tokens.begin() + 900), rest(tokens.begin() + 900, tokens.end());
  llama.prefill(
      context, [&](int64_t layer, const KvSlab& slab) { cache.append(layer, slab); }, 0);
  const at::Tensor expected = llama.prefill(tokens, nullptr, 1600);
  CHECK(largest_difference(step_alone(llama, cache, rest, {1600}, 900), expected) < 1e-4);
  for (const int64_t last : {1, 64, 65, 1599})
    CHECK(at::equal(llama.prefill(tokens, nullptr, last), expected.narrow(0, 1600 - last, last)));
}

TEST_CASE("bfloat16 stays near float32") {
  const LlamaConfig config = tiny_config();
  const TinyWeights weights(config);
  const Llama wide(config, weights, {}), narrow(config, weights, {.device = at::kCPU, .dtype = at::kBFloat16});
  const auto tokens = random_tokens(16, 97, 13);
  const at::Tensor expected = prefill_all(wide, tokens);
  CHECK(prefill_all(narrow, tokens).scalar_type() == at::kBFloat16);
  const double scale = expected.abs().max().item<double>();
  CHECK(largest_difference(prefill_all(narrow, tokens).to(at::kFloat), expected) < 0.1 * scale);
  ExactCache cache(narrow.cache_context(16));
  CHECK(largest_difference(step_alone(narrow, cache, tokens, {16}).to(at::kFloat), expected) < 0.1 * scale);
  CHECK(narrow.logits(prefill_all(narrow, tokens)).scalar_type() == at::kFloat);
}

TEST_CASE("weight_bytes counts every tensor once") {
  const LlamaConfig config = tiny_config();
  // embedding; per layer q, k, v, o, three of the MLP, two norms; final norm; the tied head is no tensor of its own
  const int64_t layer = 48 * (64 + 32 + 32) + 64 * 48 + 3 * 48 * 80 + 2 * 48;
  CHECK(tiny_llama(config).weight_bytes() == 4 * (97 * 48 + 2 * layer + 48));
  LlamaConfig untied = config;
  untied.tied_head = false;
  CHECK(tiny_llama(untied).weight_bytes() == 4 * (2 * 97 * 48 + 2 * layer + 48));
}

TEST_CASE("a tensor of another shape names file, tensor, what came and what is needed") {
  TinyWeights weights(tiny_config());
  weights.entry("model.layers.1.self_attn.k_proj.weight") = {{48, 32}, std::vector<float>(48 * 32)};
  CHECK_THROWS_MATCHES(Llama(tiny_config(), weights, {}), DataError,
                       MessageMatches(ContainsSubstring("tiny weights") &&
                                      ContainsSubstring("model.layers.1.self_attn.k_proj.weight has shape [48, 32]") &&
                                      ContainsSubstring("needs [32, 48]")));
}

TEST_CASE("a missing tensor is an error that names it") {
  TinyWeights weights(tiny_config());
  weights.remove("model.norm.weight");
  CHECK_THROWS_MATCHES(Llama(tiny_config(), weights, {}), DataError,
                       MessageMatches(ContainsSubstring("model.norm.weight")));
}

TEST_CASE("tensors with NaN or infinity are counted, large finite ones are not") {
  TinyWeights weights(tiny_config());
  weights.entry("model.layers.0.mlp.up_proj.weight").values[5] = std::numeric_limits<float>::quiet_NaN();
  weights.entry("model.layers.0.mlp.up_proj.weight").values[9] = std::numeric_limits<float>::infinity();
  for (float& value : weights.entry("model.layers.1.mlp.up_proj.weight").values) value = 3e38f;
  const Llama llama(tiny_config(), weights, {});
  CHECK(llama.weight_warnings() == std::vector<std::string>{"model.layers.0.mlp.up_proj.weight: 2 values"});
  CHECK(tiny_llama().weight_warnings().empty());
}

TEST_CASE("positions and tokens outside the model are refused") {
  const Llama llama = tiny_llama();
  CHECK_THROWS(llama.prefill(random_tokens(513, 97, 1), nullptr, 1));
  CHECK_THROWS(llama.prefill(std::vector<int32_t>{97}, nullptr, 1));
  ExactCache cache(llama.cache_context(4));
  CHECK_THROWS(step_alone(llama, cache, {1}, {1}, 512));
  CHECK_THROWS(step_alone(llama, cache, {-1}, {1}));
  CHECK_THROWS(step_alone(llama, cache, {1, 2}, {1}));
}

}  // namespace kvsweep
