#include "tests/support/stories_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "tests/support/golden.h"

namespace kvsweep::testing {
namespace {

constexpr int64_t kHeaderBytes = 7 * 4;

LlamaConfig config_of(const std::string& bytes) {
  std::array<int32_t, 7> header{};
  std::memcpy(header.data(), bytes.data(), kHeaderBytes);
  LlamaConfig config;
  config.hidden = header[0];
  config.intermediate = header[1];
  config.layers = header[2];
  config.heads = header[3];
  config.kv_heads = header[4];
  config.vocab = header[5];
  config.max_positions = header[6];
  config.head_dim = config.hidden / config.heads;
  config.tied_head = true;
  return config;
}

}  // namespace

StoriesWeights::StoriesWeights(const std::filesystem::path& path) : path_(path) {
  const std::string bytes = read_text(path);
  config_ = config_of(bytes);
  values_.resize((bytes.size() - kHeaderBytes) / sizeof(float));
  std::memcpy(values_.data(), bytes.data() + kHeaderBytes, values_.size() * sizeof(float));
  int64_t first = 0;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, int64_t half_split = 0) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    entries_[name] = {std::move(shape), first, half_split};
    first += count;
  };
  const auto add_layers = [&](const std::string& name, const std::vector<int64_t>& shape, int64_t half_split = 0) {
    for (int64_t layer = 0; layer < config_.layers; ++layer)
      add(fmt::format("model.layers.{}.{}.weight", layer, name), shape, half_split);
  };
  const int64_t hidden = config_.hidden, inner = config_.intermediate, kv_rows = config_.kv_heads * config_.head_dim;
  add("model.embed_tokens.weight", {config_.vocab, hidden});
  add_layers("input_layernorm", {hidden});
  add_layers("self_attn.q_proj", {hidden, hidden}, config_.heads);
  add_layers("self_attn.k_proj", {kv_rows, hidden}, config_.kv_heads);
  add_layers("self_attn.v_proj", {kv_rows, hidden});
  add_layers("self_attn.o_proj", {hidden, hidden});
  add_layers("post_attention_layernorm", {hidden});
  add_layers("mlp.gate_proj", {inner, hidden});
  add_layers("mlp.down_proj", {hidden, inner});
  add_layers("mlp.up_proj", {inner, hidden});
  add("model.norm.weight", {hidden});
}

std::vector<std::string> StoriesWeights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

std::vector<int64_t> StoriesWeights::shape(const std::string& name) const {
  const auto at = entries_.find(name);
  if (at == entries_.end()) throw DataError(place(name) + ": no such tensor");
  return at->second.shape;
}

void StoriesWeights::read(const std::string& name, float* out) const {
  const Entry& entry = entries_.at(name);
  const float* from = values_.data() + entry.first;
  if (entry.half_split == 0) {
    int64_t count = 1;
    for (const int64_t size : entry.shape) count *= size;
    std::copy(from, from + count, out);
    return;
  }
  const int64_t half = config_.head_dim / 2, width = entry.shape[1];
  for (int64_t head = 0; head < entry.half_split; ++head)
    for (int64_t side = 0; side < 2; ++side)
      for (int64_t i = 0; i < half; ++i, out += width) {
        const float* row = from + (head * config_.head_dim + 2 * i + side) * width;
        std::copy(row, row + width, out);
      }
}

std::string StoriesWeights::sha256() const {
  return sha256_file(path_);
}

}  // namespace kvsweep::testing
