#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/core/scheme.h"
#include "models/llama.h"

namespace kvsweep {

// Repeated measurements of one thing: median and quartiles, between neighbours by linear interpolation.
struct Timing {
  double median = 0, low = 0, high = 0;
};
Timing timing_of(std::vector<double> values);  // at least one

// Bytes of a cache. Transient: the most that tensors took beside what the cache holds, during one layer's work.
struct CacheCost {
  int64_t live = 0, reserved = 0, transient = 0;
  int64_t shared = 0;                             // of the scheme, however many caches it makes
  double bits = 0, key_bits = 0, value_bits = 0;  // effective: 8 * bytes / values, of both and of each side
};

// What every bench stands on: a model, and the keys and values that one prefill of made-up tokens gave. A context of T
// tokens is its first T: causal attention makes them those of a prefill of T.
class BenchContext {
 public:
  // Throws ConfigError naming `option` when the model does not allow `tokens` and `more` after them.
  BenchContext(const Llama& llama, int64_t tokens, int64_t more, const std::string& option);

  const Llama& llama() const { return llama_; }
  int64_t tokens() const { return static_cast<int64_t>(tokens_.size()); }
  int32_t token(int64_t position) const;             // any position: tokens repeat
  double prefill_ms(int64_t tokens) const;           // once, without keeping anything
  int64_t values(int64_t tokens) const;              // 2 * L * H * T * D
  KvSlab slab(int64_t layer, int64_t tokens) const;  // of the first `tokens`
  at::Tensor query(int64_t layer) const;             // [Hq, 1, D], standard normal, of the compute dtype

  // A new cache of the first `tokens` tokens, made for `expected`; as prompts fill it.
  std::unique_ptr<KvCache> fill(const Scheme& scheme, int64_t tokens, int64_t expected) const;
  // The same with its bytes; transient: of the largest append.
  CacheCost cost(const Scheme& scheme, int64_t tokens) const;
  // Attention of one query over every layer of a cache of `tokens` tokens.
  struct Attention {
    double ms = 0;
    bool fused = true;      // every layer's packed bytes were read where they lie
    int64_t transient = 0;  // the most that tensors took during a layer's attention; only when asked for
  };
  Attention attend_once(const KvCache& cache, int64_t tokens, bool count_transient = false) const;

 private:
  struct LayerValues {
    at::Tensor k, v, query;  // [H, T, D] before RoPE, [H, T, D], [Hq, 1, D]
  };
  const Llama& llama_;
  std::vector<int32_t> tokens_;
  std::vector<LayerValues> layers_;
};

// As tables and records say it.
inline const char* path_name(bool fused) {
  return fused ? "fused" : "reference";
}

}  // namespace kvsweep
