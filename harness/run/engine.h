#pragma once

#include <cstdint>
#include <optional>
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
  int64_t compressed_reads = 0;   // (query, token) pairs of query and answer, mean over layers
  CacheBytes bytes;               // at the end of the sample
  SampleTime time;
};

// Sizes of the slabs in which tokens [position, position + count) may be appended so that every query reads exactly
// what token-by-token decoding would have left it: cut wherever an earlier token is first read compressed.
std::vector<int64_t> streaming_slabs(const CompressedFrom& from, int64_t position, int64_t count);

// Evaluates one sample under many schemes at once: one full-precision prefill whose keys and values go to every cache
// layer by layer, then one batch whose rows are the schemes. Row 0 of the batch is full precision, the reference of
// every KL and flip.
class Engine {
 public:
  // reference: a lossless scheme. All outlive the engine.
  Engine(const Llama& llama, const Tokenizer& tokenizer, const Scheme& reference);

  // Results of the reference, then of each scheme. A lossless scheme is the reference itself and costs no row.
  // time_decode: also measure decode_ms_per_token of each row alone, on clones.
  // Throws Interrupted between steps.
  std::vector<RowResult> evaluate(const Sample& sample, const View& view, const std::vector<const Scheme*>& schemes,
                                  bool time_decode) const;

 private:
  struct Lane;
  std::vector<Lane> make_lanes(const Sample& sample, const std::vector<const Scheme*>& schemes) const;
  void feed_context(const Sample& sample, const View& view, std::vector<Lane>& lanes) const;
  at::Tensor feed_query(const Sample& sample, const View& view, std::vector<Lane>& lanes) const;
  void score(const Sample& sample, const at::Tensor& hidden, std::vector<Lane>& lanes) const;
  void generate(const Sample& sample, at::Tensor hidden, std::vector<Lane>& lanes) const;
  at::Tensor step(std::vector<Lane*>& lanes, const std::vector<std::vector<int32_t>>& tokens,
                  const std::vector<std::vector<int64_t>>& slabs) const;
  // Nothing where the steps would leave the model's range of positions.
  std::optional<double> time_decode_alone(const Lane& lane, int32_t token) const;
  void finish(Lane& lane) const;

  const Llama& llama_;
  const Tokenizer& tokenizer_;
  const Scheme& reference_;
};

}  // namespace kvsweep
