#pragma once

#include "schemes/kernels/ggml_tables.h"
#include "schemes/kernels/rows.h"

namespace kvsweep {

// The loops of GgmlCodec over CUDA memory (codec/ggml_block.h) for types with blocks, in one kernel each, queued on a
// cudaStream_t. Launch errors are left for cudaGetLastError().

// Writes the type's parts; those that it lacks are null. A block with NaN, infinity or too wide a range gets NaN as
// scale; NVFP4 has none to mark it with.
struct GgmlEncode {
  GgmlType type = GgmlType::kQ8_0;
  DeviceRows x;
  void *scale = nullptr, *min = nullptr;  // fp16; scale of NVFP4: bytes
  uint8_t *high = nullptr, *codes = nullptr;
};
void ggml_encode_cuda(const GgmlEncode& job, void* stream);

// Writes out [H, T, D].
struct GgmlDecode {
  GgmlType type = GgmlType::kQ8_0;
  int64_t heads = 0, tokens = 0, dim = 0;
  DevicePart scale, min, high, codes;
  float* out = nullptr;
};
void ggml_decode_cuda(const GgmlDecode& job, void* stream);

}  // namespace kvsweep
