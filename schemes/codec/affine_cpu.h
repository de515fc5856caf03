#pragma once

#include <cstdint>

#include "schemes/kernels/affine_math.h"

namespace kvsweep {

// The loops of AffineCodec over CPU memory; affine.h states the arithmetic. A block is `tokens` tokens of one head; on
// the channel axis exactly one group. Metadata is float32 here, already rounded to its stored type.
struct AffineBlock {
  AffineShape shape;
  int64_t tokens = 0;
};

// packed: tokens rows of packed_bytes(dim, bits). scale, zero: [tokens, dim / group], channel axis [dim]. codes: room
// for tokens * dim. out: [tokens, dim].
void affine_decode_block(const AffineBlock& block, const uint8_t* packed, const float* scale, const float* zero,
                         uint8_t* codes, float* out);

// x: rows of `dim` values that start token_stride apart. Writes packed, scale and zero (zeros when symmetric). scratch:
// room for 5 * dim floats. False, and nothing useful written, when a group holds NaN, infinity or too wide a range.
bool affine_encode_block(const AffineBlock& block, const float* x, int64_t token_stride, uint8_t* packed, float* scale,
                         float* zero, uint8_t* codes, float* scratch);

}  // namespace kvsweep
