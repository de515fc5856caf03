#include "schemes/parts/higgs_settings.h"

#include <algorithm>
#include <bit>

namespace kvsweep {
namespace {

constexpr int64_t kMaxTokens = 1 << 20, kLargestGroup = 1024, kSmallestGroup = 4;

}  // namespace

HiggsSettings::HiggsSettings(Params& params) {
  k_bits = params.layer_integers("k_bits", 2, 2, 4, "bits of a key");
  v_bits = params.layer_integers("v_bits", 2, 2, 4, "bits of a value");
  four_dims = params.choice("grid", "EDEN2-16", {"EDEN2-16", "EDEN4-256"}, "grid for 2 bits") == "EDEN4-256";
  group = params.integer("hadamard_group", 0, 0, kLargestGroup,
                         "channels of a block, padded to it: a power of two; 0: the largest that divides the channels");
  norm_type =
      params.choice("norm_type", "fp32", {"fp32", "fp16"}, "type of a block's norm") == "fp16" ? at::kHalf : at::kFloat;
  const int64_t sink = params.integer("sink", 4, 0, kMaxTokens, "first tokens, kept exact");
  const int64_t recent = params.integer("recent", 128, 1, kMaxTokens, "newest tokens, kept exact");
  const bool slides =
      params.choice("recent_rule", "flush", {"flush", "slide"},
                    "flush: once so many wait, all are compressed; slide: always the newest stay") == "slide";
  residency = slides ? Residency{sink, recent, 1} : Residency{sink, 0, recent, true};
  if (group != 0 && (group < kSmallestGroup || !std::has_single_bit(static_cast<uint64_t>(group))))
    params.reject("hadamard_group", "0 or a power of two from 4 to 1024");
}

int64_t HiggsSettings::group_of(int64_t channels) const {
  if (group != 0) return group;
  return std::clamp(int64_t{1} << std::countr_zero(static_cast<uint64_t>(channels)), kSmallestGroup, kLargestGroup);
}

std::shared_ptr<const HiggsCodec> HiggsSettings::codec(int64_t bits, int64_t heads, int64_t head_dim) const {
  HiggsOptions options;
  options.dim = bits == 2 && four_dims ? 4 : 2;
  options.points = int64_t{1} << bits * options.dim;
  options.group = group_of(heads * head_dim);
  options.norm_type = norm_type;
  return std::make_shared<HiggsCodec>(options, heads, head_dim);
}

}  // namespace kvsweep
