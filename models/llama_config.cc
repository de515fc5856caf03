#include "models/llama_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "harness/core/error.h"
#include "models/llama_config_rules.h"

namespace kvsweep {
namespace {

using nlohmann::json;

const std::vector<std::string> kModelTypes = {"llama", "mistral"};
const std::vector<std::string> kClasses = {"LlamaForCausalLM", "MistralForCausalLM"};

// Typed access to one JSON object. null is a missing key, as in transformers.
class Reader {
 public:
  Reader(json object, std::string place) : object_(std::move(object)), place_(std::move(place)) {}

  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    throw DataError(fmt::format("{}{} {}", place_, key, what));
  }

  bool states(const char* key) const { return object_.contains(key); }  // also as null
  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }

  int64_t integer(const char* key, std::optional<int64_t> fallback, Range<int64_t> range) const {
    const json* value = find(key, !fallback);
    if (value == nullptr) return *fallback;
    const bool fits =
        value->is_number_integer() && !(value->is_number_unsigned() && !std::in_range<int64_t>(value->get<uint64_t>()));
    if (!fits || !range.contains(value->get<int64_t>())) refuse(key, *value, "an integer in " + range.text());
    return value->get<int64_t>();
  }

  double number(const char* key, std::optional<double> fallback, Range<double> range) const {
    const json* value = find(key, !fallback);
    if (value == nullptr) return *fallback;
    if (!value->is_number() || !range.contains(value->get<double>()))
      refuse(key, *value, "a number in " + range.text());
    return value->get<double>();
  }

  bool flag(const char* key, bool fallback) const {
    const json* value = find(key, false);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) refuse(key, *value, "true or false");
    return value->get<bool>();
  }

  std::string text(const char* key, std::optional<std::string> fallback) const {
    const json* value = find(key, !fallback);
    if (value == nullptr) return *fallback;
    if (!value->is_string()) refuse(key, *value, "a text");
    return value->get<std::string>();
  }

  // The first text of an array, "" when the key is missing.
  std::string first_text(const char* key) const {
    const json* value = find(key, false);
    if (value == nullptr) return "";
    if (!value->is_array() || value->empty() || !value->front().is_string()) refuse(key, *value, "an array of texts");
    return value->front().get<std::string>();
  }

  // A nested object, empty when the key is missing.
  Reader object(const char* key) const {
    const json* value = find(key, false);
    if (value == nullptr) return {json::object(), place_ + key + "."};
    if (!value->is_object()) refuse(key, *value, "an object");
    return {*value, place_ + key + "."};
  }

  bool empty() const { return object_.empty(); }

 private:
  const json* find(const char* key, bool required) const {
    if (has(key)) return &object_[key];
    if (required) fail(key, "is missing");
    return nullptr;
  }

  [[noreturn]] void refuse(const char* key, const json& value, const std::string& allowed) const {
    std::string shown = value.dump();
    if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
    fail(key, fmt::format("= {} is not {}", shown, allowed));
  }

  json object_;
  std::string place_;  // "config.json: ", "config.json: rope_scaling."
};

std::string known_architecture(const Reader& reader) {
  const std::string class_name = reader.first_text("architectures");
  if (!class_name.empty() && std::find(kClasses.begin(), kClasses.end(), class_name) == kClasses.end())
    reader.fail("architectures", fmt::format("= {}: unknown architecture; known: {}", class_name, join(kClasses)));
  const std::string fallback = class_name == kClasses[1] ? kModelTypes[1] : kModelTypes[0];
  const std::string type = class_name.empty() ? reader.text("model_type", {}) : reader.text("model_type", fallback);
  if (std::find(kModelTypes.begin(), kModelTypes.end(), type) == kModelTypes.end())
    reader.fail("model_type", fmt::format("= {}: unknown architecture; known: {}", type, join(kModelTypes)));
  return type;
}

RopeConfig read_rope(const Reader& top) {
  // As transformers: a rope_scaling that is there wins over rope_parameters.
  const Reader old_style = top.object("rope_scaling");
  const Reader reader = old_style.empty() ? top.object("rope_parameters") : old_style;
  RopeConfig rope;
  rope.type = reader.text("rope_type", reader.text("type", rope.type));
  if (std::find(kRopeTypes.begin(), kRopeTypes.end(), rope.type) == kRopeTypes.end())
    reader.fail("rope_type", fmt::format("= {}: unknown; known: {}", rope.type, join(kRopeTypes)));
  rope.theta = reader.number("rope_theta", top.number("rope_theta", rope.theta, kThetaRange), kThetaRange);
  for (const Reader& place : {top, reader})
    if (place.number("partial_rotary_factor", 1, {0, 1}) != 1)
      place.fail("partial_rotary_factor", "is below 1: only a rotation of the whole head is supported");
  if (rope.type == "default") return rope;
  rope.factor = reader.number("factor", {}, kFactorRange);
  if (rope.type == "linear") return rope;
  rope.original_max_positions =
      top.integer("original_max_position_embeddings",
                  reader.integer("original_max_position_embeddings", 0, kPositionsRange), kPositionsRange);
  if (rope.type == "llama3") {
    rope.low_freq_factor = reader.number("low_freq_factor", {}, kFactorRange);
    rope.high_freq_factor = reader.number("high_freq_factor", {}, kFactorRange);
    if (rope.high_freq_factor <= rope.low_freq_factor)
      reader.fail("high_freq_factor",
                  fmt::format("= {} is not above low_freq_factor = {}", rope.high_freq_factor, rope.low_freq_factor));
    return rope;
  }
  rope.beta_fast = reader.number("beta_fast", rope.beta_fast, kBetaRange);
  rope.beta_slow = reader.number("beta_slow", rope.beta_slow, kBetaRange);
  rope.attention_factor = reader.number("attention_factor", 0, kAttentionFactorRange);
  rope.mscale = reader.number("mscale", 0, kAttentionFactorRange);
  rope.mscale_all_dim = reader.number("mscale_all_dim", 0, kAttentionFactorRange);
  rope.truncate = reader.flag("truncate", true);
  return rope;
}

// What transformers' Llama does otherwise, or its Mistral otherwise than its Llama.
void refuse_unsupported(const Reader& reader, const LlamaConfig& config) {
  if (const std::string act = reader.text("hidden_act", "silu"); act != "silu")
    reader.fail("hidden_act", fmt::format("= {} is not supported; known: silu", act));
  if (reader.has("quantization_config"))
    reader.fail("quantization_config", "is there: only unquantized safetensors weights are supported (or a GGUF file)");
  if (config.architecture != "mistral") return;
  for (const char* key : {"num_key_value_heads", "max_position_embeddings", "sliding_window"})
    if (!reader.states(key)) reader.fail(key, "is missing");
  if (reader.has("sliding_window")) {
    const int64_t window = reader.integer("sliding_window", {}, kPositionsRange);
    if (window < config.max_positions)
      reader.fail("sliding_window", fmt::format("= {} is below max_position_embeddings = {}: not supported", window,
                                                config.max_positions));
  }
}

}  // namespace

LlamaConfig read_hf_config(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw DataError(fmt::format("{}: cannot be read", path.string()));
  const json object = json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) throw DataError(fmt::format("{}: is not a JSON object", path.string()));
  const Reader reader(object, path.string() + ": ");
  LlamaConfig config;
  config.architecture = known_architecture(reader);
  config.layers = reader.integer("num_hidden_layers", {}, kLayersRange);
  config.hidden = reader.integer("hidden_size", {}, kWidthRange);
  config.heads = reader.integer("num_attention_heads", {}, kHeadsRange);
  config.kv_heads = reader.integer("num_key_value_heads", config.heads, kHeadsRange);
  if (!reader.has("head_dim") && config.hidden % config.heads != 0)
    reader.fail("hidden_size",
                fmt::format("= {} is not a multiple of num_attention_heads = {}, and there is no head_dim",
                            config.hidden, config.heads));
  config.head_dim = reader.integer("head_dim", config.hidden / config.heads, kHeadDimRange);
  config.intermediate = reader.integer("intermediate_size", {}, kWidthRange);
  config.vocab = reader.integer("vocab_size", {}, kVocabRange);
  config.max_positions = reader.integer("max_position_embeddings", 2048, kPositionsRange);
  config.rms_eps = reader.number("rms_norm_eps", 1e-6, kEpsRange);
  config.tied_head = reader.flag("tie_word_embeddings", false);
  config.attention_bias = reader.flag("attention_bias", false);
  config.mlp_bias = reader.flag("mlp_bias", false);
  config.rope = read_rope(reader);
  refuse_unsupported(reader, config);
  check_head_shape(config, path.string());
  return config;
}

}  // namespace kvsweep
