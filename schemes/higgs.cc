#include "harness/core/scheme.h"
#include "schemes/parts/higgs_settings.h"
#include "schemes/parts/streamed_cache.h"

namespace kvsweep {
namespace {

// The quantizer of AQUA-KV without its predictors (arXiv 2501.19392 compares with it): no calibration, every layer
// alike. Keys before RoPE.
class Higgs final : public Scheme {
 public:
  explicit Higgs(Params& params) : settings_(params) { params.finish(); }

  // Compressed in blocks when `whole`: what waits depends on how tokens came.
  SchemeTraits traits() const override { return {.append_invariant = !settings_.residency.whole}; }
  NominalBits nominal_bits(int64_t layers) const override {
    return {mean_of(settings_.k_bits, layers), mean_of(settings_.v_bits, layers)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    const at::Tensor from = settings_.residency.compressed_from(context_tokens, tokens);
    return {from, from};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const auto k_bits = settings_.k_bits.values(context.layers), v_bits = settings_.v_bits.values(context.layers);
    const auto stream = [&](int64_t bits) {
      return StreamPlan{settings_.codec(bits, context.kv_heads, context.head_dim), settings_.residency};
    };
    std::vector<LayerPlan> plans;
    for (size_t layer = 0; layer < k_bits.size(); ++layer)
      plans.push_back({stream(k_bits[layer]), stream(v_bits[layer]), KeyRotation::kPending});
    return std::make_unique<StreamedCache>(context, plans);
  }

 private:
  HiggsSettings settings_;
};

}  // namespace

SchemeEntry higgs_entry() {
  return {"higgs",
          "lattice codes of Hadamard-transformed channels of all heads: AQUA-KV's quantizer without predictors",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<Higgs>(params); }};
}

}  // namespace kvsweep
