#include "schemes/codec/clustered_cpu.h"

#include <c10/util/Float8_e4m3fn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/value_range.h"
#include "schemes/kernels/narrow_float.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

using c10::ScalarType;

constexpr int64_t kLanes = kClusteredSlack;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <ScalarType kType, bool kSaturate>
KVSWEEP_INLINE float rounded(float x) {
  if constexpr (kType == ScalarType::BFloat16) return nearest_bfloat16(x);
  if constexpr (kType == ScalarType::Half && kSaturate) {
    x = x < 65504.0F ? x : 65504.0F;
    return nearest_half_unbounded(x > -65504.0F ? x : -65504.0F);
  }
  if constexpr (kType == ScalarType::Half) return nearest_half(x);
  return x;
}

float stored(const ClusteredRows& rows, float value) {
  if (!rows.fp8) return value;
  return static_cast<float>(c10::Float8_e4m3fn(rows.saturate ? std::clamp(value, -448.0F, 448.0F) : value));
}

int64_t whole_lanes(int64_t count) {
  return (count + kLanes - 1) / kLanes * kLanes;
}

// Writes codes as floats, whole lanes: past the cluster's end, where the next one follows and is written later.
template <ScalarType kType, bool kSaturate>
KVSWEEP_INLINE bool encode_cluster(const ClusteredRows& rows, const float* x, int64_t count, float* codes, float& scale,
                                   float& zero) {
  constexpr auto round = rounded<kType, kSaturate>;
  const ValueRange range = range_of(x, count);
  float from = round(range.low * rows.clip);
  const float width = round(round(range.high * rows.clip) - from);
  if (kType != ScalarType::Half && !(width <= std::numeric_limits<float>::max() / 2)) return false;
  float step = std::max(round(width / rows.top), round(1e-5F));
  scale = stored(rows, step);
  zero = stored(rows, from);
  if (rows.codes_from_rounded) {
    step = scale == 0 ? kInfinity : scale;
    from = zero;
  }
  const float top = rows.top;
  for (int64_t j = 0; j < whole_lanes(count); ++j) {
    float y = round(x[j] - from) / step;
    y = y > 0 ? y : 0;
    codes[j] = round(y < top ? y : top);
  }
  return true;
}

template <ScalarType kType, bool kSaturate>
KVSWEEP_INLINE bool encode(const ClusteredRows& rows, const float* x, int64_t head_stride, int64_t token_stride,
                           int64_t tokens, uint8_t* codes, float* scale, float* zero, float* scratch) {
  const int64_t channels = rows.heads * rows.dim;
  float *token = scratch, *steps = token + channels + kClusteredSlack, *moved = token;
  if (rows.order != nullptr) moved = steps + channels + kClusteredSlack;
  for (int64_t t = 0; t < tokens; ++t, codes += channels, scale += rows.clusters, zero += rows.clusters) {
    uint32_t most = 0;
    for (int64_t h = 0; h < rows.heads; ++h) {
      const float* from = x + h * head_stride + t * token_stride;
      for (int64_t d = 0; d < rows.dim; ++d) {
        most = std::max(most, std::bit_cast<uint32_t>(from[d]) & 0x7fffffffU);
        token[h * rows.dim + d] = rounded<kType, kSaturate>(from[d]);
      }
    }
    if (most >= 0x7f800000U) return false;
    if (rows.order != nullptr)
      for (int64_t c = 0; c < channels; ++c) moved[c] = token[rows.order[c]];
    for (int64_t k = 0; k < rows.clusters; ++k) {
      const int64_t start = rows.starts[k];
      if (!encode_cluster<kType, kSaturate>(rows, moved + start, rows.starts[k + 1] - start, steps + start, scale[k],
                                            zero[k]))
        return false;
    }
    constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer, half to even, in the lowest mantissa bits
    for (int64_t c = 0; c < channels; ++c) codes[c] = static_cast<uint8_t>(std::bit_cast<uint32_t>(steps[c] + kRound));
  }
  return true;
}

template <ScalarType kType, bool kSaturate>
KVSWEEP_INLINE void decode(const ClusteredRows& rows, const uint8_t* codes, const float* scale, const float* zero,
                           int64_t tokens, float* out, int64_t head_stride, float* scratch) {
  constexpr auto round = rounded<kType, kSaturate>;
  const int64_t channels = rows.heads * rows.dim;
  float *steps = scratch, *moved = steps + channels + kClusteredSlack;
  for (int64_t t = 0; t < tokens; ++t, codes += channels, scale += rows.clusters, zero += rows.clusters) {
    for (int64_t c = 0; c < channels; ++c) steps[c] = static_cast<float>(codes[c]);
    for (int64_t k = 0; k < rows.clusters; ++k) {
      const int64_t start = rows.starts[k], end = start + whole_lanes(rows.starts[k + 1] - start);
      const float by = scale[k], from = zero[k];
      for (int64_t c = start; c < end; ++c) moved[c] = round(round(steps[c] * by) + from);
    }
    for (int64_t h = 0; h < rows.heads; ++h) {
      float* to = out + h * head_stride + t * rows.dim;
      if (rows.inverse == nullptr) {
        std::copy_n(moved + h * rows.dim, rows.dim, to);
      } else {
        for (int64_t d = 0; d < rows.dim; ++d) to[d] = moved[rows.inverse[h * rows.dim + d]];
      }
    }
  }
}

// The five digits of each byte, one a byte.
constexpr std::array<std::array<uint8_t, 5>, 243> kDigits = [] {
  std::array<std::array<uint8_t, 5>, 243> table{};
  for (size_t byte = 0; byte < table.size(); ++byte)
    for (size_t i = 0, rest = byte; i < 5; ++i, rest /= 3) table[byte][i] = static_cast<uint8_t>(rest % 3);
  return table;
}();

}  // namespace

KVSWEEP_CPU_CLONES bool clustered_encode(const ClusteredRows& rows, const float* x, int64_t head_stride,
                                         int64_t token_stride, int64_t tokens, uint8_t* codes, float* scale,
                                         float* zero, float* scratch) {
  if (rows.arithmetic == ScalarType::Float)
    return encode<ScalarType::Float, true>(rows, x, head_stride, token_stride, tokens, codes, scale, zero, scratch);
  if (rows.arithmetic == ScalarType::BFloat16)
    return encode<ScalarType::BFloat16, true>(rows, x, head_stride, token_stride, tokens, codes, scale, zero, scratch);
  if (rows.saturate)
    return encode<ScalarType::Half, true>(rows, x, head_stride, token_stride, tokens, codes, scale, zero, scratch);
  return encode<ScalarType::Half, false>(rows, x, head_stride, token_stride, tokens, codes, scale, zero, scratch);
}

KVSWEEP_CPU_CLONES void clustered_decode(const ClusteredRows& rows, const uint8_t* codes, const float* scale,
                                         const float* zero, int64_t tokens, float* out, int64_t head_stride,
                                         float* scratch) {
  if (rows.arithmetic == ScalarType::Float)
    return decode<ScalarType::Float, true>(rows, codes, scale, zero, tokens, out, head_stride, scratch);
  if (rows.arithmetic == ScalarType::BFloat16)
    return decode<ScalarType::BFloat16, true>(rows, codes, scale, zero, tokens, out, head_stride, scratch);
  if (rows.saturate) return decode<ScalarType::Half, true>(rows, codes, scale, zero, tokens, out, head_stride, scratch);
  return decode<ScalarType::Half, false>(rows, codes, scale, zero, tokens, out, head_stride, scratch);
}

void pack_trits(const uint8_t* codes, int64_t rows, int64_t count, uint8_t* packed) {
  for (int64_t row = 0; row < rows; ++row, codes += count)
    for (int64_t at = 0; at < count; at += 5) {
      int byte = 0;
      for (int64_t i = std::min(at + 5, count) - 1; i >= at; --i) byte = 3 * byte + codes[i];
      *packed++ = static_cast<uint8_t>(byte);
    }
}

void unpack_trits(const uint8_t* packed, int64_t rows, int64_t count, uint8_t* codes) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t at = 0; at < count; at += 5, ++packed) {
      const int64_t digits = std::min<int64_t>(5, count - at);
      std::memcpy(codes, kDigits.at(*packed).data(), static_cast<size_t>(digits));
      codes += digits;
    }
}

}  // namespace kvsweep
