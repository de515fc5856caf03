#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "harness/run/engine.h"

namespace kvsweep {

// A token of a row whose next-token distribution is looked at.
struct ScoredToken {
  int64_t position = 0;         // among the positions of the sample that are scored, see Lane
  int64_t token = 0;            // index among those that the lane has just fed
  std::vector<int32_t> wanted;  // log-probabilities of these are read
  bool compared = true;         // full precision has read the same tokens up to here
};
struct Scores {
  float kl = 0;
  int32_t best = 0, chosen = 0;  // the most likely token; the one that sampling takes
  bool flip = false;
  std::vector<float> log_probs;  // of `wanted`
};

// What the full-precision row of a sample leaves behind for the others.
struct ReferenceRun {
  std::vector<int32_t> decisions;   // tokens that were generated, the one that ended the text included
  std::vector<at::Tensor> hidden;   // of each scored position, [1, hidden]
  std::vector<at::Tensor> weights;  // attention of the last query token in each of the probed layers
};

// A row while it runs: one sample under one scheme. It says what to feed next and takes what came out.
//
// Scored positions of a sample, in this order. A query that is scored: its tokens but the last. Generation: the last
// query token, then each generated token but the last. Choices: the last query token, then of each choice in turn its
// tokens but the last.
class Lane {
 public:
  Lane(const Sample& sample, const View& view, const Scheme& scheme, const Llama& llama, const Tokenizer& tokenizer);

  // Layers whose attention of the last query token is compared; outlives the lane.
  void probe(std::span<const int64_t> layers) { probed_ = layers; }
  // Full precision compares with itself; the others with `reference`, which outlives them.
  void compare_with(const ReferenceRun* reference, bool reuse);
  // Makes the cache; the context from `trace`, or, where the view is not `exact`, in the steps to come.
  void start(const PrefillTrace* trace);

  bool done() const { return phase_ == Phase::kDone; }
  // Before each feed(), beside other lanes: copies the cache where the next tokens may have to be taken back.
  void branch();
  // The next tokens; points into this lane.
  Row feed();
  // Those of them that are scored.
  const std::vector<ScoredToken>& scored() const { return scored_; }
  // After the step: the row that was fed, one entry for each of scored().
  void take(const Row& row, const std::vector<Scores>& scores);

  // Whether the next feed() is the first one after the query: decoding can be timed.
  bool query_just_read() const { return query_just_read_; }
  void time_decode();
  // Bytes and counts, once it is done.
  void finish();

  const Sample& sample() const { return sample_; }
  const Scheme& scheme() const { return scheme_; }
  RowResult& result() { return result_; }
  const std::vector<int32_t>& decisions() const { return decisions_; }
  const std::vector<at::Tensor>& weights() const { return weights_; }

 private:
  enum class Phase { kContext, kQuery, kDecode, kVerify, kChoice, kDone };
  bool is_reference() const { return reference_ == nullptr; }
  int64_t context_tokens() const { return static_cast<int64_t>(sample_.context.size()); }
  int64_t streamed_context() const { return view_.as_decoded ? 0 : context_tokens(); }
  std::vector<int32_t> next_tokens();
  std::vector<ScoredToken> scored_tokens() const;
  void plan_slabs(int64_t count);
  void compare_attention();
  void read_query(const std::vector<Scores>& scores);
  void next_choice();
  // True when the text has ended.
  bool decide(const Scores& scores);
  void after_decision();
  void verify(const std::vector<Scores>& scores);
  void roll_back(int64_t valid);

  const Sample& sample_;
  const View view_;
  const Scheme& scheme_;
  const Llama& llama_;
  const Tokenizer& tokenizer_;
  const ReferenceRun* reference_ = nullptr;
  bool reuse_ = false;
  std::span<const int64_t> probed_;
  std::vector<at::Tensor> weights_;
  Phase phase_ = Phase::kContext;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<KvCache> branch_;  // kVerify: the cache before the chunk; kChoice: the one that reads the choice
  int64_t held_ = 0;                 // tokens in cache_
  Row row_;
  std::vector<ScoredToken> scored_;
  CompressedFrom forms_;
  std::vector<KvSlab> kept_;
  std::vector<int32_t> decisions_;
  size_t choice_ = 0;
  int64_t choice_positions_ = 1;  // scored positions before those of the choice
  bool same_prefix_ = true;       // has generated what the reference has generated
  bool query_just_read_ = false;
  RowResult result_;
};

}  // namespace kvsweep
