#include "harness/cli/model_bench.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "harness/core/byte_ledger.h"
#include "harness/core/error.h"
#include "harness/core/stopwatch.h"
#include "harness/run/interrupt.h"
#include "harness/run/reference.h"
#include "harness/run/runner.h"

namespace kvsweep {
namespace {

// A "VmHWM:   123 kB" line of /proc/self/status, in bytes; 0 when there is none.
int64_t process_status_bytes(const std::string& key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  return 0;
}

}  // namespace

int run_model_bench(const LoadedModel& model, int64_t prefill_tokens, int64_t decode_tokens, int repeats) {
  const Llama& llama = *model.llama;
  const int64_t longest = llama.config().max_positions;
  if (prefill_tokens + decode_tokens > longest)
    throw ConfigError(fmt::format("--prefill {} + --decode {} exceeds the model's {} tokens", prefill_tokens,
                                  decode_tokens, longest));
  const Reference reference = find_reference();
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < prefill_tokens; ++i)
    tokens.push_back(static_cast<int32_t>((i * 7919 + 13) % llama.config().vocab));
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const std::unique_ptr<KvCache> cache =
        reference.scheme->make_cache(llama.cache_context(prefill_tokens + decode_tokens));
    Stopwatch watch(llama.options().device);
    at::Tensor hidden = llama.prefill(
        tokens, [&](int64_t layer, const KvSlab& slab) { cache->append(layer, slab); }, 1);
    llama.logits(hidden);
    const double prefill_s = watch.ms() / 1000;
    std::vector<double> steps;
    for (int64_t i = 0; i < decode_tokens; ++i) {
      check_interrupt();
      Row row;
      row.cache = cache.get();
      row.tokens = {tokens[static_cast<size_t>(i % prefill_tokens)]};
      row.position = prefill_tokens + i;
      row.slabs = {1};
      watch.restart();
      llama.logits(llama.step({&row, 1}));
      steps.push_back(watch.ms());
    }
    std::sort(steps.begin(), steps.end());
    ByteLedger ledger;
    cache->account(ledger);
    const nlohmann::ordered_json line = {{"program", "kvsweep"},
                                         {"prefill_tokens", prefill_tokens},
                                         {"prefill_s", prefill_s},
                                         {"decode_ms_median", steps[steps.size() / 2]},
                                         {"decode_ms_min", steps.front()},
                                         {"decode_steps", decode_tokens},
                                         {"threads", at::get_num_threads()},
                                         {"weight_bytes", llama.weight_bytes()},
                                         {"cache_bytes", ledger.live_bytes()},
                                         {"peak_rss_bytes", process_status_bytes("VmHWM")},
                                         {"anonymous_rss_bytes", process_status_bytes("RssAnon")},
                                         {"file_rss_bytes", process_status_bytes("RssFile")}};
    fmt::print("{}\n", line.dump());
  }
  return kExitOk;
}

}  // namespace kvsweep
