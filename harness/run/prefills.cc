#include "harness/run/prefills.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "harness/core/common_prefix.h"
#include "harness/run/interrupt.h"

namespace kvsweep {
namespace {

// Fewer tokens cost more to put in front of the others than to compute again.
constexpr int64_t kFewestTokens = 16;
// Samples to come for which the beginning of a context is held.
constexpr size_t kAhead = 32;

// What samples have in common with a context: with the one that has most, and added up.
struct Worth {
  int64_t longest = 0, total = 0;
};
Worth worth(std::span<const int32_t> context, std::span<const Sample* const> samples) {
  Worth worth;
  for (const Sample* sample : samples) {
    const int64_t tokens = common_prefix(context, sample->context);
    if (tokens < kFewestTokens) continue;
    worth.longest = std::max(worth.longest, tokens);
    worth.total += tokens;
  }
  return worth;
}

// Views on the first tokens of a trace.
PrefillTrace beginning(const PrefillTrace& trace, int64_t tokens) {
  PrefillTrace out;
  for (const at::Tensor& k : trace.k) out.k.push_back(k.narrow(1, 0, tokens));
  for (const at::Tensor& v : trace.v) out.v.push_back(v.narrow(1, 0, tokens));
  return out;
}

// The same in memory of its own.
PrefillTrace copy_of(PrefillTrace trace) {
  for (auto* side : {&trace.k, &trace.v})
    for (at::Tensor& x : *side) x = x.clone(at::MemoryFormat::Contiguous);
  return trace;
}

}  // namespace

Prefills::Prefills(const Llama& llama, std::span<const Sample* const> samples) : llama_(llama), samples_(samples) {}

void Prefills::release() {
  held_tokens_ = {};
  held_ = {};
}

Prefills::Context Prefills::of(size_t index) {
  const std::span<const int32_t> context(samples_[index]->context);
  if (context.empty()) return {};
  const int64_t all = std::ssize(context), common = common_prefix(held_tokens_, context);
  const int64_t shared = common < kFewestTokens ? 0 : common;
  Context out;
  out.prefilled = all - shared;
  if (shared == 0) {
    out.trace = prefill(context, nullptr);
  } else {
    const PrefillTrace before = beginning(held_, shared);
    out.trace = shared == all ? copy_of(before) : prefill(context.subspan(static_cast<size_t>(shared)), &before);
  }
  if (index >= next_) {  // not one that is made again
    next_ = index + 1;
    hold(context, out.trace);
  }
  return out;
}

PrefillTrace Prefills::prefill(std::span<const int32_t> tokens, const PrefillTrace* before) const {
  constexpr auto kDense = at::MemoryFormat::Contiguous;
  PrefillTrace trace;
  const PrefillSink sink = [&](int64_t layer, const KvSlab& slab) {
    check_interrupt();
    const auto at = static_cast<size_t>(layer);
    // One token is contiguous where it lies, and what it lies in is used again.
    trace.k.push_back(before == nullptr ? slab.k.clone(kDense) : at::cat({before->k[at], slab.k}, 1));
    trace.v.push_back(before == nullptr ? slab.v.clone(kDense) : at::cat({before->v[at], slab.v}, 1));
  };
  llama_.prefill(tokens, sink, 0, before);
  return trace;
}

void Prefills::hold(std::span<const int32_t> context, const PrefillTrace& trace) {
  const std::span<const Sample* const> ahead = samples_.subspan(next_, std::min(kAhead, samples_.size() - next_));
  const Worth held = worth(held_tokens_, ahead), own = worth(context, ahead);
  if (held.total == 0) release();
  if (own.total <= held.total) return;
  held_tokens_.assign(context.begin(), context.begin() + own.longest);
  held_ = copy_of(beginning(trace, own.longest));
}

}  // namespace kvsweep
