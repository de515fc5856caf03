#include "tests/support/torch/tiny_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/core/random.h"

namespace kvsweep::testing {
namespace {

TinyWeights::Entry random_entry(std::vector<int64_t> shape, uint64_t seed, double mean, double deviation) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  TinyWeights::Entry entry{std::move(shape), std::vector<float>(static_cast<size_t>(count))};
  Rng rng(seed);
  for (float& value : entry.values) value = static_cast<float>(mean + deviation * rng.normal());
  return entry;
}

}  // namespace

TinyWeights::TinyWeights(const LlamaConfig& config, uint64_t seed) {
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, double mean, double deviation) {
    entries_[name] = random_entry(std::move(shape), derive_seed(seed, name), mean, deviation);
  };
  const auto project = [&](const std::string& name, int64_t rows, int64_t columns, bool bias) {
    add(name + ".weight", {rows, columns}, 0, 1.5 / std::sqrt(static_cast<double>(columns)));
    if (bias) add(name + ".bias", {rows}, 0, 0.2);
  };
  const int64_t q_rows = config.heads * config.head_dim, kv_rows = config.kv_heads * config.head_dim;
  add("model.embed_tokens.weight", {config.vocab, config.hidden}, 0, 0.5);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    add(prefix + "input_layernorm.weight", {config.hidden}, 1, 0.1);
    add(prefix + "post_attention_layernorm.weight", {config.hidden}, 1, 0.1);
    project(prefix + "self_attn.q_proj", q_rows, config.hidden, config.attention_bias);
    project(prefix + "self_attn.k_proj", kv_rows, config.hidden, config.attention_bias);
    project(prefix + "self_attn.v_proj", kv_rows, config.hidden, config.attention_bias);
    project(prefix + "self_attn.o_proj", config.hidden, q_rows, config.attention_bias);
    project(prefix + "mlp.gate_proj", config.intermediate, config.hidden, config.mlp_bias);
    project(prefix + "mlp.up_proj", config.intermediate, config.hidden, config.mlp_bias);
    project(prefix + "mlp.down_proj", config.hidden, config.intermediate, config.mlp_bias);
  }
  add("model.norm.weight", {config.hidden}, 1, 0.1);
  if (!config.tied_head) project("lm_head", config.vocab, config.hidden, false);
}

bool TinyWeights::has(const std::string& name) const {
  return entries_.contains(name);
}

std::vector<std::string> TinyWeights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

std::vector<int64_t> TinyWeights::shape(const std::string& name) const {
  const auto at = entries_.find(name);
  if (at == entries_.end()) throw DataError(fmt::format("{}: no tensor {}", place(name), name));
  return at->second.shape;
}

void TinyWeights::read(const std::string& name, float* out) const {
  const Entry& entry = entries_.at(name);
  std::copy(entry.values.begin(), entry.values.end(), out);
}

std::string TinyWeights::place(const std::string&) const {
  return "tiny weights";
}

std::string TinyWeights::sha256() const {
  std::string bytes;
  for (const auto& [name, entry] : entries_)
    bytes.append(reinterpret_cast<const char*>(entry.values.data()), entry.values.size() * sizeof(float));
  return sha256_hex(bytes);
}

TinyWeights::Entry& TinyWeights::entry(const std::string& name) {
  return entries_.at(name);
}

LlamaConfig tiny_config() {
  LlamaConfig config;
  config.layers = 2;
  config.hidden = 48;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.intermediate = 80;
  config.vocab = 97;
  config.max_positions = 512;
  config.tied_head = true;
  return config;
}

std::vector<LlamaConfig> tiny_configs() {
  const auto with = [](int64_t layers, int64_t heads, int64_t kv_heads, int64_t head_dim, bool tied, bool biases) {
    LlamaConfig config = tiny_config();
    config.layers = layers;
    config.heads = heads;
    config.kv_heads = kv_heads;
    config.head_dim = head_dim;
    config.tied_head = tied;
    config.attention_bias = config.mlp_bias = biases;
    return config;
  };
  return {tiny_config(), with(3, 3, 3, 32, false, false), with(2, 6, 1, 8, true, true), with(2, 9, 3, 64, true, false)};
}

Llama tiny_llama(const LlamaConfig& config, uint64_t seed) {
  return Llama(config, TinyWeights(config, seed), {});
}

std::vector<int32_t> random_tokens(int64_t count, int64_t vocab, uint64_t seed) {
  Rng rng(derive_seed(seed, "tokens"));
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.between(0, vocab - 1));
  return tokens;
}

}  // namespace kvsweep::testing
