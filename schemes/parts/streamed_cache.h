#pragma once

#include <memory>
#include <vector>

#include "harness/core/kv_cache.h"
#include "schemes/parts/stream.h"

namespace kvsweep {

// How one layer is stored.
struct LayerPlan {
  StreamPlan keys, values;
  KeyRotation rotation = KeyRotation::kApplied;  // kApplied: RoPE is applied to keys before they are stored
};

// A cache whose layers do not look at one another: each a stream of keys and a stream of values. A scheme of this kind
// is its parameters and its plans.
class StreamedCache final : public KvCache {
 public:
  // One plan for each layer. append() refuses NaN and infinity: parts/finite.h.
  StreamedCache(const CacheContext& context, const std::vector<LayerPlan>& plans);

  void append(int64_t layer, const KvSlab& slab) override;
  void finish_context() override;
  KvView read(int64_t layer) const override;
  void account(ByteLedger& ledger) const override;
  std::unique_ptr<KvCache> clone() const override;

 private:
  struct Layer {
    Stream keys, values;
    KeyRotation rotation;
    bool lossy;
    int64_t position;  // of the first token
  };
  StreamedCache() = default;

  const Rope* rope_ = nullptr;
  std::vector<Layer> layers_;
};

}  // namespace kvsweep
