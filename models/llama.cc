#include "models/llama.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "harness/attention/attention.h"
#include "harness/core/stopwatch.h"
#include "models/llama_layer.h"
#include "models/llama_math.h"

namespace kvsweep {
namespace {

// Rows of a prefill that pass through projections and MLP together: bounds activations at any context length.
constexpr int64_t kRowBlock = 256;

template <class F>
void for_row_blocks(int64_t rows, F&& body) {
  for (int64_t at = 0; at < rows; at += kRowBlock) body(at, std::min(kRowBlock, rows - at));
}

void check_tokens(std::span<const int32_t> tokens, const LlamaConfig& config) {
  for (const int32_t token : tokens)
    TORCH_CHECK(token >= 0 && token < config.vocab, "Llama: token ", token, " is outside [0, ", config.vocab - 1, "]");
}

void check_row(const Row& row, const LlamaConfig& config) {
  const int64_t tokens = static_cast<int64_t>(row.tokens.size());
  TORCH_CHECK(row.cache != nullptr && tokens > 0, "Llama: a row needs a cache and tokens");
  TORCH_CHECK(std::all_of(row.slabs.begin(), row.slabs.end(), [](int64_t slab) { return slab > 0; }) &&
                  std::accumulate(row.slabs.begin(), row.slabs.end(), int64_t{0}) == tokens,
              "Llama: slabs of a row do not cut its ", tokens, " tokens");
  TORCH_CHECK(row.position >= 0 && row.position + tokens <= config.max_positions, "Llama: positions ", row.position,
              " to ", row.position + tokens - 1, " are outside the model's ", config.max_positions);
  check_tokens(row.tokens, config);
}

}  // namespace

Llama::~Llama() = default;
Llama::Llama(Llama&&) noexcept = default;

CacheContext Llama::cache_context(int64_t expected_tokens) const {
  return {.layers = config_.layers,
          .kv_heads = config_.kv_heads,
          .head_dim = config_.head_dim,
          .dtype = options_.dtype,
          .device = options_.device,
          .rope = rope_.get(),
          .expected_tokens = expected_tokens,
          .weights_sha256 = options_.weights_sha256};
}

at::Tensor Llama::embed(std::span<const int32_t> tokens) const {
  const at::Tensor ids = at::tensor(c10::ArrayRef<int32_t>(tokens.data(), tokens.size()), at::kInt).to(options_.device);
  return at::embedding(embedding_, ids);
}

at::Tensor Llama::empty_qkv(int64_t tokens) const {
  return at::empty({tokens, (config_.heads + 2 * config_.kv_heads) * config_.head_dim}, embedding_.options());
}

at::Tensor Llama::key_weight(int64_t layer) const {
  const int64_t d = config_.head_dim;
  return layers_.at(static_cast<size_t>(layer)).qkv.narrow(0, config_.heads * d, config_.kv_heads * d);
}

at::Tensor Llama::value_weight(int64_t layer) const {
  const int64_t d = config_.head_dim;
  return layers_.at(static_cast<size_t>(layer))
      .qkv.narrow(0, (config_.heads + config_.kv_heads) * d, config_.kv_heads * d);
}

at::Tensor Llama::qkv_heads(const at::Tensor& qkv, int64_t first, int64_t heads) const {
  return qkv.narrow(1, first * config_.head_dim, heads * config_.head_dim)
      .unflatten(1, {heads, config_.head_dim})
      .transpose(0, 1);
}

void Llama::finish_layer(const Layer& layer, const at::Tensor& attended, at::Tensor& hidden) const {
  add_projection(hidden, attended, layer.output, layer.output_bias);
  const at::Tensor normed = norm_rows(hidden, layer.mlp_norm, config_.rms_eps);
  const at::Tensor gate_up = project(normed, layer.gate_up, layer.gate_up_bias);
  add_projection(hidden, silu_mul(gate_up), layer.down, layer.down_bias);
}

// Causal attention of a whole sequence -> [T, Hq * D] as a view that a row block of may be copied from. Each kv-head is
// one batch entry whose G query heads share its keys and values by stride 0, so that nothing is repeated in memory.
at::Tensor Llama::attend_causal(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
  const int64_t groups = config_.heads / config_.kv_heads, tokens = q.size(1);
  const auto shared = [&](const at::Tensor& x) {
    return x.unsqueeze(1).expand({config_.kv_heads, groups, tokens, config_.head_dim});
  };
  const at::Tensor out =
      at::scaled_dot_product_attention(q.unflatten(0, {config_.kv_heads, groups}), shared(k), shared(v), {}, 0.0, true);
  return out.permute({2, 0, 1, 3});  // [T, H, G, D]
}

void Llama::prefill_layer(int64_t index, at::Tensor& hidden, const at::Tensor& qkv, const PrefillSink& sink,
                          int64_t first_needed) const {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  const int64_t tokens = hidden.size(0);
  for_row_blocks(tokens, [&](int64_t at, int64_t rows) {
    at::Tensor block = qkv.narrow(0, at, rows);
    project_into(block, norm_rows(hidden.narrow(0, at, rows), layer.attention_norm, config_.rms_eps), layer.qkv,
                 layer.qkv_bias);
  });
  const at::Tensor q = qkv_heads(qkv, 0, config_.heads), k = qkv_heads(qkv, config_.heads, config_.kv_heads);
  const at::Tensor v = qkv_heads(qkv, config_.heads + config_.kv_heads, config_.kv_heads);
  if (sink) sink(index, {.k = k, .v = v, .position = 0});
  if (first_needed == tokens) return;
  rope_->rotate(q, 0);
  rope_->rotate(k, 0);
  const at::Tensor attended = attend_causal(q, k, v);
  for_row_blocks(tokens, [&](int64_t at, int64_t rows) {
    if (at + rows <= first_needed) return;  // whole blocks, so that a row's bits do not depend on first_needed
    at::Tensor block = hidden.narrow(0, at, rows);
    finish_layer(layer, attended.narrow(0, at, rows).reshape({rows, -1}), block);
  });
}

at::Tensor Llama::start_prefill(std::span<const int32_t> tokens) const {
  const int64_t count = static_cast<int64_t>(tokens.size());
  TORCH_CHECK(count > 0 && count <= config_.max_positions, "Llama: a prefill of ", count, " tokens is outside [1, ",
              config_.max_positions, "]");
  check_tokens(tokens, config_);
  return embed(tokens);
}

void Llama::prefill_layer(int64_t layer, at::Tensor& hidden, const PrefillSink& sink) const {
  const int64_t tokens = hidden.size(0);
  prefill_layer(layer, hidden, empty_qkv(tokens), sink, layer + 1 < config_.layers ? 0 : tokens);
}

at::Tensor Llama::prefill(std::span<const int32_t> tokens, const PrefillSink& sink, int64_t last_hidden) const {
  at::Tensor hidden = start_prefill(tokens);
  const int64_t count = hidden.size(0);
  TORCH_CHECK(last_hidden >= 0 && last_hidden <= count, "Llama: last_hidden ", last_hidden, " is outside [0, ", count,
              "]");
  const at::Tensor qkv = empty_qkv(count);
  for (int64_t index = 0; index < config_.layers; ++index)
    prefill_layer(index, hidden, qkv, sink, index + 1 < config_.layers ? 0 : count - last_hidden);
  return norm_rows(hidden.narrow(0, count - last_hidden, last_hidden), final_norm_, config_.rms_eps);
}

void Llama::attend_row(Row& row, int64_t layer, int64_t first, const at::Tensor& qkv, at::Tensor& attended) const {
  const Stopwatch watch(options_.device);
  int64_t done = 0;
  for (const int64_t slab : row.slabs) {
    const at::Tensor part = qkv.narrow(0, first + done, slab);
    const int64_t position = row.position + done;
    row.cache->append(layer, {.k = qkv_heads(part, config_.heads, config_.kv_heads),
                              .v = qkv_heads(part, config_.heads + config_.kv_heads, config_.kv_heads),
                              .position = position});
    const AttentionResult result =
        attend_reference(row.cache->read(layer), qkv_heads(part, 0, config_.heads), position, *rope_);
    attended.narrow(0, first + done, slab).copy_(result.output.flatten(1));
    row.compressed_reads += result.compressed_reads;
    done += slab;
  }
  row.attend_ms += watch.ms();
}

at::Tensor Llama::step(std::span<Row> rows) const {
  std::vector<int32_t> tokens;
  std::vector<int64_t> positions;
  for (Row& row : rows) {
    check_row(row, config_);
    tokens.insert(tokens.end(), row.tokens.begin(), row.tokens.end());
    for (size_t i = 0; i < row.tokens.size(); ++i) positions.push_back(row.position + static_cast<int64_t>(i));
    row.compressed_reads = 0;
    row.attend_ms = 0;
  }
  at::Tensor hidden = embed(tokens);
  const at::Tensor where = at::tensor(positions, at::kLong).to(options_.device);
  const int64_t count = static_cast<int64_t>(tokens.size());
  at::Tensor attended = at::empty({count, config_.heads * config_.head_dim}, hidden.options());
  for (int64_t index = 0; index < config_.layers; ++index) {
    const Layer& layer = layers_[static_cast<size_t>(index)];
    const at::Tensor qkv = project(norm_rows(hidden, layer.attention_norm, config_.rms_eps), layer.qkv, layer.qkv_bias);
    at::Tensor q = qkv_heads(qkv, 0, config_.heads);
    rope_->rotate(q, where);
    int64_t first = 0;
    for (Row& row : rows) {
      attend_row(row, index, first, qkv, attended);
      first += static_cast<int64_t>(row.tokens.size());
    }
    finish_layer(layer, attended, hidden);
  }
  return norm_rows(hidden, final_norm_, config_.rms_eps);
}

at::Tensor Llama::logits(const at::Tensor& hidden) const {
  return project(hidden, head_, {}).to(at::kFloat);
}

}  // namespace kvsweep
