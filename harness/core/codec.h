#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/byte_ledger.h"

namespace kvsweep {

// One stored tensor of a codec. Its second dimension counts rows of group_tokens() tokens.
struct PartSpec {
  std::string name;  // "codes", "scale", "zero"
  ByteRole role;
};

// Tensor <-> packed parts, without state. The unit that fused attention kernels are written for: its header states
// layout and bytes. Metadata is rounded to its stored type before codes are made from it, so that decode sees what
// encode saw. Letters: H kv-heads, T tokens, D head dim.
class Codec {
 public:
  virtual ~Codec() = default;
  virtual std::string name() const = 0;  // "exact", "affine"
  // Tokens come in multiples of this: 1 for per-token groups, the group length for groups along tokens.
  virtual int64_t group_tokens() const { return 1; }
  // Stored as it came: reads of it are not compressed reads, and it is billed as window.
  virtual bool exact() const { return false; }
  // The parts are values that the cache made again from what it stores (a prediction and a residual, say): what is
  // billed is not the parts but what they were made from.
  virtual bool rebuilt() const { return false; }
  // Payload bits a value, without metadata.
  virtual double nominal_bits() const = 0;
  virtual std::vector<PartSpec> parts() const = 0;
  // x [H, T, D], T a multiple of group_tokens() -> one tensor for each of parts(), each [H, T / group_tokens(), ...].
  // T may be 0: the shapes and dtypes of the parts.
  virtual std::vector<at::Tensor> encode(const at::Tensor& x) const = 0;
  // -> [H, T, D] float32
  virtual at::Tensor decode(const std::vector<at::Tensor>& parts) const = 0;
};

}  // namespace kvsweep
