// KIVI (Liu et al., ICML 2024, arXiv 2402.02750), after its code, github.com/jy-yuan/KIVI: models/llama_kivi.py for
// what is packed when, quant/new_pack.py for how.
//
// Keys after RoPE in groups of `group` tokens of one channel, values in groups of `group` channels of one token and
// head; minimum, scale and every step between in fp16. Keys wait exact until `residual` of them are there and are then
// packed together; the newest `residual` values are exact. The step that fills the residual still reads it exact.
//
// Paper differs: its tables 1 and 3 also list quantizers of every token without a residual, whose unfilled groups are
// padded with zeros. `residual: 0` comes close, but tokens of an unfilled group stay exact.
// Code differs: the paper's main tables have groups of 32, the defaults of utils/process_args.py groups of 128.
// Ours: exact tokens keep the compute dtype, which is fp16 in the code; bits other than 2 and 4, for which the code has
// no kernels; a group without a range decodes to its minimum, where the code divides zero by zero.
#include <fmt/format.h>

#include "harness/core/error.h"
#include "harness/core/scheme.h"
#include "schemes/codec/affine.h"
#include "schemes/parts/streamed_cache.h"

namespace kvsweep {
namespace {

class Kivi final : public Scheme {
 public:
  explicit Kivi(Params& params);

  NominalBits nominal_bits(int64_t layers) const override {
    return {mean_of(k_bits_, layers), mean_of(v_bits_, layers)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    return {key_residency().compressed_from(context_tokens, tokens),
            value_residency().compressed_from(context_tokens, tokens)};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const int64_t dim = context.head_dim;
    if (dim % group_ != 0)
      throw ConfigError(
          fmt::format("kivi.group = {} does not divide the model's head dim {}: a group of values is "
                      "channels of one token",
                      group_, dim));
    const auto codec = [this, dim](int64_t bits, GroupAxis axis) {
      return std::make_shared<AffineCodec>(AffineOptions{bits, group_, axis, false, at::kHalf, at::kHalf}, dim);
    };
    const auto k_bits = k_bits_.values(context.layers), v_bits = v_bits_.values(context.layers);
    std::vector<LayerPlan> plans;
    for (size_t layer = 0; layer < k_bits.size(); ++layer)
      plans.push_back({{codec(k_bits[layer], GroupAxis::kChannel), key_residency()},
                       {codec(v_bits[layer], GroupAxis::kToken), value_residency()}});
    return std::make_unique<StreamedCache>(context, plans);
  }

 private:
  Residency key_residency() const { return residual_ == 0 ? Residency{0, 0, group_} : Residency{0, 1, residual_}; }
  Residency value_residency() const { return residual_ == 0 ? Residency{0, 0, 1} : Residency{0, residual_ + 1, 1}; }

  PerLayer<int64_t> k_bits_, v_bits_;
  int64_t group_ = 0, residual_ = 0;
};

Kivi::Kivi(Params& params) {
  k_bits_ = params.layer_integers("k_bits", 2, 1, 8, "bits of a key's code");
  v_bits_ = params.layer_integers("v_bits", 2, 1, 8, "bits of a value's code");
  group_ = params.integer("group", 32, 2, 1024,
                          "tokens of a channel (keys), channels of a token (values) that share "
                          "a scale and a minimum; divides the head dim");
  residual_ = params.integer("residual", 128, 0, 1 << 20,
                             "newest tokens, kept exact: a multiple of group; 0: a group "
                             "is packed as soon as it is full, the token being decoded too");
  params.finish();
  if (residual_ % group_ != 0)
    params.reject("residual",
                  fmt::format("keys are packed in whole groups: allowed are multiples of the group {}", group_));
}

}  // namespace

SchemeEntry kivi_entry() {
  return {"kivi", "KIVI: keys in groups along tokens, values along channels, both in fp16 arithmetic, newest exact",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<Kivi>(params); }};
}

}  // namespace kvsweep
