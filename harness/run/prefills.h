#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/core/task.h"
#include "models/llama.h"

namespace kvsweep {

// The contexts of samples, prefilled in full precision. What a context has in common with one before it (instructions,
// few-shot examples, the same document, a text up to where a needle hides) is not computed again: of each prefill the
// beginning is held that samples soon to come can use. Where the model's rows are invariant, a trace is bit for bit
// that of a prefill of the whole context; elsewhere it moves within rounding, as everything in a batch does.
class Prefills {
 public:
  // samples: in the order of their turns; they and the model outlive this.
  Prefills(const Llama& llama, std::span<const Sample* const> samples);

  struct Context {
    PrefillTrace trace;     // of all of it
    int64_t prefilled = 0;  // tokens that were computed for it
  };
  // Of samples[index]. Throws Interrupted between layers, and what the model throws.
  Context of(size_t index);

  int64_t held_bytes() const { return held_.bytes(); }
  // Forgets what is held.
  void release();

 private:
  PrefillTrace prefill(std::span<const int32_t> tokens, const PrefillTrace* before) const;
  void hold(std::span<const int32_t> context, const PrefillTrace& trace);

  const Llama& llama_;
  std::span<const Sample* const> samples_;
  size_t next_ = 0;  // sample whose turn has not come
  std::vector<int32_t> held_tokens_;
  PrefillTrace held_;  // of held_tokens_
};

}  // namespace kvsweep
