#include <fmt/format.h>

#include <optional>

#include "harness/core/error.h"
#include "models/gguf.h"
#include "models/llama_config.h"
#include "models/llama_config_rules.h"

namespace kvsweep {
namespace {

[[noreturn]] void fail(const GgufFile& file, const std::string& message) {
  throw DataError(fmt::format("{}: {}", file.path().string(), message));
}

int64_t integer(const GgufFile& file, const char* key, std::optional<int64_t> fallback, Range<int64_t> range) {
  const int64_t value = file.integer(key, fallback);
  if (!range.contains(value)) fail(file, fmt::format("{} = {} is outside {}", key, value, range.text()));
  return value;
}

double number(const GgufFile& file, const char* key, std::optional<double> fallback, Range<double> range) {
  const double value = file.number(key, fallback);
  if (!range.contains(value)) fail(file, fmt::format("{} = {} is outside {}", key, value, range.text()));
  return value;
}

void refuse_unsupported(const GgufFile& file) {
  if (const std::string name = file.text("general.architecture"); name != "llama")
    fail(file, fmt::format("general.architecture = {}: unknown architecture; known: llama", name));
  if (const int64_t experts = file.integer("llama.expert_count", 0); experts > 0)
    fail(file, fmt::format("llama.expert_count = {}: mixtures of experts are not supported", experts));
  if (const int64_t parts = file.integer("split.count", 1); parts > 1)
    fail(file, fmt::format("split.count = {}: the model lies in several files; join them first", parts));
}

// Keys and their meaning: gguf.md of the ggml project; a factor without a type is linear, as in llama.cpp.
RopeConfig read_rope(const GgufFile& file, int64_t head_dim) {
  RopeConfig rope;
  rope.theta = number(file, "llama.rope.freq_base", rope.theta, kThetaRange);
  if (const int64_t turned = file.integer("llama.rope.dimension_count", head_dim); turned != head_dim)
    fail(file, fmt::format("llama.rope.dimension_count = {}: only a rotation of the whole head ({}) is supported",
                           turned, head_dim));
  const double old_factor = number(file, "llama.rope.scale_linear", 1, kFactorRange);
  rope.factor = number(file, "llama.rope.scaling.factor", old_factor, kFactorRange);
  const std::string type = file.text("llama.rope.scaling.type", "linear");
  if (type != "none" && type != "linear" && type != "yarn")
    fail(file, fmt::format("llama.rope.scaling.type = {}: unknown; known: none, linear, yarn", type));
  rope.type = type == "yarn" ? "yarn" : type == "none" || rope.factor == 1 ? "default" : "linear";
  if (rope.type == "yarn") {
    rope.original_max_positions = integer(file, "llama.rope.scaling.original_context_length", {}, kPositionsRange);
    rope.beta_fast = number(file, "llama.rope.scaling.yarn_beta_fast", rope.beta_fast, kBetaRange);
    rope.beta_slow = number(file, "llama.rope.scaling.yarn_beta_slow", rope.beta_slow, kBetaRange);
    for (const char* key : {"attn_factor", "yarn_attn_factor", "yarn_ext_factor"})
      if (const double value = file.number(fmt::format("llama.rope.scaling.{}", key), 1); value != 1)
        fail(file, fmt::format("llama.rope.scaling.{} = {} is not supported; known: 1", key, value));
  }
  if (const GgufTensor* factors = file.find("rope_freqs.weight")) {
    std::vector<float> values(static_cast<size_t>(head_dim / 2));
    if (factors->shape != std::vector<int64_t>{head_dim / 2})
      fail(file, fmt::format("tensor 'rope_freqs.weight' has shape [{}]; needed is [{}]",
                             fmt::join(factors->shape, ", "), head_dim / 2));
    file.read(*factors, values.data());
    for (float value : values)
      if (!(value > 0 && value < 1e9f)) fail(file, fmt::format("tensor 'rope_freqs.weight' holds {}", value));
    rope.freq_factors.assign(values.begin(), values.end());
  }
  return rope;
}

}  // namespace

LlamaConfig read_gguf_config(const GgufFile& file) {
  refuse_unsupported(file);
  LlamaConfig config;
  config.layers = integer(file, "llama.block_count", {}, kLayersRange);
  config.hidden = integer(file, "llama.embedding_length", {}, kWidthRange);
  config.heads = integer(file, "llama.attention.head_count", {}, kHeadsRange);
  config.kv_heads = integer(file, "llama.attention.head_count_kv", config.heads, kHeadsRange);
  if (!file.has("llama.attention.key_length") && config.hidden % config.heads != 0)
    fail(file,
         fmt::format("llama.embedding_length = {} is not a multiple of llama.attention.head_count = {}, and there "
                     "is no llama.attention.key_length",
                     config.hidden, config.heads));
  config.head_dim = integer(file, "llama.attention.key_length", config.hidden / config.heads, kHeadDimRange);
  if (const int64_t value_dim = file.integer("llama.attention.value_length", config.head_dim);
      value_dim != config.head_dim)
    fail(file, fmt::format("llama.attention.value_length = {} differs from a key length of {}: not supported",
                           value_dim, config.head_dim));
  config.intermediate = integer(file, "llama.feed_forward_length", {}, kWidthRange);
  config.max_positions = integer(file, "llama.context_length", {}, kPositionsRange);
  config.rms_eps = number(file, "llama.attention.layer_norm_rms_epsilon", {}, kEpsRange);
  config.vocab = file.tensor("token_embd.weight").shape.front();
  config.tied_head = file.find("output.weight") == nullptr;
  config.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  config.mlp_bias = file.find("blk.0.ffn_gate.bias") != nullptr;
  check_head_shape(config, file.path().string());
  config.rope = read_rope(file, config.head_dim);
  return config;
}

}  // namespace kvsweep
