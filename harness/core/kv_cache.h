#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness/core/byte_ledger.h"
#include "harness/core/codec.h"
#include "harness/core/rope.h"

namespace kvsweep {

// Letters: L layers, H kv-heads, Hq query heads, T new tokens, S visible tokens, D head dim, P probe queries.
// One sequence per cache: ragged batches need no padding, and a quantization group never straddles a pad token.

// What the model hands to a cache for one layer.
struct KvSlab {
  at::Tensor k;          // [H, T, D] before RoPE, compute dtype; may be a view on a larger tensor: copy what you keep
  at::Tensor v;          // [H, T, D]
  int64_t position = 0;  // absolute position of the first token
};

enum class KeyRotation {
  kApplied,  // stored after RoPE
  kPending,  // stored before RoPE: attention rotates what it decodes
};

// A run of tokens of K or of V, stored one way.
struct KvRun {
  const Codec* codec = nullptr;   // lives as long as the cache
  std::vector<at::Tensor> parts;  // as codec->parts(); views on the cache's buffers
  int64_t tokens = 0;
  KeyRotation rotation = KeyRotation::kApplied;  // keys only
  // Undefined: stored as is. Else orthonormal [D, D] or [H, D, D] with stored = x @ basis: attention maps the query
  // once (q @ basis) and the output once (o @ basis^T), never every key. With kPending keys the transform is undone
  // first.
  at::Tensor basis;
};

// Everything that one layer's queries may attend to. Keys and values are cut into runs independently, since their
// residencies differ (KIVI flushes keys by blocks and values token by token); both lists cover the same tokens in
// order. Enough for any attention kernel to attend without knowing the scheme.
struct KvView {
  c10::SmallVector<KvRun, 3> keys, values;  // sink | body | window is the common case
  int64_t position = 0;                     // absolute position of the first token, when no token was dropped
  at::Tensor positions;                     // [S] int64 absolute positions when tokens were dropped, else undefined
  at::Tensor keep;                          // [H, S] bool when heads keep different tokens, else undefined
  int64_t tokens() const;                   // S
};

// The compressed state of one sequence. Not thread-safe; views are valid until the next append.
class KvCache {
 public:
  virtual ~KvCache() = default;
  // Adds tokens to one layer. For each token position layers arrive in order 0..L-1, tokens of a layer in order of
  // position.
  virtual void append(int64_t layer, const KvSlab& slab) = 0;
  // Once, after the last layer of the context: prompt-ranking schemes evict here, and what the next append would
  // compress first may be compressed now.
  virtual void finish_context() {}
  virtual KvView read(int64_t layer) const = 0;
  // Every tensor that the cache keeps alive.
  virtual void account(ByteLedger& ledger) const = 0;
  // Deep: branches of one context diverge freely.
  virtual std::unique_ptr<KvCache> clone() const = 0;
};

// For a scheme's make_cache.
struct CacheContext {
  int64_t layers = 0, kv_heads = 0, head_dim = 0;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  const Rope* rope = nullptr;    // outlives the cache
  int64_t expected_tokens = 0;   // context + query + generation, to reserve once
  std::string weights_sha256{};  // of the model, for artifacts; "": not known
};

}  // namespace kvsweep
