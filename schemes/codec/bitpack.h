#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvsweep {

// Codes of 1 to 8 bits, packed without gaps. Layout: the codes of a row (the last dimension) form one little-endian bit
// stream: bit j of the row is bit j % 8 of byte j / 8, and code i takes bits [i * bits, (i + 1) * bits), lowest first.
// So 8 codes fill `bits` bytes; a row is padded with zero bits to whole bytes and the next row starts on a new byte.
int64_t packed_bytes(int64_t codes, int64_t bits);

// codes [..., n] uint8, each below 2^bits -> [..., packed_bytes(n, bits)] uint8, contiguous. Any device, same bytes.
at::Tensor pack_bits(const at::Tensor& codes, int64_t bits);

// packed [..., packed_bytes(codes, bits)] uint8 -> [..., codes] uint8, contiguous.
at::Tensor unpack_bits(const at::Tensor& packed, int64_t bits, int64_t codes);

// `rows` rows of `codes` codes each in CPU memory; strides in bytes between the starts of rows. For fused loops.
void pack_rows(const uint8_t* codes, int64_t code_stride, int64_t rows, int64_t count, int64_t bits, uint8_t* packed,
               int64_t packed_stride);
void unpack_rows(const uint8_t* packed, int64_t packed_stride, int64_t rows, int64_t count, int64_t bits,
                 uint8_t* codes, int64_t code_stride);

}  // namespace kvsweep
