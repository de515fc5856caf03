#include "schemes/parts/static_scales.h"

#include <ATen/ATen.h>

namespace kvsweep {
namespace {

constexpr double kLowest = 1e-6, kHighest = 1e6;

class AmaxCalibrator final : public Calibrator {
 public:
  std::map<std::string, at::Tensor> layer(const CalibrationLayer& layer) override {
    TORCH_CHECK(layer.rope != nullptr, "largest magnitudes of keys are those after RoPE: the layer has no Rope");
    at::Tensor keys, values;
    for (size_t i = 0; i < layer.keys.size(); ++i) {
      widen(keys, layer.rope->apply(layer.keys[i], 0));
      widen(values, layer.values[i]);
    }
    return {{"k_amax", keys}, {"v_amax", values}};
  }

 private:
  static void widen(at::Tensor& amax, const at::Tensor& x) {
    const at::Tensor largest = x.to(at::kFloat).abs().amax({1, 2}).to(at::kCPU);
    amax = amax.defined() ? at::maximum(amax, largest) : largest;
  }
};

}  // namespace

StaticScales::StaticScales(Params& params, const char* k_key, const char* v_key, bool reads_artifact) {
  k_scale_ = params.number(k_key, 1, kLowest, kHighest, "scale of keys, where no artifact says it");
  v_scale_ = params.number(v_key, 1, kLowest, kHighest, "scale of values, where no artifact says it");
  if (!reads_artifact) return;
  const auto path = params.file("artifact", "of `kvsweep calibrate`: scales from largest magnitudes", false);
  if (path.empty()) return;
  if (k_scale_ != 1) params.reject(k_key, "an artifact says the scales");
  if (v_scale_ != 1) params.reject(v_key, "an artifact says the scales");
  artifact_ = read_artifact(path, params.owner());
}

void StaticScales::check_model(const CacheContext& context) const {
  if (artifact_) artifact_->check_model(context);
}

at::Tensor StaticScales::scale(const char* name, double number, int64_t layer, double top, bool per_head) const {
  if (!artifact_) return at::full({1}, number, at::kFloat);
  const at::Tensor& heads = artifact_->tensor(layer, name);
  const at::Tensor amax = per_head ? heads : heads.max().view({1});
  return amax.div(top).masked_fill(amax.eq(0), 1);
}

void StaticScales::account(ByteLedger& ledger) const {
  if (!artifact_) return;
  for (const auto& [name, tensor] : artifact_->tensors) ledger.add(ByteRole::kScales, tensor);
}

std::unique_ptr<Calibrator> StaticScales::calibrator() {
  return std::make_unique<AmaxCalibrator>();
}

}  // namespace kvsweep
