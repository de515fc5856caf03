// contract: model and attention give on a CUDA device what they give on the CPU; schemes: tests/schemes.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>

#include "harness/run/engine.h"
#include "harness/run/reference.h"
#include "models/llama.h"
#include "tests/support/torch/scheme_probe.h"
#include "tests/support/torch/tiny_model.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
namespace {

using testing::random_tokens;
using testing::tiny_config;

void need_cuda() {
  if (!at::globalContext().hasCUDA()) SKIP("no CUDA device");
}

Llama model_on(at::Device device, at::ScalarType dtype) {
  const LlamaConfig config = tiny_config();
  return Llama(config, testing::TinyWeights(config), {.device = device, .dtype = dtype});
}

// Logits of a context that went through a scheme's cache, then of 8 tokens decoded from it.
at::Tensor decode_through(const Llama& llama, const Scheme& scheme, const std::vector<int32_t>& tokens) {
  const std::unique_ptr<KvCache> cache = scheme.make_cache(llama.cache_context(64));
  const std::vector<int32_t> context(tokens.begin(), tokens.end() - 8);
  llama.prefill(
      context, [&](int64_t layer, const KvSlab& slab) { cache->append(layer, slab); }, 0);
  Row row;
  row.cache = cache.get();
  row.tokens.assign(tokens.end() - 8, tokens.end());
  row.position = static_cast<int64_t>(context.size());
  row.slabs.assign(8, 1);
  return llama.logits(llama.step({&row, 1})).to(at::kCPU);
}

}  // namespace

TEST_CASE("prefill on CUDA gives the CPU's logits") {
  need_cuda();
  const c10::InferenceMode guard;
  const auto [dtype, tolerance] = GENERATE(std::pair{at::kFloat, 2e-3}, std::pair{at::kBFloat16, 0.15});
  const std::vector<int32_t> tokens = random_tokens(300, 97, 3);
  const auto ignore = [](int64_t, const KvSlab&) {};
  const Llama cpu = model_on(at::kCPU, at::kFloat), gpu = model_on(at::Device(at::kCUDA, 0), dtype);
  const at::Tensor expected = cpu.logits(cpu.prefill(tokens, ignore, 300));
  const at::Tensor came = gpu.logits(gpu.prefill(tokens, ignore, 300)).to(at::kCPU);
  CHECK((came - expected).abs().max().item<double>() < tolerance * expected.abs().max().item<double>());
}

TEST_CASE("decoding through a cache on CUDA gives the CPU's logits") {
  need_cuda();
  const c10::InferenceMode guard;
  const auto scheme =
      GENERATE(false, true) ? testing::make_scheme("full", {}) : testing::make_scheme("uniform", {{"group", "16"}});
  const std::vector<int32_t> tokens = random_tokens(120, 97, 9);
  const Llama cpu = model_on(at::kCPU, at::kFloat), gpu = model_on(at::Device(at::kCUDA, 0), at::kFloat);
  const at::Tensor expected = decode_through(cpu, *scheme, tokens), came = decode_through(gpu, *scheme, tokens);
  CHECK((came - expected).abs().max().item<double>() < 5e-3 * expected.abs().max().item<double>());
}

TEST_CASE("the engine on CUDA gives the CPU's texts and likelihoods, and says how far full precision is from itself") {
  need_cuda();
  const c10::InferenceMode guard;
  const Reference reference = find_reference();
  const auto kivi =
      testing::make_scheme("kivi", {{"k_bits", "8"}, {"v_bits", "8"}, {"group", "16"}, {"residual", "32"}});
  const auto uniform = testing::make_scheme("uniform", {{"k_bits", "8"}, {"v_bits", "8"}, {"group", "16"}});
  const View view = GENERATE(View{}, View{.as_decoded = true}, View{.chunk_tokens = 32});
  INFO(view.text());
  std::vector<Sample> samples(3);
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].id = std::to_string(i);
    samples[i].context = random_tokens(70, 97, 10 + i);
    samples[i].query = random_tokens(i == 0 ? 100 : 9, 97, 20 + i);
  }
  samples[1].max_new_tokens = 20;
  samples[2].choices = {{5}, {6, 7, 8}};
  EngineWork work{{}, view, {kivi.get(), uniform.get()}, {}};
  for (const Sample& sample : samples) work.samples.push_back(&sample);
  EngineOptions options;
  options.attention_layers = {1};
  const testing::ByteTokenizer tokenizer(false);
  const auto outcomes = [&](const Llama& llama) {
    std::vector<SampleOutcome> all(samples.size());
    Engine(llama, tokenizer, *reference.scheme).run(work, options, [&](SampleOutcome&& one) {
      const size_t sample = one.sample;
      all[sample] = std::move(one);
    });
    return all;
  };
  const auto expected = outcomes(model_on(at::kCPU, at::kFloat));
  const auto came = outcomes(model_on(at::Device(at::kCUDA, 0), at::kFloat));
  for (size_t i = 0; i < samples.size(); ++i) {
    REQUIRE(came[i].noise.has_value());
    for (const float kl : came[i].noise->kl) CHECK(std::abs(kl) < 1e-4);
    for (size_t row = 0; row < 3; ++row) {
      INFO("sample " << i << ", row " << row);
      CHECK(came[i].rows[row].error == "");
      const RowResult &a = came[i].rows[row].result, &b = expected[i].rows[row].result;
      REQUIRE(a.output.nll.size() == b.output.nll.size());
      for (size_t j = 0; j < a.output.nll.size(); ++j) CHECK(std::abs(a.output.nll[j] - b.output.nll[j]) < 2e-2);
      REQUIRE(a.output.choices.size() == b.output.choices.size());
      for (size_t j = 0; j < a.output.choices.size(); ++j)
        CHECK(std::abs(a.output.choices[j].log_likelihood - b.output.choices[j].log_likelihood) < 2e-2);
      if (row == 0) CHECK(a.output.tokens == b.output.tokens);
      CHECK(a.bytes.by_role == b.bytes.by_role);
      CHECK(a.attention.has_value());
    }
  }
}

}  // namespace kvsweep
