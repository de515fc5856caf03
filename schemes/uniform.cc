#include <ATen/ATen.h>
#include <fmt/format.h>

#include <set>

#include "harness/core/error.h"
#include "harness/core/scheme.h"
#include "schemes/codec/affine.h"
#include "schemes/codec/exact.h"
#include "schemes/parts/streamed_cache.h"

namespace kvsweep {
namespace {

constexpr int64_t kMaxTokens = 1 << 20;
constexpr int64_t kMostBits = 8, kExactBits = 16;  // 16 stands for "not compressed", as in nominal bits

// Keys or values. The bits of `options` are those of a layer.
struct Side {
  PerLayer<int64_t> bits;
  AffineOptions options;

  bool exact() const { return bits.distinct() == std::set<int64_t>{kExactBits}; }
};

class Uniform final : public Scheme {
 public:
  explicit Uniform(Params& params);

  SchemeTraits traits() const override { return {.lossless = keys_.exact() && values_.exact()}; }
  NominalBits nominal_bits(int64_t layers) const override {
    return {mean_of(keys_.bits, layers), mean_of(values_.bits, layers)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    const auto side = [&](const Side& of) {
      return of.exact() ? at::full({tokens}, kNeverCompressed, at::kLong)
                        : residency(of.options).compressed_from(context_tokens, tokens);
    };
    return {side(keys_), side(values_)};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const auto k_bits = keys_.bits.values(context.layers), v_bits = values_.bits.values(context.layers);
    std::vector<LayerPlan> plans;
    for (size_t layer = 0; layer < k_bits.size(); ++layer)
      plans.push_back({stream("k_group", keys_, k_bits[layer], context),
                       stream("v_group", values_, v_bits[layer], context), rotation_});
    return std::make_unique<StreamedCache>(context, plans);
  }

 private:
  // Groups along tokens wait exact until they are full.
  Residency residency(const AffineOptions& options) const {
    return {sink_, window_, options.axis == GroupAxis::kChannel ? options.group : 1};
  }
  StreamPlan stream(const char* key, const Side& side, int64_t bits, const CacheContext& context) const {
    if (bits == kExactBits) return {std::make_shared<ExactCodec>(context.dtype), {}};
    const int64_t head_dim = context.head_dim;
    AffineOptions options = side.options;
    options.bits = bits;
    if (options.axis == GroupAxis::kToken && head_dim % options.group != 0)
      throw ConfigError(
          fmt::format("uniform.{} = {} does not divide the model's head dim {}: groups along a token "
                      "need a divisor of it",
                      key, options.group, head_dim));
    return {std::make_shared<AffineCodec>(options, head_dim), residency(options)};
  }

  Side keys_, values_;
  KeyRotation rotation_ = KeyRotation::kApplied;
  int64_t sink_ = 0, window_ = 0;
};

Uniform::Uniform(Params& params) {
  const auto axis = [&params](const char* key, const char* help) {
    return params.choice(key, "token", {"token", "channel"}, help) == "token" ? GroupAxis::kToken : GroupAxis::kChannel;
  };
  const auto side_bits = [&params](const char* key, const char* help) {
    PerLayer<int64_t> given = params.layer_integers(key, 4, 1, kExactBits, help);
    for (const int64_t value : given.distinct())
      if (value > kMostBits && value != kExactBits) params.reject(key, "1 to 8 bits, or 16: exact");
    return given;
  };
  keys_.bits = side_bits("k_bits", "bits of a key's code, 1 to 8; 16: keys stay exact, in the compute dtype");
  values_.bits = side_bits("v_bits", "bits of a value's code, 1 to 8; 16: values stay exact, in the compute dtype");
  const int64_t group = params.integer("group", 64, 2, 1024, "values that share a scale and a zero");
  const auto own_group = [&](const char* key, const char* help) {
    const int64_t own = params.integer(key, 0, 0, 1024, help);
    if (own == 1) params.reject(key, "a group has at least 2 values");
    return own == 0 ? group : own;
  };
  keys_.options.group = own_group("k_group", "the same for keys alone; 0: group");
  values_.options.group = own_group("v_group", "the same for values alone; 0: group");
  keys_.options.axis = axis("k_axis", "keys: a group is channels of one token, or tokens of one channel");
  values_.options.axis = axis("v_axis", "values: a group is channels of one token, or tokens of one channel");
  keys_.options.symmetric = values_.options.symmetric =
      params.flag("symmetric", false, "levels around zero, no stored minimum");
  keys_.options.metadata = values_.options.metadata =
      params.choice("metadata", "fp16", {"fp16", "fp32"}, "type of scale and zero") == "fp16" ? at::kHalf : at::kFloat;
  sink_ = params.integer("sink", 0, 0, kMaxTokens, "first tokens, kept exact");
  window_ = params.integer("window", 0, 0, kMaxTokens, "newest tokens, kept exact; counts the token being decoded");
  if (params.choice("k_rope", "after", {"after", "before"}, "keys are compressed after or before RoPE") == "before")
    rotation_ = KeyRotation::kPending;
  params.finish();
  for (const auto& [key, bits] : {std::pair{"k_bits", keys_.bits}, std::pair{"v_bits", values_.bits}})
    if (keys_.options.symmetric && bits.distinct().contains(1))
      params.reject(key, "symmetric levels need at least 2 bits");
}

}  // namespace

SchemeEntry uniform_entry() {
  return {"uniform", "affine codes of 1 to 8 bits in groups along channels or tokens, with optional sink and window",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<Uniform>(params); }};
}

}  // namespace kvsweep
