#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/byte_ledger.h"

namespace kvsweep {

// One stored tensor of a codec. Its second dimension counts rows of group_tokens() tokens.
struct PartSpec {
  std::string name;  // "codes", "scale", "zero"
  ByteRole role;
};

// Parts that attention reads where they lie, without knowing the codec: codes, scale and, with `zero`, zero.
//
//   codes   [H, T, B] uint8, or [H, T / group, group, B] with groups along tokens. A token's D codes are one row of
//           B = ceil(D * bits / 8) bytes, a little-endian bit stream: code i takes bits [i * bits, (i + 1) * bits).
//   scale, zero   fp16, bfloat16 or float32; [H, T, D / group], or [H, T / group, D] with groups along tokens.
//   value   (code - offset) * scale + zero, or with `zero_point` (code - zero) * scale
struct PackedLayout {
  int64_t bits = 0;           // 1..8
  int64_t group = 0;          // values that share a scale
  bool along_tokens = false;  // a group is neighbouring tokens of one channel, not neighbouring channels of one token
  bool zero = false;          // there is a third part
  bool zero_point = false;
  bool half_arithmetic = false;  // the result of every operation is rounded to fp16 (without a largest value)
  float offset = 0;
};

// Rows of the parts of a codec that has no layout, a few at a time: how attention decodes them where it needs them.
// Holds the parts; read() may be called from several threads.
class RowReader {
 public:
  virtual ~RowReader() = default;
  virtual int64_t heads() const = 0;
  // Tokens [first, first + count) of one head, with the bits of decode() -> out [count, D].
  virtual void read(int64_t head, int64_t first, int64_t count, float* out) const = 0;
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
  // How kernels may read the parts; nothing: by reader() or decode().
  virtual std::optional<PackedLayout> layout() const { return std::nullopt; }
  // Of parts on the CPU; null: by decode() alone.
  virtual std::unique_ptr<const RowReader> reader(const std::vector<at::Tensor>& /*parts*/) const { return nullptr; }
  // -> [H, T, D] float32
  virtual at::Tensor decode(const std::vector<at::Tensor>& parts) const = 0;
};

}  // namespace kvsweep
