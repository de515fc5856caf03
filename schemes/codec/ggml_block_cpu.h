#pragma once

#include <cstdint>

#include "schemes/codec/ggml_block.h"
#include "schemes/kernels/ggml_tables.h"

namespace kvsweep {

// Where the blocks of consecutive rows lie in CPU memory; ggml_block.h says what they hold. scale and min are float32
// within fp16's range, not yet rounded (encode), or the bits of fp16 (decode). Parts that a type lacks are null. The
// scales of NVFP4 are bytes.
template <class Level, class Byte>
struct GgmlRows {
  Level *scale = nullptr, *min = nullptr;
  Byte *high = nullptr, *codes = nullptr, *scale_bytes = nullptr;
};

// x: `rows` rows of `dim` values that start row_stride apart. False, and nothing useful written, when a block holds
// NaN, infinity or too wide a range.
bool ggml_encode_rows(GgmlType type, const float* x, int64_t row_stride, int64_t rows, int64_t dim,
                      const GgmlRows<float, uint8_t>& to);
// out [rows, dim]
void ggml_decode_rows(GgmlType type, const GgmlRows<const uint16_t, const uint8_t>& from, int64_t rows, int64_t dim,
                      float* out);

}  // namespace kvsweep
