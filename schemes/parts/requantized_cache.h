#pragma once

#include <memory>
#include <vector>

#include "harness/core/kv_cache.h"
#include "harness/core/params.h"
#include "harness/core/scheme.h"
#include "harness/core/token_buffer.h"

namespace kvsweep {

// Parameters that the schemes with this cache share.
struct RequantizedParams {
  int64_t group = 64;  // values that share metadata
  int64_t residual_length = 128;
  at::ScalarType dtype = at::kHalf;  // of the codec's arithmetic and metadata

  // Reads `group`, `residual` and `dtype` ("fp16", "bf16" or "fp32").
  static RequantizedParams read(Params& params, int64_t residual_length, const std::string& dtype);
};

// How one layer is stored.
struct RequantizedPlan {
  std::shared_ptr<const Codec> keys, values;  // of one token at a time
};

// The cache of transformers' QuantizedLayer (cache_utils.py), which KV-AdaQuant's KVQ shares. Keys after RoPE. K and V
// of a layer are each one packed tensor of all tokens but the newest, which wait exact. The prompt (the first append)
// is packed as a whole, and with every `residual_length` tokens that have come since, everything is unpacked, joined
// with them and packed anew. Here as there, a step reads its tokens exact and then they are packed: before the next
// append, or in finish_context(). P tokens of prompt, query position i:
//
//   i < P  nothing is read compressed;  i >= P  tokens j < P + R * floor((i - P) / R)
//
// Code differs: there an update after the prompt goes into the residual as a whole, however many tokens it brings (its
// check counts one), and is packed with the one after it. Here tokens that come together after the prompt are stored as
// if they had come one by one.
class RequantizedCache final : public KvCache {
 public:
  // One plan for each layer. A residual_length below 2 works as 2: the original looks at its length only where it holds
  // something. append() refuses NaN and infinity: parts/finite.h.
  RequantizedCache(const CacheContext& context, const std::vector<RequantizedPlan>& plans, int64_t residual_length);

  void append(int64_t layer, const KvSlab& slab) override;
  void finish_context() override;
  KvView read(int64_t layer) const override;
  void account(ByteLedger& ledger) const override;
  std::unique_ptr<KvCache> clone() const override;

  // For Scheme::compressed_from.
  static CompressedFrom compressed_from(int64_t residual_length, int64_t context_tokens, int64_t tokens);

 private:
  struct Side {
    std::shared_ptr<const Codec> codec;
    TokenBuffer residual;
    std::vector<at::Tensor> packed{};  // none before the prompt is packed; never written to, so that clones share them
    int64_t packed_tokens = 0;
  };
  struct Layer {
    Side keys, values;
    int64_t position = 0;  // of the first token
  };
  RequantizedCache() = default;

  bool due(const Side& side) const;
  void settle(Side& side) const;
  void append(Side& side, const at::Tensor& x) const;
  c10::SmallVector<KvRun, 3> runs(const Side& side) const;

  const Rope* rope_ = nullptr;
  std::shared_ptr<const Codec> exact_;
  int64_t residual_length_ = 0, expected_tokens_ = 0;
  std::vector<Layer> layers_;
};

}  // namespace kvsweep
