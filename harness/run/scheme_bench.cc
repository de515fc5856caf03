#include "harness/run/scheme_bench.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "harness/core/error.h"
#include "harness/core/stopwatch.h"
#include "harness/run/interrupt.h"

namespace kvsweep {
namespace {

struct LayerValues {
  at::Tensor k, v;  // [H, T, D]
};

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

class Bench {
 public:
  Bench(const Llama& llama, int64_t tokens) : llama_(llama), device_(llama.options().device) {
    for (int64_t i = 0; i < tokens; ++i)
      tokens_.push_back(static_cast<int32_t>((i * 7919 + 13) % llama.config().vocab));
    llama.prefill(
        tokens_,
        [this](int64_t, const KvSlab& slab) {
          layers_.push_back({slab.k.clone(), slab.v.clone()});
        },
        0);
  }

  double prefill_ms() const {
    check_interrupt();
    const Stopwatch watch(device_);
    llama_.prefill(
        tokens_, [](int64_t, const KvSlab&) {}, 1);
    return watch.ms();
  }

  // One new cache: encode, decode.
  std::unique_ptr<KvCache> measure(const Scheme& scheme, double& encode_ms, double& decode_ms) const {
    check_interrupt();
    auto cache = scheme.make_cache(llama_.cache_context(static_cast<int64_t>(tokens_.size())));
    Stopwatch watch(device_);
    for (size_t layer = 0; layer < layers_.size(); ++layer)
      cache->append(static_cast<int64_t>(layer), {layers_[layer].k, layers_[layer].v, 0});
    cache->finish_context();
    encode_ms = watch.ms();
    watch.restart();
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      const KvView view = cache->read(static_cast<int64_t>(layer));
      for (const auto* runs : {&view.keys, &view.values})
        for (const KvRun& run : *runs) run.codec->decode(run.parts);
    }
    decode_ms = watch.ms();
    return cache;
  }

 private:
  const Llama& llama_;
  at::Device device_;
  std::vector<int32_t> tokens_;
  std::vector<LayerValues> layers_;
};

}  // namespace

BenchResult bench_schemes(const Llama& llama, const std::vector<const Scheme*>& schemes, int64_t tokens, int repeats) {
  const LlamaConfig& config = llama.config();
  if (tokens > config.max_positions)
    throw ConfigError(fmt::format("--tokens {}: the model allows {}", tokens, config.max_positions));
  BenchResult result;
  result.tokens = tokens;
  result.values = 2 * config.layers * config.kv_heads * tokens * config.head_dim;
  const Bench bench(llama, tokens);
  std::vector<double> prefills;
  std::vector<std::vector<double>> encodes(schemes.size()), decodes(schemes.size());
  result.costs.resize(schemes.size());
  for (int repeat = -1; repeat < repeats; ++repeat) {
    const double prefill = bench.prefill_ms();
    if (repeat >= 0) prefills.push_back(prefill);
    for (size_t i = 0; i < schemes.size(); ++i) {
      double encode = 0, decode = 0;
      const std::unique_ptr<KvCache> cache = bench.measure(*schemes[i], encode, decode);
      if (repeat < 0) {
        ByteLedger own, shared;
        cache->account(own);
        schemes[i]->account_shared(shared);
        result.costs[i].effective_bits =
            8.0 * static_cast<double>(own.live_bytes()) / static_cast<double>(result.values);
        result.costs[i].shared_bytes = static_cast<double>(shared.live_bytes());
      } else {
        encodes[i].push_back(encode);
        decodes[i].push_back(decode);
      }
    }
  }
  result.prefill_ms = median(prefills);
  for (size_t i = 0; i < schemes.size(); ++i) {
    result.costs[i].encode_ms = median(encodes[i]);
    result.costs[i].decode_ms = median(decodes[i]);
  }
  return result;
}

}  // namespace kvsweep
