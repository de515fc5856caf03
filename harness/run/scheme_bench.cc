#include "harness/run/scheme_bench.h"

#include <algorithm>

#include "harness/core/stopwatch.h"
#include "harness/run/progress.h"

namespace kvsweep {
namespace {

constexpr int kPasses = 3;

double read_ms(const KvCache& cache, const Llama& llama) {
  const Stopwatch watch(llama.options().device);
  for (int64_t layer = 0; layer < llama.config().layers; ++layer) {
    const KvView view = cache.read(layer);
    for (const auto* runs : {&view.keys, &view.values})
      for (const KvRun& run : *runs) run.codec->decode(run.parts);
  }
  return watch.ms();
}

}  // namespace

EncodeBench bench_encode(const BenchContext& context, const std::vector<const Scheme*>& schemes, int64_t tokens,
                         int repeats) {
  EncodeBench result{tokens, context.values(tokens), {}, {}};
  std::vector<double> prefills;
  std::vector<std::vector<double>> encodes(schemes.size()), reads(schemes.size());
  const auto work = static_cast<int64_t>(schemes.size()) * (repeats + 1);
  Progress progress(static_cast<double>(work), work, "measurements");
  progress.label("encode");
  result.costs.resize(schemes.size());
  for (int repeat = -1; repeat < repeats; ++repeat) {
    const double prefill = context.prefill_ms(tokens);
    if (repeat >= 0) prefills.push_back(prefill);
    for (size_t i = 0; i < schemes.size(); ++i, progress.advance(1, 1)) {
      if (repeat < 0) result.costs[i].bytes = context.cost(*schemes[i], tokens);
      const Stopwatch watch(context.llama().options().device);
      const std::unique_ptr<KvCache> cache = context.fill(*schemes[i], tokens, tokens);
      const double encode = watch.ms(), read = read_ms(*cache, context.llama());
      if (repeat < 0) continue;
      encodes[i].push_back(encode);
      reads[i].push_back(read);
    }
  }
  result.prefill_ms = timing_of(prefills);
  for (size_t i = 0; i < schemes.size(); ++i) {
    result.costs[i].encode_ms = timing_of(encodes[i]);
    result.costs[i].read_ms = timing_of(reads[i]);
  }
  return result;
}

DecodeBench bench_decode(const BenchContext& context, const std::vector<const Scheme*>& schemes, int64_t tokens,
                         int repeats) {
  DecodeBench result{tokens, std::vector<DecodeCost>(schemes.size())};
  std::vector<std::vector<double>> times(schemes.size());
  const auto work = static_cast<int64_t>(schemes.size()) * (repeats + 1);
  Progress progress(static_cast<double>(work), work, "measurements");
  progress.label("decode");
  for (int repeat = -1; repeat < repeats; ++repeat)
    for (size_t i = 0; i < schemes.size(); ++i, progress.advance(1, 1)) {
      const std::unique_ptr<KvCache> cache = context.fill(*schemes[i], tokens, tokens);
      const BenchContext::Attention first = context.attend_once(*cache, tokens, repeat < 0);
      if (repeat < 0) {
        result.costs[i].fused = first.fused;
        result.costs[i].bytes = context.cost(*schemes[i], tokens);
        result.costs[i].bytes.transient = first.transient;
        continue;
      }
      std::vector<double> passes;
      for (int pass = 0; pass < kPasses; ++pass) passes.push_back(context.attend_once(*cache, tokens).ms);
      times[i].push_back(timing_of(passes).median);
    }
  const LlamaConfig& config = context.llama().config();
  for (size_t i = 0; i < schemes.size(); ++i) {
    DecodeCost& cost = result.costs[i];
    cost.attend_ms = timing_of(times[i]);
    cost.ns_per_token_head =
        1e6 * cost.attend_ms.median / static_cast<double>(config.layers * config.kv_heads * tokens);
  }
  return result;
}

}  // namespace kvsweep
