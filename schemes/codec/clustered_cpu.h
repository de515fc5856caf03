#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace kvsweep {

// The loops of ClusteredCodec over CPU memory; clustered.h states the arithmetic. Codes are one a byte here and in the
// clusters' order, metadata float32 and already rounded to its stored type.
struct ClusteredRows {
  int64_t heads = 0, dim = 0, clusters = 0;
  const int32_t* order = nullptr;  // [heads * dim] and its inverse; null: channels as they are
  const int32_t* inverse = nullptr;
  const int32_t* starts = nullptr;  // [clusters + 1]
  float top = 0, clip = 0;
  c10::ScalarType arithmetic = c10::ScalarType::Half;
  bool fp8 = false, codes_from_rounded = false, saturate = false;
};

// Room past the end of a row in scratch: loops run over whole vectors.
inline constexpr int64_t kClusteredSlack = 16;

// x: rows of `dim` values, head_stride and token_stride apart. codes: [tokens, heads * dim]; scale, zero: [tokens,
// clusters]. scratch: three rows of heads * dim floats, each with slack. False, and nothing useful written, when a
// token holds NaN, infinity or too wide a range.
bool clustered_encode(const ClusteredRows& rows, const float* x, int64_t head_stride, int64_t token_stride,
                      int64_t tokens, uint8_t* codes, float* scale, float* zero, float* scratch);

// out: rows of `dim` values, head_stride and `dim` apart. scratch: as above.
void clustered_decode(const ClusteredRows& rows, const uint8_t* codes, const float* scale, const float* zero,
                      int64_t tokens, float* out, int64_t head_stride, float* scratch);

// Rows of `count` codes below 3, (count + 4) / 5 bytes each; see clustered.h.
void pack_trits(const uint8_t* codes, int64_t rows, int64_t count, uint8_t* packed);
void unpack_trits(const uint8_t* packed, int64_t rows, int64_t count, uint8_t* codes);

}  // namespace kvsweep
