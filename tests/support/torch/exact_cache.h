#pragma once

#include <memory>
#include <vector>

#include "harness/core/kv_cache.h"
#include "harness/core/token_buffer.h"

namespace kvsweep::testing {

// Tensors as they came, [H, T, D], in one part.
class PlainCodec : public Codec {
 public:
  std::string name() const override { return "plain"; }
  bool exact() const override { return true; }
  double nominal_bits() const override { return 16; }
  std::vector<PartSpec> parts() const override { return {{"values", ByteRole::kWindow}}; }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override { return {x}; }
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override;
};

// Keeps everything: the smallest cache that a model can be tested with. `rotation` says how keys are stored.
class ExactCache : public KvCache {
 public:
  ExactCache(const CacheContext& context, KeyRotation rotation = KeyRotation::kApplied);
  void append(int64_t layer, const KvSlab& slab) override;
  KvView read(int64_t layer) const override;
  void account(ByteLedger& ledger) const override;
  std::unique_ptr<KvCache> clone() const override;

 private:
  struct Layer {
    TokenBuffer keys, values;
  };
  const Rope* rope_;
  KeyRotation rotation_;
  std::vector<Layer> layers_;
};

}  // namespace kvsweep::testing
