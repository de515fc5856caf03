#include "harness/core/scheme.h"
#include "schemes/codec/quanto.h"
#include "schemes/parts/bit_allocation.h"
#include "schemes/parts/requantized_cache.h"

namespace kvsweep {
namespace {

// transformers' QuantizedCache with the backend "quanto" (5.2.0, cache_utils.py; optimum-quanto 0.2.7), made after
// KIVI. When it packs: parts/requantized_cache.h; arithmetic: codec/quanto.h. Defaults are those of QuantizedLayer. It
// has one nbits for K and V; two here. The arithmetic is that of the model's dtype: fp16 unless said otherwise,
// whatever the harness computes in.
//
// Paper differs: KIVI groups keys along tokens, never packs a token twice and keeps a sliding window of values. Axis 0,
// the default, is "per channel" in the original's documentation and cuts each token along its channels.
struct Side {
  PerLayer<std::string> bits;
  GroupCut cut = GroupCut::kConsecutive;
};

Side read_side(Params& params, const std::string& letter, const std::string& name) {
  Side side;
  side.bits = params.layer_choices(letter + "_bits", "4", {"2", "4"}, "bits of a " + name + "'s code");
  const std::string axis = params.choice(letter + "_axis", "0", {"0", "-1"},
                                         "groups of " + name + "s: 0 channels of a token, -1 tokens of a channel");
  side.cut = axis == "0" ? GroupCut::kConsecutive : GroupCut::kRows;
  return side;
}

class HfQuanto final : public Scheme {
 public:
  explicit HfQuanto(Params& params) : keys_(read_side(params, "k", "key")), values_(read_side(params, "v", "value")) {
    shared_ = RequantizedParams::read(params, 128, "fp16");
    params.finish();
  }

  SchemeTraits traits() const override { return {.append_invariant = false, .one_pass = false}; }
  NominalBits nominal_bits(int64_t layers) const override {
    return {mean_bits(keys_.bits, layers), mean_bits(values_.bits, layers)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    return RequantizedCache::compressed_from(shared_.residual_length, context_tokens, tokens);
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const auto k_bits = keys_.bits.values(context.layers), v_bits = values_.bits.values(context.layers);
    const auto codec = [&](const Side& side, const std::string& bits) {
      return std::make_shared<QuantoCodec>(QuantoOptions{std::stoll(bits), side.cut, shared_.group, shared_.dtype},
                                           context.kv_heads, context.head_dim);
    };
    std::vector<RequantizedPlan> plans;
    for (size_t layer = 0; layer < k_bits.size(); ++layer)
      plans.push_back({codec(keys_, k_bits[layer]), codec(values_, v_bits[layer])});
    return std::make_unique<RequantizedCache>(context, plans, shared_.residual_length);
  }

 private:
  Side keys_, values_;
  RequantizedParams shared_;
};

}  // namespace

SchemeEntry hf_quanto_entry() {
  return {"hf_quanto", "QuantizedCache of transformers, backend quanto: everything is packed anew every so many tokens",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<HfQuanto>(params); }};
}

}  // namespace kvsweep
