#include <ATen/ATen.h>
#include <fmt/format.h>

#include "harness/core/error.h"
#include "harness/core/scheme.h"
#include "schemes/codec/nvfp4.h"
#include "schemes/parts/static_scales.h"
#include "schemes/parts/streamed_cache.h"

// NVFP4 cache of TensorRT-LLM and vLLM: keys after RoPE and values as four-bit floats E2M1 in blocks of 16 channels
// with an E4M3 scale, and one float32 scale for keys and one for values of a layer; every token as it comes, the one
// being decoded too. Arithmetic: schemes/codec/nvfp4.h.
//
// The scale of a tensor has to stand before its tokens: TensorRT-LLM takes it from an offline calibration (Model
// Optimizer: amax / (6 * 448)), here the artifact; without one it is a number, 1.
//
// Code differs: the original decodes to FP8 before its matrix products (Blackwell); here to float32.

namespace kvsweep {
namespace {

constexpr double kTop = 6.0 * 448;  // of E2M1 and of E4M3

class NvFp4 final : public Scheme {
 public:
  NvFp4(Params& params, bool reads_artifact)
      : block_scales_(params.choice("block_scales", "modelopt", {"modelopt", "torchao"},
                                    "smallest scale of a block: 2^-9, or 2^-6") == "modelopt"
                          ? NvFp4Scales::kModelOpt
                          : NvFp4Scales::kTorchAo),
        scales_(params, "k_tensor_scale", "v_tensor_scale", reads_artifact) {
    params.finish();
  }

  SchemeTraits traits() const override { return {.calibrated = scales_.calibrated()}; }
  NominalBits nominal_bits(int64_t) const override { return {4, 4}; }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    const at::Tensor from = Residency{}.compressed_from(context_tokens, tokens);
    return {from, from};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    if (context.head_dim % 16 != 0)
      throw ConfigError(
          fmt::format("nvfp4 needs a head dim that is a multiple of 16; the model's is {}", context.head_dim));
    scales_.check_model(context);
    const auto stream = [&](const at::Tensor& scale) {
      return StreamPlan{std::make_shared<NvFp4Codec>(context.head_dim, scale.item<float>(), block_scales_), {}};
    };
    std::vector<LayerPlan> plans;
    for (int64_t layer = 0; layer < context.layers; ++layer)
      plans.push_back({stream(scales_.of_keys(layer, kTop, false)), stream(scales_.of_values(layer, kTop, false))});
    return std::make_unique<StreamedCache>(context, plans);
  }
  void account_shared(ByteLedger& ledger) const override { scales_.account(ledger); }

 private:
  NvFp4Scales block_scales_;
  StaticScales scales_;
};

}  // namespace

SchemeEntry nvfp4_entry() {
  return {"nvfp4", "four-bit floats E2M1 in blocks of 16 channels with E4M3 scales",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<NvFp4>(params, true); },
          [](Params& params) -> std::unique_ptr<Calibrator> {
            NvFp4(params, false);
            return StaticScales::calibrator();
          }};
}

}  // namespace kvsweep
