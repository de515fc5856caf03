// contract: model and attention give on a CUDA device what they give on the CPU; schemes: tests/schemes.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "models/llama.h"
#include "tests/support/torch/scheme_probe.h"
#include "tests/support/torch/tiny_model.h"

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

}  // namespace kvsweep
