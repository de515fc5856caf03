#include <ATen/ATen.h>

#include "harness/core/scheme.h"
#include "schemes/codec/exact.h"
#include "schemes/parts/streamed_cache.h"

namespace kvsweep {
namespace {

class Full final : public Scheme {
 public:
  SchemeTraits traits() const override { return {.lossless = true}; }
  NominalBits nominal_bits(int64_t) const override { return {}; }
  CompressedFrom compressed_from(int64_t, int64_t tokens) const override {
    const at::Tensor never = at::full({tokens}, kNeverCompressed, at::kLong);
    return {never, never};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const StreamPlan exact{std::make_shared<ExactCodec>(context.dtype), {}};
    return std::make_unique<StreamedCache>(
        context, std::vector<LayerPlan>(static_cast<size_t>(context.layers), {exact, exact, KeyRotation::kApplied}));
  }
};

}  // namespace

SchemeEntry full_entry() {
  return {"full", "full precision: keys after RoPE and values in the compute dtype; the reference of every comparison",
          [](Params& params) -> std::unique_ptr<Scheme> {
            params.finish();
            return std::make_unique<Full>();
          }};
}

}  // namespace kvsweep
