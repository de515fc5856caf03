#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "harness/core/calibrator.h"
#include "harness/core/params.h"
#include "harness/files/artifact.h"

namespace kvsweep {

// Scales that are known before the first token comes. A cache that streams cannot take them from its data, since a
// later token would change what is stored: they are numbers of the sweep, or come from largest magnitudes that a
// calibration saw.
class StaticScales {
 public:
  // Declares the numbers `k_key` and `v_key` (default 1) and, with `reads_artifact`, "artifact", which is optional and
  // stands instead of them. Throws ConfigError when both are given.
  StaticScales(Params& params, const char* k_key, const char* v_key, bool reads_artifact);

  bool calibrated() const { return artifact_.has_value(); }
  bool given() const { return calibrated() || k_scale_ != 1 || v_scale_ != 1; }
  // Throws ConfigError when the artifact was made for another model.
  void check_model(const CacheContext& context) const;
  // float32 on the CPU. The number: [1]. Calibrated: amax / top, of each head [H], or one for all of them [1]; 1 where
  // nothing but zeros was seen. `top` is what a scale of one can hold.
  at::Tensor of_keys(int64_t layer, double top, bool per_head) const {
    return scale("k_amax", k_scale_, layer, top, per_head);
  }
  at::Tensor of_values(int64_t layer, double top, bool per_head) const {
    return scale("v_amax", v_scale_, layer, top, per_head);
  }
  void account(ByteLedger& ledger) const;

  // Makes the artifact: of each layer "k_amax" [H] float32, keys after RoPE, and "v_amax" [H].
  static std::unique_ptr<Calibrator> calibrator();

 private:
  at::Tensor scale(const char* name, double number, int64_t layer, double top, bool per_head) const;

  double k_scale_ = 1, v_scale_ = 1;
  std::optional<Artifact> artifact_;
};

}  // namespace kvsweep
