#include "harness/attention/one_pass.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "harness/attention/fused.h"

namespace kvsweep {
namespace {

constexpr int64_t kBlock = 128;  // queries that share one merged copy of the tokens

at::Tensor joined(const std::vector<at::Tensor>& parts) {
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

at::Tensor decode_run(const KvRun& run) {
  const at::Tensor x = run.codec->decode(run.parts);
  return run.basis.defined() ? x.matmul(run.basis.to(at::kFloat).transpose(-1, -2)) : x;
}

at::Tensor decode_runs(const c10::SmallVector<KvRun, 3>& runs, int64_t first) {
  std::vector<at::Tensor> parts;
  for (const KvRun& run : runs) {
    if (first < run.tokens) parts.push_back(first == 0 ? decode_run(run) : decode_run(run).slice(1, first));
    first = std::max<int64_t>(first - run.tokens, 0);
  }
  TORCH_CHECK(!parts.empty(), "attention: no tokens to decode");
  return joined(parts);
}

// Tokens of [0, tokens) whose form changes for a query in (first, last].
at::Tensor changing(const at::Tensor& from, int64_t tokens, int64_t first, int64_t last) {
  const at::Tensor own = from.narrow(0, 0, tokens);
  return own.gt(first).logical_and_(own.le(last)).nonzero().squeeze(1);
}

// One side (keys or values) of the tokens while queries go by.
class MergedTokens {
 public:
  // For queries [first, last].
  MergedTokens(const at::Tensor& before, const at::Tensor& after, const at::Tensor& from, int64_t first, int64_t last)
      : before_(before), after_(after), from_(from.to(at::kCPU)), moment_(first), merged_(after.clone()) {
    const at::Tensor waiting = changing(from_, after.size(1), first, last);
    if (waiting.numel() > 0) merge(before_, waiting);
  }

  // As a query at `position` reads them; positions never go back.
  void advance(int64_t position) {
    const at::Tensor changed = changing(from_, after_.size(1), moment_, position);
    if (changed.numel() > 0) merge(after_, changed);
    moment_ = position;
  }

  // Tokens below `tokens` that queries after the one at the moment, up to `last`, read in the other form.
  at::Tensor changing_until(int64_t last, int64_t tokens) const {
    return changing(from_, tokens, moment_, last).to(merged_.device());
  }
  // [T, n] float32: 1 where the query at first + i reads token `which[j]` as it is after its change.
  at::Tensor changed(const at::Tensor& which, int64_t first, int64_t queries) const {
    const at::Tensor from = from_.to(which.device()).index_select(0, which);
    const at::Tensor at = at::arange(first, first + queries, from.options());
    return at.unsqueeze(1).ge(from.unsqueeze(0)).to(at::kFloat);
  }

  at::Tensor visible(int64_t tokens) const { return merged_.narrow(1, 0, tokens); }
  at::Tensor after(const at::Tensor& which) const { return after_.index_select(1, which); }

 private:
  void merge(const at::Tensor& source, const at::Tensor& which) {
    const at::Tensor where = which.to(merged_.device());
    merged_.index_copy_(1, where, source.index_select(1, where));
  }

  at::Tensor before_, after_, from_;
  int64_t moment_;
  at::Tensor merged_;
};

}  // namespace

DecodedTokens decode_stored(const KvView& view, int64_t first) {
  return {decode_runs(view.keys, first), decode_runs(view.values, first)};
}

DecodedTokens decode_view(const KvView& view, const Rope& rope) {
  DecodedTokens tokens = decode_stored(view);
  std::vector<at::Tensor> keys;
  int64_t first = 0;
  for (const KvRun& run : view.keys) {
    const at::Tensor own = tokens.k.narrow(1, first, run.tokens);
    if (run.tokens > 0 && run.rotation == KeyRotation::kPending)
      keys.push_back(view.positions.defined() ? rope.apply(own, view.positions.narrow(0, first, run.tokens))
                                              : rope.apply(own, view.position + first));
    else if (run.tokens > 0)
      keys.push_back(own);
    first += run.tokens;
  }
  tokens.k = joined(keys);
  return tokens;
}

AttentionResult attend_one_pass(const OnePass& tokens, const at::Tensor& q, int64_t position, const Rope& rope) {
  if (!tokens.k.defined()) return attend(tokens.after, q, position, rope);
  if (const cpu::Kernels* kernels = best_kernels(q.size(2)))
    if (const auto fused = attend_fused_one_pass(tokens, q, position, rope, *kernels))
      return {fused->output, fused->decoded ? AttentionPath::kReference : AttentionPath::kFused};
  return {attend_one_pass_reference(tokens, q, position, rope), AttentionPath::kReference};
}

at::Tensor attend_one_pass_reference(const OnePass& tokens, const at::Tensor& q, int64_t position, const Rope& rope) {
  const DecodedTokens after = decode_view(tokens.after, rope);
  const bool pending = !tokens.after.keys.empty() && tokens.after.keys.back().rotation == KeyRotation::kPending;
  const auto from_start = [&](const at::Tensor& x) {
    return tokens.first == 0 ? x : at::cat({at::zeros({x.size(0), tokens.first, x.size(2)}, x.options()), x}, 1);
  };
  const at::Tensor before_k = from_start(pending ? rope.apply(tokens.k, tokens.first) : tokens.k);
  const int64_t query_heads = q.size(0), queries = q.size(1), dim = q.size(2), heads = after.k.size(0);
  TORCH_CHECK(position + queries == after.k.size(1), "one pass: queries ", position, " to ", position + queries - 1,
              " over ", after.k.size(1), " tokens");
  TORCH_CHECK(query_heads % heads == 0, "attention: ", query_heads, " query heads over ", heads, " kv-heads");
  const int64_t groups = query_heads / heads;
  const int64_t newest = position + queries - 1;
  MergedTokens keys(before_k, after.k, tokens.forms.keys, position, newest);
  MergedTokens values(from_start(tokens.v), after.v, tokens.forms.values, position, newest);
  const at::Tensor output = at::empty({queries, query_heads, dim}, q.options());
  for (int64_t at = 0; at < queries; at += kBlock) {
    const int64_t count = std::min(kBlock, queries - at), first = position + at, last = first + count - 1;
    keys.advance(first);
    values.advance(first);
    const at::Tensor scaled = (q.narrow(1, at, count).to(at::kFloat) * (1 / std::sqrt(static_cast<float>(dim))))
                                  .reshape({heads, groups * count, dim});
    at::Tensor scores = scaled.bmm(keys.visible(last + 1).transpose(1, 2)).view({heads, groups, count, last + 1});
    if (const at::Tensor both = keys.changing_until(last, last + 1); both.numel() > 0) {
      const at::Tensor other = scaled.bmm(keys.after(both).transpose(1, 2)).view({heads, groups, count, both.numel()});
      scores.index_copy_(3, both, scores.index_select(3, both).where(keys.changed(both, first, count).eq(0), other));
    }
    // Of the newest tokens only those up to the query itself.
    const at::Tensor later = at::ones({count, count}, at::TensorOptions().dtype(at::kBool).device(q.device())).triu_(1);
    scores.narrow(3, first, count).masked_fill_(later, -std::numeric_limits<float>::infinity());
    at::Tensor weights = scores.softmax(-1);
    const at::Tensor both = values.changing_until(last, last + 1);
    at::Tensor moved;  // what goes to values in their other form
    if (both.numel() > 0) {
      const at::Tensor shared = weights.index_select(3, both), changed = values.changed(both, first, count);
      moved = (shared * changed).view({heads, groups * count, both.numel()});
      weights.index_copy_(3, both, shared * (1 - changed));
    }
    at::Tensor sums = weights.view({heads, groups * count, last + 1}).bmm(values.visible(last + 1));
    if (moved.defined()) sums.add_(moved.bmm(values.after(both)));
    output.narrow(0, at, count).copy_(sums.view({query_heads, count, dim}).transpose(0, 1));
  }
  return output;
}

}  // namespace kvsweep
