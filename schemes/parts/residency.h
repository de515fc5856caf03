#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kvsweep {

// Which tokens of one stream (K or V of a layer) are stored compressed: the first `sink` never, the newest `window` not
// yet, the rest in blocks of `block` counted from the end of the sink. Tokens are appended first and then read, so the
// window counts the token whose query reads. Published rules in these terms, query position i, T = i + 1 tokens held:
//
//   KIVI keys     {0, 1, R}      compressed: t < R * floor(i / R). KIVI flushes after the step that filled its residual
//                                has been computed, that is before the next append.
//   KIVI values   {0, R + 1, 1}  t < i - R: its window of R does not count the token of the step
//   SKVQ          {s, w, 1}      s <= t < i + 1 - w
//   groups of g tokens, nothing kept back: {0, 0, g}
struct Residency {
  int64_t sink = 0, window = 0, block = 1;
  // Instead of blocks: once `block` tokens wait after an append, everything held is compressed before the next append.
  // Depends on how tokens were cut into slabs; needs window 0. AQUA-KV: {4, 0, 128, true}.
  bool whole = false;

  // Exclusive end of the compressed tokens [sink, end) when `tokens` are held; the sink's end (at most `tokens`) when
  // there are none. Not for `whole`.
  int64_t compressed_end(int64_t tokens) const;
  // The same for one append from `before` to `after` tokens, `end` being the result of the append before it (0 at
  // first).
  int64_t next_end(int64_t end, int64_t before, int64_t after) const;
  // [tokens] int64, as CompressedFrom: the first `context_tokens` came as one slab, the rest one by one. May name a
  // position at or after `tokens`.
  at::Tensor compressed_from(int64_t context_tokens, int64_t tokens) const;
  // Throws c10::Error when a field is negative, the block is empty or `whole` has a window.
  void check() const;
};

}  // namespace kvsweep
