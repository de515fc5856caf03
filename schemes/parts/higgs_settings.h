#pragma once

#include <memory>

#include "harness/core/params.h"
#include "schemes/codec/lattice.h"
#include "schemes/parts/residency.h"

namespace kvsweep {

// The parameters of schemes that store HIGGS codes, with the defaults of AQUA-KV's code (goodevening13/aquakv): 2, 3
// and 4 bits are the grids EDEN2-16 (or EDEN4-256), EDEN2-64 and EDEN2-256; the first 4 tokens stay exact, and once 128
// others wait, all of them are compressed.
struct HiggsSettings {
  explicit HiggsSettings(Params& params);

  // h for C channels. Paper and code use 1024 and pad smaller layers, which costs codes; `hadamard_group: 0`, the
  // default here, is the largest power of two up to 1024 that divides C.
  int64_t group_of(int64_t channels) const;
  std::shared_ptr<const HiggsCodec> codec(int64_t bits, int64_t heads, int64_t head_dim) const;

  PerLayer<int64_t> k_bits, v_bits;
  bool four_dims = false;  // of the grid for 2 bits
  int64_t group = 0;
  at::ScalarType norm_type = at::kFloat;
  Residency residency;
};

}  // namespace kvsweep
