#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "harness/core/rope.h"

namespace kvsweep {

// One layer of the model in full precision, as a calibrator sees it. Letters: C = H * D channels of all kv-heads, head
// by head.
struct CalibrationLayer {
  int64_t index = 0;
  at::Tensor key_weight, value_weight;   // [C, hidden], the compute dtype
  std::vector<at::Tensor> keys, values;  // one a sequence, [H, T, D] float32, keys before RoPE; may be views. None for
                                         // a calibrator that reads no text.
  const Rope* rope = nullptr;            // of the model; a sequence starts at position 0
};

// Makes a scheme's artifact: layer by layer, in order, from the model's own weights and activations. What it says of
// one layer may depend on what it made of the layers before (AQUA-KV).
class Calibrator {
 public:
  virtual ~Calibrator() = default;
  // Without text only weights are looked at.
  virtual bool reads_text() const { return true; }
  // -> tensors of this layer; the artifact holds them as "layers.<index>.<name>".
  virtual std::map<std::string, at::Tensor> layer(const CalibrationLayer& layer) = 0;
  // After the last layer: tensors of the whole model, under their own names.
  virtual std::map<std::string, at::Tensor> finish() { return {}; }
  // What the next layer, finish() and report() need to know of the layers so far. A calibration that was stopped goes
  // on with restore() and the next layer, and ends in the same tensors and report.
  virtual std::map<std::string, at::Tensor> state() const { return {}; }
  virtual void restore(const std::map<std::string, at::Tensor>&) {}
  // Lines for a person, after the last layer: "equivalent bits", an allocation.
  virtual std::vector<std::string> report() const { return {}; }
};

}  // namespace kvsweep
