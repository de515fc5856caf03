#include "harness/attention/weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/attention/one_pass.h"

namespace kvsweep {

at::Tensor attention_weights(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope) {
  const at::Tensor keys = decode_view(view, rope).k;
  const int64_t heads = keys.size(0), groups = q.size(0) / heads, dim = q.size(2);
  TORCH_CHECK(q.size(1) == 1 && q.size(0) == heads * groups, "attention: weights of ", q.sizes(), " over ", heads,
              " kv-heads");
  const at::Tensor scaled = q.to(at::kFloat) * (1 / std::sqrt(static_cast<float>(dim)));
  at::Tensor scores = scaled.reshape({heads, groups, dim}).bmm(keys.transpose(1, 2));  // [H, G, S]
  const at::Tensor at = view.positions.defined()
                            ? view.positions.to(scores.device())
                            : at::arange(keys.size(1), scores.options().dtype(at::kLong)) + view.position;
  at::Tensor hidden = at.gt(position).view({1, 1, -1});
  if (view.keep.defined()) hidden = hidden.logical_or(view.keep.logical_not().unsqueeze(1));
  scores.masked_fill_(hidden, -std::numeric_limits<float>::infinity());
  const at::Tensor weights = scores.softmax(-1).view({q.size(0), -1});
  const at::Tensor seen = at.le(position).nonzero().squeeze(1);
  return at::zeros({q.size(0), position + 1}, weights.options())
      .index_copy_(1, at.index_select(0, seen), weights.index_select(1, seen));
}

WeightDrift compare_weights(const at::Tensor& full, const at::Tensor& own, int64_t top) {
  TORCH_CHECK(full.sizes() == own.sizes(), "attention: weights of ", full.sizes(), " against ", own.sizes());
  const at::Tensor p = full.to(at::kCPU, at::kDouble), q = own.to(at::kCPU, at::kDouble);
  const int64_t tokens = p.size(1), count = std::min(top, tokens), oldest = (tokens + 9) / 10;
  WeightDrift drift;
  const at::Tensor terms = p * (p / q).log();
  drift.kl = terms.where(p.gt(0), at::zeros_like(p)).sum(-1).mean().item<double>();
  const auto heaviest = [&](const at::Tensor& weights) {
    const at::Tensor marks = at::zeros_like(weights);
    return marks.scatter_(-1, std::get<1>(weights.topk(count, -1)), 1.0);
  };
  drift.overlap = (heaviest(p) * heaviest(q)).sum(-1).mean().item<double>() / static_cast<double>(count);
  drift.oldest = q.narrow(1, 0, oldest).sum(-1).mean().item<double>();
  drift.full_oldest = p.narrow(1, 0, oldest).sum(-1).mean().item<double>();
  return drift;
}

}  // namespace kvsweep
