#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace kvsweep {

// The loops of QuantoCodec over CPU memory; quanto.h states the arithmetic. Metadata is float32 here, already rounded
// to its stored type.

// x, codes: `groups` groups of `count` values, one after the other. scale, shift: one a group.
void quanto_encode_groups(const float* x, int64_t groups, int64_t count, float top, c10::ScalarType dtype, float* scale,
                          float* shift, uint8_t* codes);

// `count` codes with one scale and shift (step 0) or one each (step 1).
void quanto_decode_segment(const uint8_t* codes, int64_t count, c10::ScalarType dtype, const float* scale,
                           const float* shift, int64_t step, float* out);

// `rows` rows of `dim` values in groups of `group` channels, packed one after the other; scale and shift as they are
// stored, of `dtype`.
void quanto_decode_rows(const uint8_t* packed, const void* scale, const void* shift, c10::ScalarType dtype,
                        int64_t bits, int64_t rows, int64_t dim, int64_t group, float* out);

}  // namespace kvsweep
