#include "harness/run/plan.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <string>

#include "harness/core/shared_tasks.h"
#include "harness/core/stopwatch.h"

namespace kvsweep {
namespace {

constexpr int64_t kProbeTokens = 64;
constexpr int64_t kProbeRows = 8;
constexpr int64_t kBatchTokens = 1024;    // of short rows that pass through the model together
constexpr int64_t kPlanValues = 1 << 26;  // filled into a cache to see how large it gets

double step_ms(const Llama& llama, const Scheme& scheme, int64_t rows) {
  std::vector<std::unique_ptr<KvCache>> caches;
  for (int64_t i = 0; i < rows; ++i) caches.push_back(scheme.make_cache(llama.cache_context(4)));
  double best = 0;
  for (int64_t position = 0; position < 3; ++position) {
    std::vector<Row> batch(static_cast<size_t>(rows));
    for (int64_t i = 0; i < rows; ++i) {
      Row& row = batch[static_cast<size_t>(i)];
      row.cache = caches[static_cast<size_t>(i)].get();
      row.tokens = {0};
      row.position = position;
      row.slabs = {1};
    }
    const Stopwatch watch(llama.options().device);
    llama.logits(llama.step(batch));
    const double ms = watch.ms();
    best = position == 0 ? ms : std::min(best, ms);
  }
  return best;
}

// x: keys and values of one layer.
int64_t cache_bytes(const Scheme& scheme, const CacheContext& context, const at::Tensor& x) {
  const int64_t values = 2 * x.numel();
  const int64_t filled = std::clamp<int64_t>(kPlanValues / std::max<int64_t>(values, 1), 1, context.layers);
  const std::unique_ptr<KvCache> cache = scheme.make_cache(context);
  for (int64_t layer = 0; layer < filled; ++layer) cache->append(layer, {x, x, 0});
  cache->finish_context();
  ByteLedger ledger;
  cache->account(ledger);
  return ledger.reserved_bytes() * context.layers / filled;
}

// Of one cache of `tokens` under each scheme; lossless ones share what is there for full precision.
std::vector<int64_t> row_bytes(const std::vector<const Scheme*>& pending, const Scheme& reference, const Llama& llama,
                               int64_t tokens) {
  const CacheContext context = llama.cache_context(tokens);
  const at::Tensor x =
      at::randn({context.kv_heads, tokens, context.head_dim}, at::kFloat).to(context.device, context.dtype);
  std::vector<const Scheme*> schemes = {&reference};
  schemes.insert(schemes.end(), pending.begin(), pending.end());
  std::vector<int64_t> bytes(schemes.size(), 0);
  for_each_task(std::ssize(schemes), context.device.is_cpu() ? at::get_num_threads() : 1, [&](int64_t task) {
    const auto i = static_cast<size_t>(task);
    if (i == 0 || !schemes[i]->traits().lossless) bytes[i] = cache_bytes(*schemes[i], context, x);
  });
  return bytes;
}

}  // namespace

Speed measure_speed(const Llama& llama, const Scheme& reference) {
  Speed speed;
  const std::vector<int32_t> tokens(kProbeTokens, 0);
  const PrefillSink ignore = [](int64_t, const KvSlab&) {};
  llama.prefill(tokens, ignore, 0);
  const Stopwatch watch(llama.options().device);
  llama.prefill(tokens, ignore, 0);
  speed.prefill_ms_per_token = watch.ms() / kProbeTokens;
  speed.step_ms = step_ms(llama, reference, 1);
  speed.step_ms_per_row = std::max(0.0, step_ms(llama, reference, kProbeRows) - speed.step_ms) / (kProbeRows - 1);
  speed.read_ns_per_value = llama.options().device.is_cpu() ? 0.6 : 0.01;
  return speed;
}

GroupPlan plan_group(const SweepGroup& group, const std::vector<const Scheme*>& pending, const Scheme& reference,
                     const Llama& llama, const Speed& speed, int64_t samples) {
  const LlamaConfig& config = llama.config();
  const int64_t tokens = group.task->tokens(), query = group.task->query_tokens();
  const int64_t generated = group.task->generated_tokens();
  const int64_t values = 2 * config.layers * config.kv_heads * config.head_dim * tokens;
  GroupPlan plan;
  plan.points = static_cast<int64_t>(pending.size());
  plan.samples = samples;
  plan.row_bytes = row_bytes(pending, reference, llama, tokens + generated);
  const double rows = 1 + static_cast<double>(std::count_if(pending.begin(), pending.end(),
                                                            [](const Scheme* s) { return !s->traits().lossless; }));
  const bool replayed = group.view.chunk_tokens == 0 && !group.view.as_decoded;
  if (replayed) plan.prefill_bytes = values * static_cast<int64_t>(c10::elementSize(llama.options().dtype));
  plan.transient_bytes =
      4 * (values / config.layers + std::max(tokens, kBatchTokens) * (config.intermediate + 4 * config.hidden));
  // The query reads the cache as few slabs, a generated token once.
  const double reads =
      rows * static_cast<double>(generated + 2) * static_cast<double>(values) * speed.read_ns_per_value * 1e-6;
  const double steps = static_cast<double>(generated) * (speed.step_ms + (rows - 1) * speed.step_ms_per_row) +
                       rows * static_cast<double>(query) * speed.prefill_ms_per_token;
  const double prefill = speed.prefill_ms_per_token * static_cast<double>(tokens);
  const double context = replayed ? prefill : prefill * rows;
  plan.seconds_per_sample = (context + steps + reads) * 1e-3;
  return plan;
}

int64_t GroupPlan::cache_bytes() const {
  return std::accumulate(row_bytes.begin(), row_bytes.end(), int64_t{0});
}

int64_t GroupPlan::smallest_bytes() const {
  return prefill_bytes + 2 * *std::max_element(row_bytes.begin(), row_bytes.end());
}

int64_t available_memory_bytes() {
  std::ifstream in("/proc/meminfo");
  std::string key, unit;
  int64_t kib = 0;
  while (in >> key >> kib >> unit)
    if (key == "MemAvailable:") return kib * 1024;
  return 0;
}

}  // namespace kvsweep
