#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <vector>

#include "harness/core/error.h"
#include "models/llama_config.h"

// What the two readers of LlamaConfig agree on.
namespace kvsweep {

template <class T>
struct Range {
  T low, high;
  bool contains(T value) const { return value >= low && value <= high; }
  std::string text() const { return fmt::format("[{}, {}]", low, high); }
};

// Far outside of every published model: a value beyond them is a damaged file.
constexpr Range<int64_t> kLayersRange{1, 10'000}, kHeadsRange{1, 10'000}, kHeadDimRange{2, 10'000};
constexpr Range<int64_t> kWidthRange{1, 10'000'000}, kVocabRange{1, 100'000'000}, kPositionsRange{1, 1'000'000'000};
constexpr Range<double> kEpsRange{0, 1}, kThetaRange{1.001, 1e15}, kFactorRange{1, 1e6}, kBetaRange{1e-6, 1e6},
    kAttentionFactorRange{0, 1e6};

inline const std::vector<std::string> kRopeTypes = {"default", "linear", "llama3", "yarn"};

inline void check_head_shape(const LlamaConfig& config, const std::string& place) {
  if (config.heads % config.kv_heads != 0)
    throw DataError(fmt::format("{}: {} attention heads are not a multiple of {} key-value heads", place, config.heads,
                                config.kv_heads));
  if (config.head_dim % 2 != 0)
    throw DataError(fmt::format("{}: a head_dim of {} is odd: RoPE turns pairs", place, config.head_dim));
}

}  // namespace kvsweep
