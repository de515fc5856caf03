#include "harness/run/bench_context.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "harness/attention/attention.h"
#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/core/stopwatch.h"
#include "harness/run/interrupt.h"
#include "harness/run/tensor_memory.h"

namespace kvsweep {
namespace {

// Of a sorted list.
double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - std::floor(at)) * (sorted[high] - sorted[low]);
}

int64_t bytes_of(const c10::SmallVector<KvRun, 3>& runs) {
  int64_t bytes = 0;
  for (const KvRun& run : runs)
    for (const at::Tensor& part : run.parts) bytes += static_cast<int64_t>(part.nbytes());
  return bytes;
}

}  // namespace

Timing timing_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {quantile(values, 0.5), quantile(values, 0.25), quantile(values, 0.75)};
}

BenchContext::BenchContext(const Llama& llama, int64_t tokens, int64_t more, const std::string& option)
    : llama_(llama) {
  const LlamaConfig& config = llama.config();
  if (tokens + more > config.max_positions)
    throw ConfigError(fmt::format("{} {}{}: the model allows {}", option, tokens,
                                  more > 0 ? fmt::format(" and {} decoded", more) : "", config.max_positions));
  for (int64_t i = 0; i < tokens; ++i) tokens_.push_back(token(i));
  llama.prefill(
      tokens_,
      [this](int64_t, const KvSlab& slab) {
        check_interrupt();
        layers_.push_back({slab.k.clone(), slab.v.clone(), {}});
      },
      0);
  Rng rng(derive_seed(17, "bench/queries"));
  for (LayerValues& layer : layers_) {
    layer.query = at::empty({config.heads, 1, config.head_dim}, at::kFloat);
    for (int64_t i = 0; i < layer.query.numel(); ++i)
      layer.query.data_ptr<float>()[i] = static_cast<float>(rng.normal());
    layer.query = layer.query.to(llama.options().device, llama.options().dtype);
  }
}

int32_t BenchContext::token(int64_t position) const {
  return static_cast<int32_t>((position * 7919 + 13) % llama_.config().vocab);
}

double BenchContext::prefill_ms(int64_t tokens) const {
  check_interrupt();
  const Stopwatch watch(llama_.options().device);
  llama_.prefill(
      std::span(tokens_).first(static_cast<size_t>(tokens)), [](int64_t, const KvSlab&) {}, 1);
  return watch.ms();
}

int64_t BenchContext::values(int64_t tokens) const {
  const LlamaConfig& config = llama_.config();
  return 2 * config.layers * config.kv_heads * tokens * config.head_dim;
}

KvSlab BenchContext::slab(int64_t layer, int64_t tokens) const {
  const LayerValues& values = layers_[static_cast<size_t>(layer)];
  return {values.k.narrow(1, 0, tokens), values.v.narrow(1, 0, tokens), 0};
}

at::Tensor BenchContext::query(int64_t layer) const {
  return layers_[static_cast<size_t>(layer)].query;
}

std::unique_ptr<KvCache> BenchContext::fill(const Scheme& scheme, int64_t tokens, int64_t expected) const {
  check_interrupt();
  std::unique_ptr<KvCache> cache = scheme.make_cache(llama_.cache_context(expected));
  for (int64_t layer = 0; layer < llama_.config().layers; ++layer) cache->append(layer, slab(layer, tokens));
  cache->finish_context();
  return cache;
}

CacheCost BenchContext::cost(const Scheme& scheme, int64_t tokens) const {
  check_interrupt();
  CacheCost cost;
  std::unique_ptr<KvCache> cache;
  {
    TensorMemory memory;
    cache = scheme.make_cache(llama_.cache_context(tokens));
    for (int64_t layer = 0; layer < llama_.config().layers; ++layer) {
      memory.restart_peak();
      cache->append(layer, slab(layer, tokens));
      cost.transient = std::max(cost.transient, memory.peak() - memory.held());
    }
    memory.restart_peak();
    cache->finish_context();
    cost.transient = std::max(cost.transient, memory.peak() - memory.held());
  }
  ByteLedger own, shared;
  cache->account(own);
  scheme.account_shared(shared);
  cost.live = own.live_bytes();
  cost.reserved = own.reserved_bytes();
  cost.shared = shared.live_bytes();
  int64_t keys = 0, others = 0;
  for (int64_t layer = 0; layer < llama_.config().layers; ++layer) {
    const KvView view = cache->read(layer);
    keys += bytes_of(view.keys);
    others += bytes_of(view.values);
  }
  const auto count = static_cast<double>(values(tokens));
  cost.bits = 8 * static_cast<double>(cost.live) / count;
  cost.key_bits = 16 * static_cast<double>(keys) / count;
  cost.value_bits = 16 * static_cast<double>(others) / count;
  return cost;
}

BenchContext::Attention BenchContext::attend_once(const KvCache& cache, int64_t tokens, bool count_transient) const {
  check_interrupt();
  Attention result;
  std::optional<TensorMemory> memory;
  if (count_transient) memory.emplace();
  const Stopwatch watch(llama_.options().device);
  for (int64_t layer = 0; layer < llama_.config().layers; ++layer) {
    if (memory) memory->restart_peak();
    const int64_t before = memory ? memory->held() : 0;
    const AttentionResult attended = attend(cache.read(layer), query(layer), tokens - 1, llama_.rope());
    result.fused = result.fused && attended.path == AttentionPath::kFused;
    if (memory) result.transient = std::max(result.transient, memory->peak() - before);
  }
  result.ms = watch.ms();
  return result;
}

}  // namespace kvsweep
