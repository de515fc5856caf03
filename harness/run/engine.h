#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/scheme.h"
#include "harness/core/task.h"
#include "harness/report/record.h"
#include "harness/run/sweep.h"
#include "models/llama.h"

namespace kvsweep {

// What one scheme made of one sample.
struct RowResult {
  Output output;
  std::vector<float> kl;          // per position where this row and the reference have read the same tokens
  int64_t top1_flips = 0;         // of those positions
  int64_t first_divergence = -1;  // index of the first generated token that differs from the reference's; -1: none
  int64_t reused_tokens = 0;      // generated tokens that were checked as part of a chunk instead of decoded
  int64_t compressed_reads = 0;   // (query, token) pairs of query and answer, mean over layers
  std::optional<AttentionDrift> attention;
  CacheBytes bytes;  // at the end of the sample
  SampleTime time;
};

struct RowOutcome {
  RowResult result;
  std::string error;  // the sample and the first line of what was thrown; then the result means nothing
};

struct SampleOutcome {
  size_t sample = 0;             // index into what run() was given
  int64_t prefilled_tokens = 0;  // of its context that were computed; the others came with a context before it
  std::vector<RowOutcome> rows;  // full precision, then each scheme; a lossless scheme is the first one again
  // Full precision once more, as a row of its own elsewhere in the batches: what moves without any compression. Absent
  // where a row does not depend on its batch.
  std::optional<RowResult> noise;
};

// Sizes of the slabs in which tokens [position, position + count) may be appended so that every query reads exactly
// what token-by-token decoding would have left it: cut wherever an earlier token is first read compressed.
std::vector<int64_t> streaming_slabs(const CompressedFrom& from, int64_t position, int64_t count);

struct EngineOptions {
  // Check the full-precision continuation in chunks and decode from the first token that differs; exact either way.
  bool greedy_reuse = true;
  int64_t rows = 0;          // of a batch at most; 0: what the device is good for
  int64_t cache_budget = 0;  // bytes of prefills and caches held at once; 0: no limit
  // Share nothing among samples and schemes: for each scheme of each sample a prefill, full precision's continuation to
  // compare with and its own, token by token, in batches of one row, as a run of that scheme alone would do it.
  bool alone = false;
  std::vector<int64_t> attention_layers;  // whose attention of the last query token is compared with full precision's
  bool time_first = false;  // measure decode_ms_per_token of each row of the first sample alone, on clones
};

// What run() evaluates.
struct EngineWork {
  std::vector<const Sample*> samples;
  View view;
  std::vector<const Scheme*> schemes;
  // Bytes of one cache at the end of the longest sample: full precision, then each scheme. Empty: not known, no budget.
  std::vector<int64_t> cache_bytes;
};

// Evaluates samples under schemes. In view `exact` each context is prefilled once in full precision and replayed into
// every scheme; what it has in common with a context before it is not computed again. Rows (scheme x sample) then
// decode as one batch: one GEMM a layer over all of them, attention row by row; a row that has finished makes room for
// one that waits. The full-precision row of a sample goes first and leaves its tokens and hidden states behind: the
// reference of every KL, flip and divergence, whatever batch the others run in.
class Engine {
 public:
  // reference: a lossless scheme. All outlive the engine.
  Engine(const Llama& llama, const Tokenizer& tokenizer, const Scheme& reference);

  using Done = std::function<void(SampleOutcome&&)>;
  // Calls `done` for each sample as it is complete, not always in order. A scheme that throws has its error
  // in every sample that is not complete yet, and costs nothing more; for want of memory it is first tried again with
  // fewer rows beside it. Throws Interrupted between steps, and whatever `done` throws.
  void run(const EngineWork& work, const EngineOptions& options, const Done& done) const;

 private:
  friend class EngineRun;
  void run_alone(const EngineWork& work, EngineOptions options, const Done& done) const;

  const Llama& llama_;
  const Tokenizer& tokenizer_;
  const Scheme& reference_;
};

}  // namespace kvsweep
