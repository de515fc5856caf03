#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "harness/core/kv_cache.h"
#include "harness/core/rope.h"
#include "models/llama_config.h"
#include "models/weight_source.h"

namespace kvsweep {

struct ModelOptions {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  std::string weights_sha256{};  // of the files the weights come from; "": not known
};

// Called once a layer, in order, with the keys (before RoPE) and values of all tokens of a prefill.
using PrefillSink = std::function<void(int64_t layer, const KvSlab& slab)>;

// One sequence's part of a batched step.
struct Row {
  KvCache* cache = nullptr;
  std::vector<int32_t> tokens;  // at positions position, position + 1, ...
  int64_t position = 0;         // tokens that the cache holds already
  // How many of `tokens` are appended before the queries of that slab read the cache; sums to tokens.size(). {1, 1,
  // ...} is token-by-token decoding; larger slabs are equal to it where the scheme's compressed_from says so.
  std::vector<int64_t> slabs;
  int64_t compressed_reads = 0;  // out: summed over layers
  double attend_ms = 0;          // out: append + read + attention of this row, all layers
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
  // `last_hidden` tokens, [last_hidden, hidden].
  at::Tensor prefill(std::span<const int32_t> tokens, const PrefillSink& sink, int64_t last_hidden) const;

  // One batched pass over all rows: one GEMM a layer over every token of every row, attention row by row over its cache
  // -> hidden states after the final norm, [sum of tokens, hidden], rows in order.
  at::Tensor step(std::span<Row> rows) const;

  // Logits of hidden states [n, hidden] -> [n, vocab] float32. The caller chooses n: nothing here is a whole context.
  at::Tensor logits(const at::Tensor& hidden) const;

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
                     int64_t first_needed) const;
  // q [Hq, T, D], k and v [H, T, D] -> [T, H, Hq / H, D]
  at::Tensor attend_causal(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;
  // One row of a step: its tokens are rows `first`, ... of qkv and of `attended`.
  void attend_row(Row& row, int64_t layer, int64_t first, const at::Tensor& qkv, at::Tensor& attended) const;
  // What follows the attention: output projection and MLP, both added to `hidden` [n, hidden].
  void finish_layer(const Layer& layer, const at::Tensor& attended, at::Tensor& hidden) const;

  LlamaConfig config_;
  ModelOptions options_;
  std::unique_ptr<Rope> rope_;
  std::vector<Layer> layers_;
  at::Tensor embedding_, head_, final_norm_;
  std::vector<std::string> warnings_;
};

}  // namespace kvsweep
