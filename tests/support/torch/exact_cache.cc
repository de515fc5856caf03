#include "tests/support/torch/exact_cache.h"

#include <ATen/ATen.h>

namespace kvsweep::testing {
namespace {

const PlainCodec kPlain;

}  // namespace

at::Tensor PlainCodec::decode(const std::vector<at::Tensor>& parts) const {
  return parts[0].to(at::kFloat);
}

ExactCache::ExactCache(const CacheContext& context, KeyRotation rotation) : rope_(context.rope), rotation_(rotation) {
  const at::Tensor prototype = at::empty({context.kv_heads, 0, context.head_dim},
                                         at::TensorOptions().dtype(context.dtype).device(context.device));
  for (int64_t layer = 0; layer < context.layers; ++layer)
    layers_.push_back(
        {TokenBuffer(prototype, context.expected_tokens), TokenBuffer(prototype, context.expected_tokens)});
}

void ExactCache::append(int64_t layer, const KvSlab& slab) {
  Layer& here = layers_.at(static_cast<size_t>(layer));
  TORCH_CHECK(slab.position == here.keys.size(), "slab at ", slab.position, " after ", here.keys.size(), " tokens");
  here.keys.append(rotation_ == KeyRotation::kApplied ? rope_->apply(slab.k, slab.position) : slab.k);
  here.values.append(slab.v);
}

KvView ExactCache::read(int64_t layer) const {
  const Layer& here = layers_.at(static_cast<size_t>(layer));
  KvView view;
  view.keys.push_back({&kPlain, {here.keys.rows()}, here.keys.size(), rotation_, {}});
  view.values.push_back({&kPlain, {here.values.rows()}, here.values.size(), KeyRotation::kApplied, {}});
  return view;
}

void ExactCache::account(ByteLedger& ledger) const {
  for (const Layer& layer : layers_) {
    ledger.add(ByteRole::kWindow, layer.keys.rows());
    ledger.add(ByteRole::kWindow, layer.values.rows());
  }
}

std::unique_ptr<KvCache> ExactCache::clone() const {
  auto copy = std::make_unique<ExactCache>(*this);
  for (Layer& layer : copy->layers_) layer = {layer.keys.clone(), layer.values.clone()};
  return copy;
}

}  // namespace kvsweep::testing
