// LMDeploy's online quantization of keys and values (quant_policy 8 and 4), after github.com/InternLM/lmdeploy: every
// token on its way into the cache, keys after RoPE, one scale and one zero for each token and head; no window.
//
// engine: pytorch    lmdeploy/pytorch/kernels/cuda/fill_kv_cache.py. A zero-point that is no integer, halves go up,
//                    codes from scale and zero before these are rounded to the model's type.
//         turbomind  src/turbomind/kernels/attention/quantization.h. A minimum, arithmetic in fp16, the scale's
//                    reciprocal rounded to fp16, halves go to even. From reading the source: there is no vector of it.
// LMDeploy's own default is TurboMind, ours the engine that can be checked.
//
// Ours: bits of keys and values set apart, and others than 8 and 4; metadata in a type of its own (LMDeploy: that of
// the model). A row without a range, or with an offset that its zero-point cannot hold, decodes to its minimum, where
// the pytorch engine divides by zero or stores infinity.
#include "harness/core/scheme.h"
#include "schemes/codec/affine.h"
#include "schemes/parts/streamed_cache.h"

namespace kvsweep {
namespace {

class LmDeploy final : public Scheme {
 public:
  explicit LmDeploy(Params& params);

  NominalBits nominal_bits(int64_t layers) const override {
    return {mean_of(k_bits_, layers), mean_of(v_bits_, layers)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    return {Residency{}.compressed_from(context_tokens, tokens), Residency{}.compressed_from(context_tokens, tokens)};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const auto stream = [&](int64_t bits) {
      AffineOptions options = options_;
      options.bits = bits;
      options.group = context.head_dim;
      return StreamPlan{std::make_shared<AffineCodec>(options, context.head_dim), {}};
    };
    const auto k_bits = k_bits_.values(context.layers), v_bits = v_bits_.values(context.layers);
    std::vector<LayerPlan> plans;
    for (size_t layer = 0; layer < k_bits.size(); ++layer)
      plans.push_back({stream(k_bits[layer]), stream(v_bits[layer])});
    return std::make_unique<StreamedCache>(context, plans);
  }

 private:
  PerLayer<int64_t> k_bits_, v_bits_;
  AffineOptions options_;  // but for bits and group
};

LmDeploy::LmDeploy(Params& params) {
  k_bits_ = params.layer_integers("k_bits", 8, 1, 8, "bits of a key's code");
  v_bits_ = params.layer_integers("v_bits", 8, 1, 8, "bits of a value's code");
  const bool turbomind =
      params.choice("engine", "pytorch", {"pytorch", "turbomind"}, "whose formulas and rounding") == "turbomind";
  const std::string metadata =
      params.choice("metadata", "fp16", {"fp16", "bf16", "fp32"}, "type of scale and zero; turbomind: fp16");
  params.finish();
  if (turbomind && metadata != "fp16") params.reject("metadata", "turbomind's arithmetic is fp16: allowed is fp16");
  options_.metadata = metadata == "fp16" ? at::kHalf : metadata == "bf16" ? at::kBFloat16 : at::kFloat;
  options_.form = turbomind ? AffineForm::kReciprocal : AffineForm::kZeroPoint;
  if (turbomind) options_.arithmetic = at::kHalf;
}

}  // namespace

SchemeEntry lmdeploy_entry() {
  return {"lmdeploy", "LMDeploy's INT8 and INT4: every token, one scale and zero for each token and head",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<LmDeploy>(params); }};
}

}  // namespace kvsweep
