#include "harness/core/scheme.h"
#include "schemes/codec/hqq.h"
#include "schemes/parts/bit_allocation.h"
#include "schemes/parts/requantized_cache.h"

namespace kvsweep {
namespace {

// transformers' QuantizedCache with the backend "hqq" (5.2.0, cache_utils.py; hqq 0.2.8). When it packs:
// parts/requantized_cache.h; arithmetic and search: codec/hqq.h. Defaults are those of QuantizedLayer, but for the
// axis: its documentation advises 1 with HQQ, where its own default is 0. It has one nbits for K and V; two here.
// Nominal bits are those of a code's slot, 3.2 for 3. The arithmetic is that of the model's dtype: fp16 unless said
// otherwise.
//
// Code differs: codec/hqq.h. Axis 1 is "per channel" in papers that use it and cuts each token along its channels.
struct Side {
  PerLayer<std::string> bits;
  GroupCut cut = GroupCut::kConsecutive;
};

Side read_side(Params& params, const std::string& letter, const std::string& name) {
  Side side;
  side.bits = params.layer_choices(letter + "_bits", "4", {"1", "2", "3", "4", "8"}, "bits of a " + name + "'s code");
  const std::string axis =
      params.choice(letter + "_axis", "1", {"0", "1"},
                    "groups of " + name + "s: 1 channels of a token, 0 values far apart, of tokens and heads");
  side.cut = axis == "1" ? GroupCut::kConsecutive : GroupCut::kStrided;
  return side;
}

class HfHqq final : public Scheme {
 public:
  explicit HfHqq(Params& params) : keys_(read_side(params, "k", "key")), values_(read_side(params, "v", "value")) {
    shared_ = RequantizedParams::read(params, 128, "fp16");
    params.finish();
  }

  SchemeTraits traits() const override { return {.append_invariant = false, .one_pass = false}; }
  NominalBits nominal_bits(int64_t layers) const override {
    const auto mean = [layers](const PerLayer<std::string>& bits) {
      double sum = 0;
      for (const std::string& text : bits.values(layers)) sum += HqqCodec({std::stod(text)}, 1, 64).nominal_bits();
      return sum / static_cast<double>(layers);
    };
    return {mean(keys_.bits), mean(values_.bits)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    return RequantizedCache::compressed_from(shared_.residual_length, context_tokens, tokens);
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const auto k_bits = keys_.bits.values(context.layers), v_bits = values_.bits.values(context.layers);
    const auto codec = [&](const Side& side, const std::string& bits) {
      return std::make_shared<HqqCodec>(HqqOptions{std::stod(bits), side.cut, shared_.group, shared_.dtype},
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

SchemeEntry hf_hqq_entry() {
  return {"hf_hqq", "QuantizedCache of transformers, backend hqq: zero points are searched, everything is packed anew",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<HfHqq>(params); }};
}

}  // namespace kvsweep
