#include "harness/attention/attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "harness/attention/fused.h"

namespace kvsweep {
namespace {

// Scores of one block of queries stay below this many floats (64 MB), however long the view.
constexpr int64_t kMaxScores = int64_t{1} << 24;

struct DecodedRun {
  at::Tensor values;  // [H, n, D] float32
  at::Tensor basis;   // see KvRun; undefined: none
};

at::Tensor undo(const at::Tensor& x, const at::Tensor& basis) {
  return basis.defined() ? x.matmul(basis.to(at::kFloat).transpose(-1, -2)) : x;
}

DecodedRun decode_run(const KvRun& run) {
  DecodedRun decoded{run.codec->decode(run.parts), run.basis};
  TORCH_CHECK(decoded.values.dim() == 3 && decoded.values.size(1) == run.tokens, "attention: codec ", run.codec->name(),
              " decoded ", decoded.values.sizes(), " for a run of ", run.tokens, " tokens");
  return decoded;
}

DecodedRun decode_keys(const KvRun& run, const KvView& view, int64_t first, const Rope& rope) {
  DecodedRun decoded = decode_run(run);
  if (run.rotation == KeyRotation::kApplied) return decoded;
  const at::Tensor plain = undo(decoded.values, run.basis);
  if (view.positions.defined()) return {rope.apply(plain, view.positions.narrow(0, first, run.tokens)), {}};
  return {rope.apply(plain, view.position + first), {}};
}

// Bool [T, S] or [H, 1, T, S], true where a query must not look; undefined when every query sees every token.
at::Tensor hidden_tokens(const KvView& view, int64_t position, int64_t queries, int64_t tokens, at::Device device) {
  at::Tensor hidden;
  if (view.positions.defined() || view.position + tokens - 1 > position) {
    const auto longs = at::TensorOptions().dtype(at::kLong).device(device);
    const at::Tensor at =
        view.positions.defined() ? view.positions : at::arange(view.position, view.position + tokens, longs);
    hidden = at.unsqueeze(0) > at::arange(position, position + queries, longs).unsqueeze(1);
  }
  if (!view.keep.defined()) return hidden;
  const at::Tensor dropped = view.keep.logical_not().unsqueeze(1).unsqueeze(1);
  return hidden.defined() ? dropped.logical_or(hidden) : dropped.expand({-1, 1, queries, -1});
}

at::Tensor map_by(const at::Tensor& x, const at::Tensor& basis) {
  return basis.defined() ? x.matmul(basis.to(at::kFloat)) : x;
}

// q [H, G * T, D] -> scores [H, G * T, S]
at::Tensor score(const at::Tensor& q, const std::vector<DecodedRun>& keys, int64_t tokens) {
  if (keys.size() == 1) return map_by(q, keys[0].basis).bmm(keys[0].values.transpose(1, 2));
  const at::Tensor scores = at::empty({q.size(0), q.size(1), tokens}, q.options());
  int64_t first = 0;
  for (const DecodedRun& run : keys) {
    const int64_t count = run.values.size(1);
    scores.narrow(2, first, count).copy_(map_by(q, run.basis).bmm(run.values.transpose(1, 2)));
    first += count;
  }
  return scores;
}

// weights [H, G * T, S] -> [H, G * T, D]
at::Tensor weigh(const at::Tensor& weights, const std::vector<DecodedRun>& values) {
  at::Tensor sum;
  int64_t first = 0;
  for (const DecodedRun& run : values) {
    const int64_t count = run.values.size(1);
    const at::Tensor part = undo(weights.narrow(2, first, count).bmm(run.values), run.basis);
    sum = sum.defined() ? sum.add_(part) : part;
    first += count;
  }
  return sum;
}

}  // namespace

AttentionResult attend_reference(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope) {
  const int64_t query_heads = q.size(0), queries = q.size(1), dim = q.size(2), tokens = view.tokens();
  std::vector<DecodedRun> keys, values;
  int64_t first = 0;
  for (const KvRun& run : view.keys) {
    if (run.tokens > 0) keys.push_back(decode_keys(run, view, first, rope));
    first += run.tokens;
  }
  int64_t value_tokens = 0;
  for (const KvRun& run : view.values) {
    if (run.tokens > 0) values.push_back(decode_run(run));
    value_tokens += run.tokens;
  }
  TORCH_CHECK(tokens > 0 && value_tokens == tokens, "attention: a view of ", tokens, " keys and ", value_tokens,
              " values");
  const int64_t heads = keys[0].values.size(0);
  TORCH_CHECK(query_heads % heads == 0, "attention: ", query_heads, " query heads over ", heads, " kv-heads");
  const int64_t groups = query_heads / heads;
  const at::Tensor output = at::empty({queries, query_heads, dim}, q.options());
  const int64_t block = std::clamp<int64_t>(kMaxScores / (query_heads * tokens), 1, queries);
  for (int64_t at = 0; at < queries; at += block) {
    const int64_t count = std::min(block, queries - at);
    const at::Tensor scaled = q.narrow(1, at, count).to(at::kFloat) * (1 / std::sqrt(static_cast<float>(dim)));
    at::Tensor scores = score(scaled.reshape({heads, groups * count, dim}), keys, tokens);
    const at::Tensor hidden = hidden_tokens(view, position + at, count, tokens, q.device());
    if (hidden.defined())
      scores.view({heads, groups, count, tokens}).masked_fill_(hidden, -std::numeric_limits<float>::infinity());
    const at::Tensor sums = weigh(scores.softmax(-1), values);
    output.narrow(0, at, count).copy_(sums.view({query_heads, count, dim}).transpose(0, 1));
  }
  return {output, AttentionPath::kReference};
}

AttentionResult attend(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope) {
  const cpu::Kernels* kernels = best_kernels(q.size(2));
  if (kernels == nullptr) return attend_reference(view, q, position, rope);
  const std::optional<FusedAttention> fused = attend_fused(view, q, position, rope, *kernels);
  if (!fused) return attend_reference(view, q, position, rope);
  return {fused->output, fused->decoded ? AttentionPath::kReference : AttentionPath::kFused};
}

namespace {

// Queries beside each other in the library's attention, which is given what each of them sees.
constexpr int64_t kMaskedRows = 256;

}  // namespace

// In the library each kv-head is one batch entry whose G query heads share its keys and values by stride 0, so that
// nothing is repeated in memory.
at::Tensor attend_exact(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const int64_t heads = k.size(0), queries = q.size(1), before = k.size(1) - queries, dim = q.size(2);
  TORCH_CHECK(q.size(0) % heads == 0, "attention: ", q.size(0), " query heads over ", heads, " kv-heads");
  TORCH_CHECK(before >= 0 && v.sizes() == k.sizes(), "attention: ", queries, " queries over keys ", k.sizes(),
              " and values ", v.sizes());
  const cpu::Kernels* kernels = best_kernels(dim);
  if (kernels != nullptr)
    if (const std::optional<at::Tensor> fused = attend_fused_exact(q, k, v, *kernels)) return *fused;
  const int64_t groups = q.size(0) / heads;
  const auto shared = [&](const at::Tensor& x, int64_t seen) {
    return x.narrow(1, 0, seen).unsqueeze(1).expand({heads, groups, seen, dim});
  };
  const at::Tensor split = q.unflatten(0, {heads, groups});
  const auto attended = [&](int64_t at, int64_t rows, const std::optional<at::Tensor>& allowed) {
    const int64_t seen = before + at + rows;
    return at::scaled_dot_product_attention(split.narrow(2, at, rows), shared(k, seen), shared(v, seen), allowed, 0.0,
                                            !allowed)
        .permute({2, 0, 1, 3});  // [rows, H, G, D]
  };
  if (before == 0) return attended(0, queries, {}).reshape({queries, q.size(0), dim});
  at::Tensor out = at::empty({queries, q.size(0), dim}, q.options());
  for (int64_t at = 0; at < queries; at += kMaskedRows) {
    const int64_t rows = std::min(kMaskedRows, queries - at);
    const at::Tensor allowed = at::ones({rows, before + at + rows}, q.options().dtype(at::kBool)).tril_(before + at);
    out.narrow(0, at, rows).copy_(attended(at, rows, allowed).flatten(1, 2));
  }
  return out;
}

}  // namespace kvsweep
