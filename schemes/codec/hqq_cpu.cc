#include "schemes/codec/hqq_cpu.h"

#include <algorithm>
#include <cmath>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/narrow_tensor.h"
#include "schemes/codec/value_range.h"

#define KVSWEEP_INLINE [[gnu::always_inline]] inline

namespace kvsweep {
namespace {

constexpr int64_t kCascade = 16;     // values that ATen adds to one sum before it starts the next
constexpr int64_t kVector = 8;       // lanes of ATen's vectors
constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer, half to even, in the lowest mantissa bits
constexpr float kNoShrink = 0.17F;   // below 0.1^(1 / 1.3) = 0.1701 shrink() gives zero

KVSWEEP_INLINE float code_of(float x, float scale, float zero, float top) {
  float y = x * scale + zero;
  y = y < 0 ? 0 : y;
  y = y > top ? top : y;
  return (y + kRound) - kRound;
}

// Rows of kHqqLanes lanes, in two levels of the cascade.
KVSWEEP_INLINE void add_rows(const float* x, int64_t rows, float* sums) {
  float first[kHqqLanes] = {}, second[kHqqLanes] = {};
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t k = 0; k < kHqqLanes; ++k) first[k] += x[row * kHqqLanes + k];
    if ((row + 1) % kCascade != 0) continue;
    for (int64_t k = 0; k < kHqqLanes; ++k) {
      second[k] += first[k];
      first[k] = 0;
    }
  }
  for (int64_t k = 0; k < kHqqLanes; ++k) sums[k] = first[k] + second[k];
}

// What is left of x behind its whole rows joins their sums.
KVSWEEP_INLINE float fold(const float* x, int64_t count, float* sums) {
  int64_t i = count / kHqqLanes * kHqqLanes;
  for (; i + kVector <= count; i += kVector)
    for (int64_t k = 0; k < kVector; ++k) sums[k] += x[i + k];
  for (int64_t from = kVector; from < kHqqLanes; from += kVector)
    for (int64_t k = 0; k < kVector; ++k) sums[k] += sums[from + k];
  float total = 0;
  for (; i < count; ++i) total += x[i];
  for (int64_t k = 0; k < kVector; ++k) total += sums[k];
  return total;
}

KVSWEEP_INLINE float row_sum(const float* x, int64_t count) {
  float sums[kHqqLanes];
  add_rows(x, count / kHqqLanes, sums);
  return fold(x, count, sums);
}

template <int64_t kSums>
KVSWEEP_INLINE float column_sum(const float* x, int64_t count) {
  float first[kSums] = {}, second[kSums] = {};
  const int64_t rows = count / kSums;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t k = 0; k < kSums; ++k) first[k] += x[row * kSums + k];
    if ((row + 1) % kCascade != 0) continue;
    for (int64_t k = 0; k < kSums; ++k) {
      second[k] += first[k];
      first[k] = 0;
    }
  }
  for (int64_t k = 0; k < kSums; ++k) first[k] += second[k];
  for (int64_t i = rows * kSums; i < count; ++i) first[0] += x[i];
  for (int64_t k = 1; k < kSums; ++k) first[0] += first[k];
  return first[0];
}

template <c10::ScalarType kType>
KVSWEEP_INLINE void decode(const uint8_t* codes, int64_t count, const float* scale, const float* zero, int64_t step,
                           float* out) {
  if (step == 0) {
    for (int64_t j = 0; j < count; ++j)
      out[j] = nearest<kType>(nearest<kType>(static_cast<float>(codes[j]) - *zero) * *scale);
  } else {
    for (int64_t j = 0; j < count; ++j)
      out[j] = nearest<kType>(nearest<kType>(static_cast<float>(codes[j]) - zero[j]) * scale[j]);
  }
}

}  // namespace

KVSWEEP_CPU_CLONES void hqq_start(const float* values, int64_t groups, int64_t count, float top, float* scale,
                                  float* zero) {
  for (int64_t g = 0; g < groups; ++g, values += count) {
    const ValueRange found = range_of(values, count);
    const float range = found.high - found.low;
    scale[g] = range <= 1e-4F ? 1 : std::min(1 / range * top, 2e4F);
    zero[g] = -found.low * scale[g];
  }
}

KVSWEEP_CPU_CLONES int64_t hqq_errors(const HqqBlock& block) {
  int64_t picked = 0;
  for (int64_t g = 0; g < block.groups; ++g) {
    if (block.settled[g] != 0) continue;
    const float* x = block.values + g * block.count;
    float *e = block.errors + g * block.count, *magnitude = block.magnitudes + g * block.count;
    const float s = block.scale[g], z = block.zero[g];
    int shrinks = 0;
    for (int64_t j = 0; j < block.count; ++j) {
      e[j] = x[j] - (code_of(x[j], s, z, block.top) - z) / s;
      magnitude[j] = std::abs(e[j]);
      shrinks |= magnitude[j] > kNoShrink ? 1 : 0;
    }
    block.pick[g] = -1;
    if (shrinks == 0) continue;
    std::copy_n(magnitude, block.count, block.picked + picked * block.count);
    block.pick[g] = static_cast<int32_t>(picked++);
  }
  return picked;
}

KVSWEEP_CPU_CLONES void hqq_update(const HqqBlock& block, const float* powers) {
  constexpr int64_t kRoom = 1024;
  float room[kRoom];
  for (int64_t g = 0; g < block.groups; ++g) {
    if (block.settled[g] != 0) continue;
    const float s = block.scale[g], z = block.zero[g];
    float sum = 0;
    for (int64_t from = 0; from < block.count; from += kRoom) {  // one piece, but for very long groups
      const int64_t size = std::min(kRoom, block.count - from);
      const float* x = block.values + g * block.count + from;
      if (block.pick[g] < 0) {
        for (int64_t j = 0; j < size; ++j) room[j] = code_of(x[j], s, z, block.top) - x[j] * s;
      } else {
        const float* e = block.errors + g * block.count + from;
        const float* power = powers + block.pick[g] * block.count + from;
        for (int64_t j = 0; j < size; ++j) {
          float left = std::abs(e[j]) - 0.1F * power[j];
          left = left > 0 ? left : 0;
          room[j] = code_of(x[j], s, z, block.top) - (x[j] - std::copysign(left, e[j])) * s;
        }
      }
      sum += block.order == SumOrder::kRow      ? row_sum(room, size)
             : block.order == SumOrder::kColumn ? column_sum<1>(room, size)
                                                : column_sum<4>(room, size);
    }
    block.zero[g] = sum / static_cast<float>(block.count);
    block.settled[g] = block.zero[g] == z ? 1 : 0;
  }
}

KVSWEEP_CPU_CLONES void hqq_chunk_sums(const float* values, int64_t chunks, float* sums) {
  for (int64_t c = 0; c < chunks; ++c) add_rows(values + c * kHqqChunk, kCascade, sums + c * kHqqLanes);
}

KVSWEEP_CPU_CLONES float hqq_total(const float* values, int64_t count, const float* chunk_sums) {
  constexpr int kLevels = 3;
  float levels[kLevels][kHqqLanes] = {}, sums[kHqqLanes] = {};
  const int64_t chunks = count / kHqqChunk;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t k = 0; k < kHqqLanes; ++k) levels[0][k] += chunk_sums[chunk * kHqqLanes + k];
    int64_t full = kCascade;
    for (int level = 1; level < kLevels && (chunk + 1) % full == 0; ++level, full *= kCascade)
      for (int64_t k = 0; k < kHqqLanes; ++k) {
        levels[level][k] += levels[level - 1][k];
        levels[level - 1][k] = 0;
      }
  }
  for (int64_t i = chunks * kHqqChunk; i + kHqqLanes <= count; i += kHqqLanes)
    for (int64_t k = 0; k < kHqqLanes; ++k) sums[k] += values[i + k];
  for (const auto& level : levels)
    for (int64_t k = 0; k < kHqqLanes; ++k) sums[k] += level[k];
  return fold(values, count, sums);
}

KVSWEEP_CPU_CLONES void hqq_encode(const float* values, int64_t groups, int64_t count, float top, const float* scale,
                                   const float* zero, uint8_t* codes) {
  for (int64_t g = 0; g < groups; ++g, values += count, codes += count)
    for (int64_t j = 0; j < count; ++j)
      codes[j] = static_cast<uint8_t>(static_cast<int32_t>(code_of(values[j], scale[g], zero[g], top)));
}

KVSWEEP_CPU_CLONES void hqq_decode_segment(const uint8_t* codes, int64_t count, c10::ScalarType dtype,
                                           const float* scale, const float* zero, int64_t step, float* out) {
  if (dtype == at::kHalf) {
    decode<at::kHalf>(codes, count, scale, zero, step, out);
  } else if (dtype == at::kBFloat16) {
    decode<at::kBFloat16>(codes, count, scale, zero, step, out);
  } else {
    decode<at::kFloat>(codes, count, scale, zero, step, out);
  }
}

}  // namespace kvsweep
