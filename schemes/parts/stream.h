#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "harness/core/kv_cache.h"
#include "harness/core/token_buffer.h"
#include "schemes/parts/residency.h"

namespace kvsweep {

// How one stream is stored.
struct StreamPlan {
  std::shared_ptr<const Codec> codec;  // of the tokens that residency compresses
  Residency residency;                 // blocks are multiples of codec->group_tokens()
  // Undefined, or orthonormal [D, D] float32: the codec packs x @ basis, and its runs say so. Sink and window stay as
  // they came.
  at::Tensor basis{};
  // x [H, T, D] float32 -> x @ basis, whose bits for a token do not depend on the tokens beside it. Empty: a matrix
  // product, which keeps that promise up to 64 dims at best.
  std::function<at::Tensor(const at::Tensor&)> to_basis{};
};

// K or V of one layer of one sequence: sink and window exact, the tokens between them as the codec packs them. Without
// `whole` in the residency, the way tokens are cut into slabs changes no bit.
class Stream {
 public:
  Stream(StreamPlan plan, const CacheContext& context);

  // x [H, T, D] of the context's dtype; copied. Costs what x costs, however much is held.
  void append(const at::Tensor& x);
  // Compresses now what the next append would compress first.
  void settle();
  // Sink, body, window: those that hold tokens. Views, valid until the next append.
  c10::SmallVector<KvRun, 3> runs() const;
  void account(ByteLedger& ledger) const;
  Stream clone() const;  // deep
  int64_t tokens() const { return end_ + window_.size(); }

 private:
  void compress(const at::Tensor& x);
  void leave_window(int64_t rows);

  StreamPlan plan_;
  std::shared_ptr<const Codec> exact_;
  TokenBuffer sink_, window_;
  std::vector<TokenBuffer> body_;  // one for each of the codec's parts
  int64_t window_rows_;            // that the window reserves
  int64_t end_ = 0;                // exclusive end of what has left the window: sink and body
};

}  // namespace kvsweep
