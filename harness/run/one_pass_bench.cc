#include "harness/run/one_pass_bench.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "harness/core/stopwatch.h"
#include "harness/run/fidelity.h"
#include "harness/run/interrupt.h"
#include "harness/run/lane.h"

namespace kvsweep {
namespace {

constexpr int64_t kLogitRows = 64;

// -log p of the token after each hidden state, the first of which belongs to token `first`.
void append_nll(const Llama& llama, const at::Tensor& hidden, const std::vector<int32_t>& tokens, int64_t first,
                std::vector<float>& nll) {
  const int64_t count = std::min(hidden.size(0), static_cast<int64_t>(tokens.size()) - 1 - first);
  for (int64_t at = 0; at < count; at += kLogitRows) {
    const int64_t size = std::min(kLogitRows, count - at);
    const at::Tensor log_probs = at::log_softmax(llama.logits(hidden.narrow(0, at, size)), -1);
    std::vector<int64_t> rows, targets;
    for (int64_t i = 0; i < size; ++i) {
      rows.push_back(i);
      targets.push_back(tokens[static_cast<size_t>(first + at + i + 1)]);
    }
    for (const float log_prob : log_probs_of(log_probs, rows, targets)) nll.push_back(-log_prob);
  }
}

std::vector<float> in_one_pass(const Llama& llama, const Scheme& scheme, const std::vector<int32_t>& tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  const std::unique_ptr<KvCache> cache = scheme.make_cache(llama.cache_context(count));
  const CompressedFrom forms = scheme.compressed_from(0, count);
  const SchemeTraits traits = scheme.traits();
  Row row;
  row.cache = cache.get();
  row.tokens = tokens;
  if (traits.one_pass) {
    row.forms = &forms;
    row.slabs = traits.append_invariant ? std::vector<int64_t>{count} : std::vector<int64_t>(tokens.size(), 1);
  } else {
    row.slabs = streaming_slabs(forms, 0, count);
  }
  std::vector<float> nll;
  append_nll(llama, llama.step({&row, 1}), tokens, 0, nll);
  return nll;
}

std::vector<float> token_by_token(const Llama& llama, const Scheme& scheme, const std::vector<int32_t>& tokens,
                                  bool& fused) {
  const std::unique_ptr<KvCache> cache = scheme.make_cache(llama.cache_context(static_cast<int64_t>(tokens.size())));
  std::vector<float> nll;
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    check_interrupt();
    Row row;
    row.cache = cache.get();
    row.tokens = {tokens[i]};
    row.position = static_cast<int64_t>(i);
    row.slabs = {1};
    append_nll(llama, llama.step({&row, 1}), tokens, static_cast<int64_t>(i), nll);
    fused = fused && row.fused;
  }
  return nll;
}

}  // namespace

OnePassCost bench_one_pass(const Llama& llama, const Scheme& scheme, const std::vector<int32_t>& tokens) {
  OnePassCost cost;
  Stopwatch watch(llama.options().device);
  const std::vector<float> whole = in_one_pass(llama, scheme, tokens);
  cost.one_pass_ms = watch.ms();
  watch.restart();
  const std::vector<float> streamed = token_by_token(llama, scheme, tokens, cost.fused);
  cost.streamed_ms = watch.ms();
  cost.scored = static_cast<int64_t>(whole.size());
  for (size_t i = 0; i < whole.size(); ++i) {
    const double difference = static_cast<double>(whole[i]) - static_cast<double>(streamed[i]);
    cost.mean_difference += difference / static_cast<double>(whole.size());
    cost.largest_difference = std::max(cost.largest_difference, std::abs(difference));
  }
  return cost;
}

}  // namespace kvsweep
