#include <ATen/ATen.h>

#include "harness/core/scheme.h"
#include "schemes/codec/float8.h"
#include "schemes/parts/static_scales.h"
#include "schemes/parts/streamed_cache.h"

// FP8 caches of vLLM (--kv-cache-dtype fp8_e4m3, fp8_e5m2, fp8_per_token_head): keys after RoPE and values as eight-bit
// floats, every token as it comes, the one being decoded too. Arithmetic: schemes/codec/float8.h.
//
// per: tensor   one scale for keys and one for values of a layer: k_scale and v_scale, 1 as in vLLM without calibration
//               (values beyond 448 saturate), or amax / top from an artifact
//      head     one a kv-head, from an artifact
//      token    one for each token of each head, from its own amax
//
// Code differs: with FlashAttention 3, vLLM computes the whole attention in FP8, queries too; here the cache alone is
// FP8. vLLM's own calibration (calculate_kv_scales) looks at random tokens; an artifact's text is chosen. Formats may
// differ by layer here, and between keys and values.

namespace kvsweep {
namespace {

enum class Per { kTensor, kHead, kToken };

Float8Format format_of(const std::string& name) {
  return name == "e4m3" ? Float8Format::kE4M3 : Float8Format::kE5M2;
}

class Fp8 final : public Scheme {
 public:
  Fp8(Params& params, bool reads_artifact);

  SchemeTraits traits() const override { return {.calibrated = scales_.calibrated()}; }
  NominalBits nominal_bits(int64_t) const override { return {8, 8}; }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    const at::Tensor from = Residency{}.compressed_from(context_tokens, tokens);
    return {from, from};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override;
  void account_shared(ByteLedger& ledger) const override { scales_.account(ledger); }

 private:
  PerLayer<std::string> k_formats_, v_formats_;
  Per per_;
  StaticScales scales_;
};

Per read_per(Params& params) {
  const std::string per =
      params.choice("per", "tensor", {"tensor", "head", "token"},
                    "what shares a scale: a layer's keys or values, a head of them, or a token of a head");
  return per == "tensor" ? Per::kTensor : per == "head" ? Per::kHead : Per::kToken;
}

Fp8::Fp8(Params& params, bool reads_artifact)
    : k_formats_(params.layer_choices("k_format", "e4m3", {"e4m3", "e5m2"}, "eight-bit float of keys")),
      v_formats_(params.layer_choices("v_format", "e4m3", {"e4m3", "e5m2"}, "eight-bit float of values")),
      per_(read_per(params)),
      scales_(params, "k_scale", "v_scale", reads_artifact) {
  params.finish();
  if (per_ == Per::kToken && (scales_.given() || !reads_artifact))
    params.reject("per", "a token's scale comes from the token: neither a number nor an artifact says it");
  if (per_ == Per::kHead && reads_artifact && !scales_.calibrated())
    params.reject("per", "scales of heads come from an artifact of `kvsweep calibrate`");
}

std::unique_ptr<KvCache> Fp8::make_cache(const CacheContext& context) const {
  scales_.check_model(context);
  const auto k_formats = k_formats_.values(context.layers), v_formats = v_formats_.values(context.layers);
  const auto stream = [&](const std::string& name, size_t layer, bool keys) {
    const Float8Format format = format_of(name);
    if (per_ == Per::kToken) return StreamPlan{std::make_shared<Float8Codec>(format, at::Tensor{}), {}};
    const auto index = static_cast<int64_t>(layer);
    const double top = float8_top(format);
    const bool per_head = per_ == Per::kHead;
    const at::Tensor scale = keys ? scales_.of_keys(index, top, per_head) : scales_.of_values(index, top, per_head);
    return StreamPlan{std::make_shared<Float8Codec>(format, scale.to(context.device)), {}};
  };
  std::vector<LayerPlan> plans;
  for (size_t layer = 0; layer < k_formats.size(); ++layer)
    plans.push_back({stream(k_formats[layer], layer, true), stream(v_formats[layer], layer, false)});
  return std::make_unique<StreamedCache>(context, plans);
}

}  // namespace

SchemeEntry fp8_entry() {
  return {"fp8", "eight-bit floats E4M3 or E5M2 with a scale for a tensor, a head or a token",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<Fp8>(params, true); },
          [](Params& params) -> std::unique_ptr<Calibrator> {
            Fp8(params, false);
            return StaticScales::calibrator();
          }};
}

}  // namespace kvsweep
