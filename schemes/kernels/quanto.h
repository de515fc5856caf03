#pragma once

#include "schemes/kernels/rows.h"

namespace kvsweep {

// The loops of QuantoCodec over CUDA memory (codec/quanto.h), queued on a cudaStream_t. Launch errors are left for
// cudaGetLastError(). Values are flattened, `rows` rows of `dim`; groups as codec/value_groups.h orders them.
struct QuantoShape {
  int64_t bits = 0, group = 0, rows = 0, dim = 0;
  bool by_rows = false;  // a group: `group` rows of one channel, else `group` values that follow one another
  FloatType type = FloatType::kHalf;
};

// x: without gaps. Writes codes [packed_bytes(rows * dim, bits)], scale and shift [groups] of the type, in two kernels.
// A group with NaN or infinity gets NaN as scale.
struct QuantoEncode {
  QuantoShape shape;
  const void* x = nullptr;
  FloatType x_type = FloatType::kFloat;
  uint8_t* codes = nullptr;
  void *scale = nullptr, *shift = nullptr;
};
void quanto_encode_cuda(const QuantoEncode& job, void* stream);

// Writes out [rows, dim].
struct QuantoDecode {
  QuantoShape shape;
  const uint8_t* codes = nullptr;
  const void *scale = nullptr, *shift = nullptr;
  float* out = nullptr;
};
void quanto_decode_cuda(const QuantoDecode& job, void* stream);

}  // namespace kvsweep
