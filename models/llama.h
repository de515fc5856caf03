#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "harness/attention/one_pass.h"
#include "harness/core/kv_cache.h"
#include "harness/core/rope.h"
#include "harness/core/scheme.h"
#include "models/llama_config.h"
#include "models/llama_math.h"
#include "models/weight_source.h"

namespace kvsweep {

struct ModelOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  std::string weights_sha256{};  // of the files the weights come from; "": not known
  // A row of a step is bit for bit the row alone, whatever rows it is batched with. Only on a CPU with kernels for it
  // (Llama::row_invariant()); what it costs stands in docs/benchmarks.md.
  bool deterministic = true;
};

// Called once a layer, in order, with the keys (before RoPE) and values of all tokens of a prefill.
using PrefillSink = std::function<void(int64_t layer, const KvSlab& slab)>;

// Keys (before RoPE) and values of a run of tokens from position 0, layer by layer: what a prefill hands to caches.
struct PrefillTrace {
  std::vector<at::Tensor> k, v;  // [L] of [H, T, D] each, compute dtype
  int64_t tokens() const { return k.empty() ? 0 : k[0].size(1); }
  int64_t bytes() const;
};

// One sequence's part of a batched step.
struct Row {
  KvCache* cache = nullptr;
  std::vector<int32_t> tokens;  // at positions position, position + 1, ...
  int64_t position = 0;         // tokens that the cache holds already
  // How many of `tokens` are appended at once; sums to tokens.size(). Without `forms`, the queries of a slab read the
  // cache right after it: {1, 1, ...} is token-by-token decoding.
  std::vector<int64_t> slabs;
  // One pass: when each token changes its form, if tokens come one by one from `position` on. Everything is appended,
  // then each query reads what token-by-token decoding would have shown it. For schemes with the trait one_pass.
  const CompressedFrom* forms = nullptr;
  // Hidden states of the tokens before this one are not wanted: the last layer appends them and leaves the rest out.
  int64_t first_needed = 0;
  double expected_ms = 0;               // attend_ms of an earlier step: rows that take long start first
  std::vector<KvSlab>* kept = nullptr;  // out, if set: what was appended, one slab a layer; copies
  // Layers whose attention weights of the last token are wanted (harness/attention/weights.h).
  std::span<const int64_t> probed_layers{};

  std::vector<at::Tensor> weights{};        // out: [Hq, position of the last token + 1], for each of probed_layers
  std::vector<int64_t> compressed_reads{};  // out: of each token's query, summed over layers
  bool fused = true;                        // out: attention read packed bytes in every layer
  double attend_ms = 0;                     // out: append + read + attention of this row, all layers
  std::exception_ptr error{};               // out: what the cache threw; the row's hidden states mean nothing then
};

// A decoder of the Llama family: weights and rope; knows no scheme. Computes in `dtype` (norms, rope, softmax in
// float32).
class Llama {
 public:
  // Throws DataError that names file, tensor, what came and what is needed.
  Llama(LlamaConfig config, const WeightSource& weights, ModelOptions options);
  ~Llama();
  Llama(Llama&&) noexcept;

  const LlamaConfig& config() const { return config_; }
  const Rope& rope() const { return *rope_; }
  ModelOptions options() const { return options_; }
  int64_t weight_bytes() const;
  // Tensors that hold NaN or infinity, "model.layers.3.mlp.up_proj.weight: 2 values"; a warning in records.
  const std::vector<std::string>& weight_warnings() const { return warnings_; }
  // CacheContext of this model for sequences of about `expected_tokens`.
  CacheContext cache_context(int64_t expected_tokens) const;

  // Full-precision forward pass over one sequence from position 0 -> hidden states after the final norm of the last
  // `last_hidden` tokens, [last_hidden, hidden]. With `before`, the tokens follow those of the trace and the sink gets
  // them alone.
  at::Tensor prefill(std::span<const int32_t> tokens, const PrefillSink& sink, int64_t last_hidden,
                     const PrefillTrace* before = nullptr) const;

  // One batched pass over all rows: one GEMM a layer over the tokens of all rows, attention row by row over its cache,
  // rows shared out over threads -> hidden states after the final norm, [sum of tokens, hidden], rows in order, those
  // that are not needed anything. What a row's cache throws ends in that row's `error`; the other rows do not feel it.
  at::Tensor try_step(std::span<Row> rows) const;
  // The same; throws what the first row that failed has thrown.
  at::Tensor step(std::span<Row> rows) const;

  // Logits of hidden states [n, hidden] -> [n, vocab] float32. The caller chooses n: nothing here is a whole context.
  at::Tensor logits(const at::Tensor& hidden) const;

  // Rows of a step, of logits(), and of a prefill where kernels attend are bit for bit what they are alone.
  bool row_invariant() const;

  // A prefill taken apart, for whoever takes many sequences through one layer before the next: what goes into layer 0,
  // [T, hidden], and one layer over it in place, bit for bit as prefill() does it. Nothing reads what the last layer
  // gives: it ends with the sink.
  at::Tensor start_prefill(std::span<const int32_t> tokens) const;
  void prefill_layer(int64_t layer, at::Tensor& hidden, const PrefillSink& sink) const;
  // Projections of a layer, [H * D, hidden], head by head: views on the weights.
  at::Tensor key_weight(int64_t layer) const;
  at::Tensor value_weight(int64_t layer) const;

 private:
  struct Layer;
  at::Tensor embed(std::span<const int32_t> tokens) const;  // [n, hidden]
  at::Tensor empty_qkv(int64_t tokens) const;               // [n, (Hq + 2H) * D]
  // Heads [first, first + heads) of qkv [n, (Hq + 2H) * D] -> [heads, n, D], a view.
  at::Tensor qkv_heads(const at::Tensor& qkv, int64_t first, int64_t heads) const;
  // One layer over a whole sequence: `hidden` [T, hidden] in and out, qkv [T, (Hq + 2H) * D] overwritten. Rows of
  // `hidden` before `first_needed` may be left as they came.
  void prefill_layer(int64_t index, at::Tensor& hidden, const at::Tensor& qkv, const PrefillSink& sink,
                     int64_t first_needed, const PrefillTrace* before) const;
  struct Batch;  // of a step
  Batch make_batch(std::span<Row> rows) const;
  void attend_rows(Batch& batch, int64_t layer, const at::Tensor& qkv, at::Tensor& attended) const;
  // One row of a step: its tokens are rows `first`, ... of qkv and of `attended`.
  void attend_row(Row& row, int64_t layer, int64_t first, const at::Tensor& qkv, at::Tensor& attended) const;
  // Tokens of `rows`, as rows of the batch, from which something is wanted after the last layer.
  at::Tensor needed_tokens(const Batch& batch) const;
  // What precedes the attention of `hidden` [n, hidden]: norm and projection into qkv [n, (Hq + 2H) * D].
  void begin_layer(const Layer& layer, const at::Tensor& hidden, at::Tensor& qkv) const;
  // What follows the attention: output projection and MLP, both added to `hidden` [n, hidden].
  void finish_layer(const Layer& layer, const at::Tensor& attended, at::Tensor& hidden) const;
  Products products() const;

  LlamaConfig config_;
  ModelOptions options_;
  std::unique_ptr<Rope> rope_;
  std::vector<Layer> layers_;
  at::Tensor embedding_, head_, final_norm_;
  std::vector<std::string> warnings_;
};

}  // namespace kvsweep
