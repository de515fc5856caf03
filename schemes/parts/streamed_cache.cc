#include "schemes/parts/streamed_cache.h"

#include <ATen/ATen.h>

#include "schemes/parts/finite.h"

namespace kvsweep {

StreamedCache::StreamedCache(const CacheContext& context, const std::vector<LayerPlan>& plans) : rope_(context.rope) {
  TORCH_CHECK(static_cast<int64_t>(plans.size()) == context.layers, "cache: ", plans.size(), " plans for ",
              context.layers, " layers");
  for (const LayerPlan& plan : plans) {
    TORCH_CHECK(rope_ != nullptr || plan.rotation == KeyRotation::kPending, "cache: keys after RoPE need a Rope");
    const bool lossy = !plan.keys.codec->exact() || !plan.values.codec->exact();
    layers_.push_back({Stream(plan.keys, context), Stream(plan.values, context), plan.rotation, lossy, 0});
  }
}

void StreamedCache::append(int64_t layer, const KvSlab& slab) {
  Layer& at = layers_.at(static_cast<size_t>(layer));
  const int64_t held = at.keys.tokens();
  TORCH_CHECK(slab.k.dim() == 3 && slab.k.sizes() == slab.v.sizes(), "cache: keys of sizes ", slab.k.sizes(),
              " and values of sizes ", slab.v.sizes());
  if (held == 0) at.position = slab.position;
  TORCH_CHECK(slab.position == at.position + held, "cache: layer ", layer, " holds positions ", at.position, " to ",
              at.position + held - 1, "; a slab at ", slab.position, " does not follow");
  if (slab.k.size(1) == 0) return;
  if (at.lossy) require_finite(layer, slab);
  at.keys.append(at.rotation == KeyRotation::kApplied ? rope_->apply(slab.k, slab.position) : slab.k);
  at.values.append(slab.v);
}

void StreamedCache::finish_context() {
  for (Layer& layer : layers_) {
    layer.keys.settle();
    layer.values.settle();
  }
}

KvView StreamedCache::read(int64_t layer) const {
  const Layer& at = layers_.at(static_cast<size_t>(layer));
  KvView view;
  view.keys = at.keys.runs();
  view.values = at.values.runs();
  view.position = at.position;
  for (KvRun& run : view.keys) run.rotation = at.rotation;
  return view;
}

void StreamedCache::account(ByteLedger& ledger) const {
  for (const Layer& layer : layers_) {
    layer.keys.account(ledger);
    layer.values.account(ledger);
  }
}

std::unique_ptr<KvCache> StreamedCache::clone() const {
  std::unique_ptr<StreamedCache> copy(new StreamedCache());
  copy->rope_ = rope_;
  for (const Layer& layer : layers_)
    copy->layers_.push_back({layer.keys.clone(), layer.values.clone(), layer.rotation, layer.lossy, layer.position});
  return copy;
}

}  // namespace kvsweep
