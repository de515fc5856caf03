#include "schemes/parts/requantized_cache.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "schemes/codec/exact.h"
#include "schemes/parts/finite.h"

namespace kvsweep {
namespace {

int64_t cycle_of(int64_t residual_length) {
  return std::max<int64_t>(residual_length, 2);
}

constexpr int64_t kMaxTokens = 1 << 20;

}  // namespace

RequantizedParams RequantizedParams::read(Params& params, int64_t residual_length, const std::string& dtype) {
  RequantizedParams read;
  read.group = params.integer("group", read.group, 2, 1024, "values that share metadata");
  read.residual_length =
      params.integer("residual", residual_length, 0, kMaxTokens,
                     "so many new tokens wait exact, then everything is packed anew; 0 and 1 work as 2");
  const std::string type = params.choice("dtype", dtype, {"fp16", "bf16", "fp32"}, "type of arithmetic and metadata");
  read.dtype = type == "fp16" ? at::kHalf : type == "bf16" ? at::kBFloat16 : at::kFloat;
  return read;
}

RequantizedCache::RequantizedCache(const CacheContext& context, const std::vector<RequantizedPlan>& plans,
                                   int64_t residual_length)
    : rope_(context.rope),
      exact_(std::make_shared<ExactCodec>(context.dtype)),
      residual_length_(cycle_of(residual_length)),
      expected_tokens_(context.expected_tokens) {
  TORCH_CHECK(static_cast<int64_t>(plans.size()) == context.layers, "cache: ", plans.size(), " plans for ",
              context.layers, " layers");
  TORCH_CHECK(rope_ != nullptr, "cache: keys after RoPE need a Rope");
  const at::Tensor none =
      at::empty({context.kv_heads, 0, context.head_dim}, at::dtype(context.dtype).device(context.device));
  for (const RequantizedPlan& plan : plans) {
    TORCH_CHECK(plan.keys->group_tokens() == 1 && plan.values->group_tokens() == 1,
                "cache: a residual of any length is packed, but the codec takes groups of tokens");
    // The prompt's tokens pass through the residual once: room for them is not reserved.
    layers_.push_back({{plan.keys, TokenBuffer(none, 0)}, {plan.values, TokenBuffer(none, 0)}});
  }
}

bool RequantizedCache::due(const Side& side) const {
  return side.packed_tokens == 0 ? side.residual.size() > 0 : side.residual.size() >= residual_length_;
}

void RequantizedCache::settle(Side& side) const {
  if (!due(side)) return;
  at::Tensor x = side.residual.rows();
  if (side.packed_tokens > 0) x = at::cat({side.codec->decode(side.packed), x.to(at::kFloat)}, 1);
  side.packed = side.codec->encode(x);
  side.packed_tokens = x.size(1);
  side.residual = TokenBuffer(side.residual.rows(), std::min(residual_length_, expected_tokens_));
}

void RequantizedCache::append(Side& side, const at::Tensor& x) const {
  for (int64_t from = 0; from < x.size(1);) {
    settle(side);
    const int64_t left = x.size(1) - from;
    const int64_t count = side.packed_tokens == 0 ? left : std::min(left, residual_length_ - side.residual.size());
    side.residual.append(x.narrow(1, from, count));
    from += count;
  }
}

void RequantizedCache::append(int64_t layer, const KvSlab& slab) {
  Layer& at = layers_.at(static_cast<size_t>(layer));
  const int64_t held = at.keys.packed_tokens + at.keys.residual.size();
  TORCH_CHECK(slab.k.dim() == 3 && slab.k.sizes() == slab.v.sizes(), "cache: keys of sizes ", slab.k.sizes(),
              " and values of sizes ", slab.v.sizes());
  if (held == 0) at.position = slab.position;
  TORCH_CHECK(slab.position == at.position + held, "cache: layer ", layer, " holds positions ", at.position, " to ",
              at.position + held - 1, "; a slab at ", slab.position, " does not follow");
  if (slab.k.size(1) == 0) return;
  require_finite(layer, slab);
  append(at.keys, rope_->apply(slab.k, slab.position));
  append(at.values, slab.v);
}

void RequantizedCache::finish_context() {
  for (Layer& layer : layers_) {
    settle(layer.keys);
    settle(layer.values);
  }
}

c10::SmallVector<KvRun, 3> RequantizedCache::runs(const Side& side) const {
  c10::SmallVector<KvRun, 3> runs;
  const auto add = [&runs](const Codec* codec, std::vector<at::Tensor> parts, int64_t tokens) {
    if (tokens == 0) return;
    KvRun& run = runs.emplace_back();
    run.codec = codec;
    run.parts = std::move(parts);
    run.tokens = tokens;
  };
  add(side.codec.get(), side.packed, side.packed_tokens);
  add(exact_.get(), {side.residual.rows()}, side.residual.size());
  return runs;
}

KvView RequantizedCache::read(int64_t layer) const {
  const Layer& at = layers_.at(static_cast<size_t>(layer));
  KvView view;
  view.keys = runs(at.keys);
  view.values = runs(at.values);
  view.position = at.position;
  return view;
}

void RequantizedCache::account(ByteLedger& ledger) const {
  for (const Layer& layer : layers_)
    for (const Side* side : {&layer.keys, &layer.values}) {
      const std::vector<PartSpec> parts = side->codec->parts();
      for (size_t i = 0; i < side->packed.size(); ++i) ledger.add(parts[i].role, side->packed[i]);
      ledger.add(ByteRole::kWindow, side->residual.rows());
    }
}

std::unique_ptr<KvCache> RequantizedCache::clone() const {
  std::unique_ptr<RequantizedCache> copy(new RequantizedCache(*this));
  for (Layer& layer : copy->layers_)
    for (Side* side : {&layer.keys, &layer.values}) side->residual = side->residual.clone();
  return copy;
}

CompressedFrom RequantizedCache::compressed_from(int64_t residual_length, int64_t context_tokens, int64_t tokens) {
  const int64_t prompt = std::max<int64_t>(context_tokens, 1), cycle = cycle_of(residual_length);
  at::Tensor from = at::full({tokens}, prompt, at::kLong);
  auto* out = from.mutable_data_ptr<int64_t>();
  for (int64_t t = prompt; t < tokens; ++t) out[t] = prompt + ((t - prompt) / cycle + 1) * cycle;
  return {from, from};
}

}  // namespace kvsweep
