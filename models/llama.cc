#include "models/llama.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "harness/attention/attention.h"
#include "harness/attention/one_pass.h"
#include "harness/attention/reads.h"
#include "harness/attention/weights.h"
#include "harness/core/shared_tasks.h"
#include "harness/core/stopwatch.h"
#include "models/cpu_kernels.h"
#include "models/llama_layer.h"
#include "models/llama_math.h"

namespace kvsweep {
namespace {

// Rows that pass through projections and MLP together: bounds activations at any context length. Of the library, and of
// the kernel that keeps rows apart: two blocks of its own, whose activations stay in a core's L2.
constexpr int64_t kRowBlock = 256, kJointBlock = 96;
// Rows a thread from which it takes whole rows through products, and not some of their outputs.
constexpr int64_t kOwnRows = 32;
// The attention of a row with so many tokens has all threads.
constexpr int64_t kLongRow = 96;

template <class F>
void for_row_blocks(int64_t rows, F&& body, int64_t most = kRowBlock) {
  for (int64_t at = 0; at < rows; at += most) body(at, std::min(most, rows - at));
}

// Blocks of rows through `body`. Where products keep rows apart each thread takes rows of its own: what one product
// leaves is at hand for the next, and no thread waits for another in between.
template <class F>
void for_blocks(int64_t rows, Products products, const F& body) {
  constexpr int64_t kUnit = 8;
  const int64_t threads = at::get_num_threads(), units = at::divup(rows, kUnit);
  if (products == Products::kLibrary) return for_row_blocks(rows, body);
  if (rows < threads * kOwnRows) return for_row_blocks(rows, body, kJointBlock);
  at::parallel_for(0, units, at::divup(units, threads), [&](int64_t begin, int64_t end) {
    const c10::InferenceMode no_autograd;
    const int64_t first = begin * kUnit;
    for_row_blocks(
        std::min(rows, end * kUnit) - first, [&](int64_t at, int64_t count) { body(first + at, count); }, kJointBlock);
  });
}

void check_tokens(std::span<const int32_t> tokens, const LlamaConfig& config) {
  for (const int32_t token : tokens)
    TORCH_CHECK(token >= 0 && token < config.vocab, "Llama: token ", token, " is outside [0, ", config.vocab - 1, "]");
}

// The first token that queries of a one-pass row read exact and that is compressed while the row is read; nothing:
// none.
std::optional<int64_t> first_changing(const CompressedFrom& forms, int64_t position, int64_t count) {
  std::optional<int64_t> first;
  for (const at::Tensor* side : {&forms.keys, &forms.values}) {
    const int64_t* from = side->const_data_ptr<int64_t>();
    for (int64_t t = 0; t < first.value_or(position + count); ++t)
      if (from[t] > std::max(t, position) && from[t] < position + count) first = t;
  }
  return first;
}

// A row's own keys or values behind earlier ones.
at::Tensor behind(const at::Tensor& held, const at::Tensor& own) {
  const at::Tensor rows = own.to(at::kFloat);
  return held.defined() ? at::cat({held, rows}, 1) : rows;
}

void check_row(const Row& row, const LlamaConfig& config) {
  const int64_t tokens = static_cast<int64_t>(row.tokens.size());
  TORCH_CHECK(row.cache != nullptr && tokens > 0, "Llama: a row needs a cache and tokens");
  TORCH_CHECK(std::all_of(row.slabs.begin(), row.slabs.end(), [](int64_t slab) { return slab > 0; }) &&
                  std::accumulate(row.slabs.begin(), row.slabs.end(), int64_t{0}) == tokens,
              "Llama: slabs of a row do not cut its ", tokens, " tokens");
  TORCH_CHECK(row.first_needed >= 0 && row.first_needed <= tokens, "Llama: first_needed ", row.first_needed,
              " is outside [0, ", tokens, "]");
  TORCH_CHECK(row.position >= 0 && row.position + tokens <= config.max_positions, "Llama: positions ", row.position,
              " to ", row.position + tokens - 1, " are outside the model's ", config.max_positions);
  check_tokens(row.tokens, config);
}

}  // namespace

int64_t PrefillTrace::bytes() const {
  int64_t bytes = 0;
  for (const auto* side : {&k, &v})
    for (const at::Tensor& x : *side) bytes += x.numel() * x.element_size();
  return bytes;
}

// Rows of a step by the first of their tokens.
struct Llama::Batch {
  std::span<Row> rows;
  std::vector<int64_t> first;
  std::vector<size_t> short_rows, long_rows;
  std::vector<int32_t> tokens;
  at::Tensor positions;  // [tokens] int64
};

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

void Llama::begin_layer(const Layer& layer, const at::Tensor& hidden, at::Tensor& qkv) const {
  project_into(qkv, norm_rows(hidden, layer.attention_norm, config_.rms_eps), layer.qkv, layer.qkv_bias, products());
}

void Llama::finish_layer(const Layer& layer, const at::Tensor& attended, at::Tensor& hidden) const {
  add_projection(hidden, attended, layer.output, layer.output_bias, products());
  const at::Tensor normed = norm_rows(hidden, layer.mlp_norm, config_.rms_eps);
  add_mlp(hidden, normed, {layer.gate_up, layer.gate_up_bias, layer.down, layer.down_bias}, products());
}

void Llama::prefill_layer(int64_t index, at::Tensor& hidden, const at::Tensor& qkv, const PrefillSink& sink,
                          int64_t first_needed, const PrefillTrace* before) const {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  const int64_t tokens = hidden.size(0);
  for_blocks(tokens, products(), [&](int64_t at, int64_t rows) {
    at::Tensor block = qkv.narrow(0, at, rows);
    begin_layer(layer, hidden.narrow(0, at, rows), block);
  });
  const at::Tensor q = qkv_heads(qkv, 0, config_.heads), k = qkv_heads(qkv, config_.heads, config_.kv_heads);
  const at::Tensor v = qkv_heads(qkv, config_.heads + config_.kv_heads, config_.kv_heads);
  const int64_t position = before != nullptr ? before->tokens() : 0;
  if (sink) sink(index, {.k = k, .v = v, .position = position});
  if (first_needed == tokens) return;
  rope_->rotate(q, position);
  rope_->rotate(k, position);
  const auto at_layer = static_cast<size_t>(index);
  const at::Tensor attended = position == 0 ? attend_exact(q, k, v)
                                            : attend_exact(q, at::cat({rope_->apply(before->k[at_layer], 0), k}, 1),
                                                           at::cat({before->v[at_layer], v}, 1));
  // Blocks of the library are whole: their rows' bits may depend on each other.
  const int64_t first = row_invariant() ? first_needed : first_needed / kRowBlock * kRowBlock;
  for_blocks(tokens - first, products(), [&](int64_t at, int64_t rows) {
    at::Tensor block = hidden.narrow(0, first + at, rows);
    finish_layer(layer, attended.narrow(0, first + at, rows).flatten(1), block);
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
  prefill_layer(layer, hidden, empty_qkv(tokens), sink, layer + 1 < config_.layers ? 0 : tokens, nullptr);
}

at::Tensor Llama::prefill(std::span<const int32_t> tokens, const PrefillSink& sink, int64_t last_hidden,
                          const PrefillTrace* before) const {
  at::Tensor hidden = start_prefill(tokens);
  const int64_t count = hidden.size(0), position = before != nullptr ? before->tokens() : 0;
  TORCH_CHECK(last_hidden >= 0 && last_hidden <= count, "Llama: last_hidden ", last_hidden, " is outside [0, ", count,
              "]");
  TORCH_CHECK(position + count <= config_.max_positions, "Llama: a prefill to position ", position + count,
              " is outside the model's ", config_.max_positions);
  const at::Tensor qkv = empty_qkv(count);
  for (int64_t index = 0; index < config_.layers; ++index)
    prefill_layer(index, hidden, qkv, sink, index + 1 < config_.layers ? 0 : count - last_hidden, before);
  return norm_rows(hidden.narrow(0, count - last_hidden, last_hidden), final_norm_, config_.rms_eps);
}

bool Llama::row_invariant() const {
  return options_.deterministic && options_.device.is_cpu() && options_.dtype == at::kFloat && has_cpu_kernels();
}

Products Llama::products() const {
  return row_invariant() ? Products::kRowInvariant : Products::kLibrary;
}

Llama::Batch Llama::make_batch(std::span<Row> rows) const {
  Batch batch;
  batch.rows = rows;
  std::vector<int64_t> positions;
  int64_t first = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    Row& row = rows[i];
    check_row(row, config_);
    const auto count = static_cast<int64_t>(row.tokens.size());
    for (int64_t token = 0; token < count; ++token) positions.push_back(row.position + token);
    batch.tokens.insert(batch.tokens.end(), row.tokens.begin(), row.tokens.end());
    batch.first.push_back(first);
    row.compressed_reads.assign(static_cast<size_t>(count), 0);
    row.fused = true;
    row.attend_ms = 0;
    row.error = nullptr;
    if (row.kept != nullptr) row.kept->clear();
    row.weights.clear();
    (count >= kLongRow ? batch.long_rows : batch.short_rows).push_back(i);
    first += count;
  }
  std::stable_sort(batch.short_rows.begin(), batch.short_rows.end(),
                   [&](size_t a, size_t b) { return rows[a].expected_ms > rows[b].expected_ms; });
  batch.positions = at::tensor(positions, at::kLong).to(options_.device);
  return batch;
}

void Llama::attend_row(Row& row, int64_t layer, int64_t first, const at::Tensor& qkv, at::Tensor& attended) const {
  const Stopwatch watch(options_.device);
  const auto count = static_cast<int64_t>(row.tokens.size());
  const at::Tensor whole = qkv.narrow(0, first, count);
  const KvSlab all{.k = qkv_heads(whole, config_.heads, config_.kv_heads),
                   .v = qkv_heads(whole, config_.heads + config_.kv_heads, config_.kv_heads),
                   .position = row.position};
  const at::Tensor q = qkv_heads(whole, 0, config_.heads);
  if (row.kept != nullptr)
    row.kept->push_back(
        {all.k.clone(at::MemoryFormat::Contiguous), all.v.clone(at::MemoryFormat::Contiguous), row.position});
  const auto changing = row.forms == nullptr ? std::nullopt : first_changing(*row.forms, row.position, count);
  DecodedTokens held;  // what the cache has before the row, from `changing` on
  if (changing && *changing < row.position) {
    held = decode_stored(row.cache->read(layer), *changing);
    held = {held.k.clone(), held.v.clone()};
  }
  // Queries from this one on are asked for.
  const int64_t asked = layer + 1 < config_.layers ? 0 : row.first_needed;
  const auto put = [&](int64_t query, const AttentionResult& result) {
    attended.narrow(0, first + query, result.output.size(0)).copy_(result.output.flatten(1));
    row.fused = row.fused && result.path == AttentionPath::kFused;
  };
  int64_t done = 0;
  for (const int64_t slab : row.slabs) {
    const int64_t position = row.position + done, end = done + slab, query = std::max(done, asked);
    row.cache->append(layer, {all.k.narrow(1, done, slab), all.v.narrow(1, done, slab), position});
    if (row.forms == nullptr) {
      const KvView view = row.cache->read(layer);
      if (query < end) put(query, attend(view, q.narrow(1, query, end - query), row.position + query, *rope_));
      for (int64_t i = 0; i < slab; ++i)
        row.compressed_reads[static_cast<size_t>(done + i)] += compressed_reads(view, position + i);
    }
    done = end;
  }
  if (row.forms != nullptr) {
    OnePass tokens{row.cache->read(layer), {}, {}, *row.forms};
    if (changing) {
      const bool pending = tokens.after.keys.back().rotation == KeyRotation::kPending;
      tokens.first = std::min(*changing, row.position);
      tokens.k = behind(held.k, pending ? all.k : rope_->apply(all.k, row.position));
      tokens.v = behind(held.v, all.v);
    }
    if (asked < count)
      put(asked, attend_one_pass(tokens, q.narrow(1, asked, count - asked), row.position + asked, *rope_));
    const std::vector<int64_t> reads = one_pass_reads(tokens.after, *row.forms, row.position, count);
    std::transform(reads.begin(), reads.end(), row.compressed_reads.begin(), row.compressed_reads.begin(),
                   std::plus<>());
  }
  row.attend_ms += watch.ms();
  if (std::find(row.probed_layers.begin(), row.probed_layers.end(), layer) != row.probed_layers.end())
    row.weights.push_back(
        attention_weights(row.cache->read(layer), q.narrow(1, count - 1, 1), row.position + count - 1, *rope_));
}

// Rows share threads as they come free; each is computed by one, so that its bits do not depend on the others. A row
// with many tokens, or one that is alone, has all threads to itself.
void Llama::attend_rows(Batch& batch, int64_t layer, const at::Tensor& qkv, at::Tensor& attended) const {
  const auto attend_one = [&](size_t i) {
    Row& row = batch.rows[i];
    if (row.error) return;
    try {
      attend_row(row, layer, batch.first[i], qkv, attended);
    } catch (...) {
      row.error = std::current_exception();
    }
    if (row.error) attended.narrow(0, batch.first[i], static_cast<int64_t>(row.tokens.size())).zero_();
  };
  const std::vector<size_t>& rows = batch.short_rows;  // those that take long first
  for_each_task(std::ssize(rows), options_.device.is_cpu() ? at::get_num_threads() : 1,
                [&](int64_t task) { attend_one(rows[static_cast<size_t>(task)]); });
  for (const size_t i : batch.long_rows) attend_one(i);
}

at::Tensor Llama::step(std::span<Row> rows) const {
  const at::Tensor hidden = try_step(rows);
  for (const Row& row : rows)
    if (row.error) std::rethrow_exception(row.error);
  return hidden;
}

at::Tensor Llama::try_step(std::span<Row> rows) const {
  Batch batch = make_batch(rows);
  const auto count = static_cast<int64_t>(batch.tokens.size());
  at::Tensor hidden = embed(batch.tokens);
  at::Tensor attended = at::empty({count, config_.heads * config_.head_dim}, hidden.options());
  const at::Tensor qkv = empty_qkv(count), needed = needed_tokens(batch);
  const auto project_block = [&](int64_t index, int64_t at, int64_t tokens) {
    at::Tensor out = qkv.narrow(0, at, tokens);
    begin_layer(layers_[static_cast<size_t>(index)], hidden.narrow(0, at, tokens), out);
    rope_->rotate(qkv_heads(out, 0, config_.heads), batch.positions.narrow(0, at, tokens));
  };
  for_blocks(count, products(), [&](int64_t at, int64_t tokens) { project_block(0, at, tokens); });
  for (int64_t index = 0; index < config_.layers; ++index) {
    const bool last = index + 1 == config_.layers;
    attend_rows(batch, index, qkv, attended);
    if (last && needed.size(0) < count) {
      hidden = hidden.index_select(0, needed);
      attended = attended.index_select(0, needed);
    }
    // From one attention to the next a row goes its way alone.
    for_blocks(hidden.size(0), products(), [&](int64_t at, int64_t tokens) {
      at::Tensor part = hidden.narrow(0, at, tokens);
      finish_layer(layers_[static_cast<size_t>(index)], attended.narrow(0, at, tokens), part);
      if (!last) project_block(index + 1, at, tokens);
    });
  }
  const at::Tensor normed = norm_rows(hidden, final_norm_, config_.rms_eps);
  if (normed.size(0) == count) return normed;
  return at::empty({count, config_.hidden}, normed.options()).index_copy_(0, needed, normed);
}

at::Tensor Llama::needed_tokens(const Batch& batch) const {
  std::vector<int64_t> tokens;
  for (size_t i = 0; i < batch.rows.size(); ++i)
    for (int64_t t = batch.rows[i].first_needed; t < std::ssize(batch.rows[i].tokens); ++t)
      tokens.push_back(batch.first[i] + t);
  return at::tensor(tokens, at::kLong).to(options_.device);
}

at::Tensor Llama::logits(const at::Tensor& hidden) const {
  return project(hidden, head_, {}, products()).to(at::kFloat);
}

}  // namespace kvsweep
