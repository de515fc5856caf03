// contract: both config readers give the same LlamaConfig and name the key of what they refuse.
#include "models/llama_config.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "models/gguf.h"
#include "models/weight_source.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
using testing::GgufBuilder;
using testing::tiny_llama_gguf;

namespace {

json smallest() {
  return {{"model_type", "llama"},    {"hidden_size", 32},       {"num_hidden_layers", 2},
          {"num_attention_heads", 2}, {"intermediate_size", 64}, {"vocab_size", 128}};
}

LlamaConfig read(const std::string& text) {
  const testing::TemporaryDirectory directory;
  testing::write_text(directory.path() / "config.json", text);
  return read_config(directory.path());
}

LlamaConfig read_with(const json& changes) {
  json config = smallest();
  config.merge_patch(changes);
  return read(config.dump());
}

void check_refused(const json& changes, const std::string& message) {
  INFO(changes.dump());
  CHECK_THROWS_MATCHES(read_with(changes), DataError,
                       MessageMatches(ContainsSubstring("config.json: ") && ContainsSubstring(message)));
}

LlamaConfig read_gguf(const GgufBuilder& builder) {
  const testing::TemporaryDirectory directory;
  testing::write_text(directory.path() / "x.gguf", builder.bytes());
  return read_config(directory.path() / "x.gguf");
}

void check_gguf_refused(const GgufBuilder& builder, const std::string& message) {
  CHECK_THROWS_MATCHES(read_gguf(builder), DataError,
                       MessageMatches(ContainsSubstring("x.gguf: ") && ContainsSubstring(message)));
}

}  // namespace

TEST_CASE("missing keys have the defaults of transformers") {
  const LlamaConfig config = read(smallest().dump());
  CHECK(config.architecture == "llama");
  CHECK(config.layers == 2);
  CHECK(config.hidden == 32);
  CHECK(config.heads == 2);
  CHECK(config.kv_heads == 2);
  CHECK(config.head_dim == 32 / 2);
  CHECK(config.intermediate == 64);
  CHECK(config.vocab == 128);
  CHECK(config.max_positions == 2048);
  CHECK(config.rms_eps == 1e-6);
  CHECK_FALSE(config.tied_head);
  CHECK_FALSE(config.attention_bias);
  CHECK_FALSE(config.mlp_bias);
  CHECK(config.rope.type == "default");
  CHECK(config.rope.theta == 10000);
  json nulls = smallest();
  for (const char* key : {"num_key_value_heads", "head_dim", "rope_scaling", "rope_parameters", "rope_theta"})
    nulls[key] = nullptr;
  CHECK(read(nulls.dump()).head_dim == 16);
  json class_only = smallest();
  class_only.erase("model_type");
  class_only["architectures"] = {"LlamaForCausalLM"};
  CHECK(read(class_only.dump()).architecture == "llama");
}

TEST_CASE("keys that are there are read") {
  const LlamaConfig config = read_with({{"num_key_value_heads", 1},
                                        {"head_dim", 24},
                                        {"max_position_embeddings", 512},
                                        {"rms_norm_eps", 1e-5},
                                        {"tie_word_embeddings", true},
                                        {"attention_bias", true},
                                        {"mlp_bias", true},
                                        {"rope_theta", 5e5}});
  CHECK(config.kv_heads == 1);
  CHECK(config.head_dim == 24);
  CHECK(config.max_positions == 512);
  CHECK(config.rms_eps == 1e-5);
  CHECK(config.tied_head);
  CHECK(config.attention_bias);
  CHECK(config.mlp_bias);
  CHECK(config.rope.theta == 500000);
}

TEST_CASE("rope settings of old and new configs are the same") {
  const LlamaConfig old_style = read_with({{"rope_theta", 2e4}, {"rope_scaling", {{"type", "linear"}, {"factor", 4}}}});
  const LlamaConfig new_style =
      read_with({{"rope_parameters", {{"rope_type", "linear"}, {"rope_theta", 2e4}, {"factor", 4.0}}}});
  for (const LlamaConfig& config : {old_style, new_style}) {
    CHECK(config.rope.type == "linear");
    CHECK(config.rope.theta == 20000);
    CHECK(config.rope.factor == 4);
  }
  const json llama3 = {{"rope_type", "llama3"}, {"type", "linear"},      {"factor", 8},
                       {"low_freq_factor", 1},  {"high_freq_factor", 4}, {"original_max_position_embeddings", 64}};
  CHECK(read_with({{"rope_scaling", llama3}}).rope.type == "llama3");  // rope_type wins over type
  CHECK(read_with({{"rope_scaling", llama3}}).rope.original_max_positions == 64);
  CHECK(read_with({{"rope_scaling", llama3}, {"original_max_position_embeddings", 32}}).rope.original_max_positions ==
        32);
  const RopeConfig yarn = read_with({{"rope_scaling",
                                      {{"type", "yarn"},
                                       {"factor", 2},
                                       {"beta_fast", 16},
                                       {"mscale", 0.7},
                                       {"mscale_all_dim", 0.8},
                                       {"truncate", false},
                                       {"attention_factor", nullptr}}}})
                              .rope;
  CHECK(yarn.beta_fast == 16);
  CHECK(yarn.beta_slow == 1);
  CHECK(yarn.mscale == 0.7);
  CHECK(yarn.mscale_all_dim == 0.8);
  CHECK_FALSE(yarn.truncate);
  CHECK(yarn.attention_factor == 0);
  CHECK(yarn.original_max_positions == 0);
}

TEST_CASE("a config that is not a Llama is refused and says what is known") {
  check_refused({{"model_type", "qwen2"}}, "model_type = qwen2: unknown architecture; known: llama, mistral");
  check_refused({{"architectures", {"LlamaForSequenceClassification"}}},
                "architectures = LlamaForSequenceClassification: unknown architecture; known: LlamaForCausalLM");
  check_refused({{"model_type", nullptr}}, "model_type is missing");
  check_refused({{"hidden_act", "gelu"}}, "hidden_act = gelu is not supported; known: silu");
  check_refused({{"quantization_config", {{"quant_method", "gptq"}}}}, "quantization_config");
}

TEST_CASE("a wrong value in a config is refused with its key") {
  check_refused({{"hidden_size", nullptr}}, "hidden_size is missing");
  check_refused({{"hidden_size", "32"}}, "hidden_size = \"32\" is not an integer in [1, ");
  check_refused({{"hidden_size", 32.5}}, "hidden_size = 32.5 is not an integer");
  check_refused({{"num_hidden_layers", 0}}, "num_hidden_layers = 0 is not an integer in [1, 10000]");
  check_refused({{"vocab_size", -1}}, "vocab_size = -1");
  check_refused({{"vocab_size", ~uint64_t{0}}}, "vocab_size = 18446744073709551615");
  check_refused({{"num_key_value_heads", 4}}, "2 attention heads are not a multiple of 4 key-value heads");
  check_refused({{"num_attention_heads", 3}}, "hidden_size = 32 is not a multiple of num_attention_heads = 3");
  check_refused({{"head_dim", 15}}, "head_dim of 15 is odd");
  check_refused({{"rms_norm_eps", "small"}}, "rms_norm_eps = \"small\" is not a number");
  check_refused({{"tie_word_embeddings", 1}}, "tie_word_embeddings = 1 is not true or false");
  check_refused({{"rope_theta", 0}}, "rope_theta = 0 is not a number in");
  check_refused({{"rope_scaling", "linear"}}, "rope_scaling = \"linear\" is not an object");
  check_refused({{"rope_scaling", {{"type", "dynamic"}, {"factor", 2}}}},
                "rope_scaling.rope_type = dynamic: unknown; known: default, linear, llama3, yarn");
  check_refused({{"rope_scaling", {{"type", "linear"}}}}, "rope_scaling.factor is missing");
  check_refused({{"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}}}, "rope_scaling.factor = 0.5");
  check_refused(
      {{"rope_parameters", {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}}},
      "rope_parameters.high_freq_factor = 4 is not above low_freq_factor = 4");
  check_refused({{"partial_rotary_factor", 0.5}}, "partial_rotary_factor is below 1");
}

TEST_CASE("a Mistral is a Llama where its window never matters") {
  const json mistral = {{"model_type", "mistral"},
                        {"architectures", {"MistralForCausalLM"}},
                        {"num_key_value_heads", 1},
                        {"max_position_embeddings", 512}};
  json config = smallest();
  config.update(mistral);
  CHECK_THROWS_MATCHES(read(config.dump()), DataError, MessageMatches(ContainsSubstring("sliding_window is missing")));
  config["sliding_window"] = nullptr;
  CHECK(read(config.dump()).architecture == "mistral");
  config["sliding_window"] = 512;
  CHECK(read(config.dump()).architecture == "mistral");
  config["sliding_window"] = 511;
  CHECK_THROWS_MATCHES(
      read(config.dump()), DataError,
      MessageMatches(ContainsSubstring("sliding_window = 511 is below max_position_embeddings = 512")));
}

TEST_CASE("a config that is no JSON object is refused") {
  for (const char* text : {"", "[]", "{\"model_type\": \"llama\"", "{} {}", "\xff\xfe"}) {
    INFO(text);
    CHECK_THROWS_MATCHES(read(text), DataError, MessageMatches(ContainsSubstring("config.json: is not a JSON object")));
  }
  const testing::TemporaryDirectory directory;
  CHECK_THROWS_MATCHES(read_config(directory.path()), DataError,
                       MessageMatches(ContainsSubstring("config.json: cannot be read")));
}

TEST_CASE("a damaged config is read or refused, never a crash") {
  for (const auto& path : testing::golden_files("models/tiny_hf/[^/]*/config[.]json")) {
    const std::string whole = testing::read_text(path);
    Rng rng(derive_seed(1, "config/flip"));
    for (int i = 0; i < 50; ++i) {
      std::string damaged = whole;
      const auto at = static_cast<size_t>(rng.below(whole.size()));
      damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(rng.between(1, 255)));
      INFO(path << " byte " << at);
      try {
        read(damaged);
      } catch (const DataError& error) {
        CHECK(std::string(error.what()).find("config.json: ") != std::string::npos);
      }
    }
  }
}

TEST_CASE("GGUF metadata give the same config") {
  const LlamaConfig config = read_gguf(tiny_llama_gguf());
  CHECK(config.layers == 1);
  CHECK(config.hidden == 8);
  CHECK(config.heads == 2);
  CHECK(config.kv_heads == 1);
  CHECK(config.head_dim == 4);
  CHECK(config.intermediate == 16);
  CHECK(config.vocab == 3);
  CHECK(config.max_positions == 64);
  CHECK(static_cast<float>(config.rms_eps) == 1e-5f);
  CHECK(config.tied_head);
  CHECK_FALSE(config.attention_bias);
  CHECK_FALSE(config.mlp_bias);
  CHECK(config.rope.type == "default");
  CHECK(config.rope.theta == 10000);
  const LlamaConfig more = read_gguf(tiny_llama_gguf()
                                         .integer("llama.attention.key_length", 6)
                                         .integer("llama.attention.value_length", 6)
                                         .integer("llama.rope.dimension_count", 6)
                                         .number("llama.rope.freq_base", 5e5f)
                                         .tensor_f32("output.weight", {3, 8}, std::vector<float>(24))
                                         .tensor_f32("blk.0.attn_q.bias", {12}, std::vector<float>(12))
                                         .tensor_f32("blk.0.ffn_gate.bias", {16}, std::vector<float>(16)));
  CHECK(more.head_dim == 6);
  CHECK(more.rope.theta == 500000);
  CHECK_FALSE(more.tied_head);
  CHECK(more.attention_bias);
  CHECK(more.mlp_bias);
}

TEST_CASE("rope scaling of a GGUF file is read as llama.cpp reads it") {
  CHECK(read_gguf(tiny_llama_gguf().number("llama.rope.scaling.factor", 4)).rope.type == "linear");
  CHECK(read_gguf(tiny_llama_gguf().number("llama.rope.scale_linear", 4)).rope.factor == 4);
  CHECK(read_gguf(tiny_llama_gguf().text("llama.rope.scaling.type", "none").number("llama.rope.scaling.factor", 4))
            .rope.type == "default");
  const RopeConfig yarn = read_gguf(tiny_llama_gguf()
                                        .text("llama.rope.scaling.type", "yarn")
                                        .number("llama.rope.scaling.factor", 16)
                                        .integer("llama.rope.scaling.original_context_length", 32))
                              .rope;
  CHECK(yarn.type == "yarn");
  CHECK(yarn.factor == 16);
  CHECK(yarn.original_max_positions == 32);
  CHECK(read_gguf(tiny_llama_gguf().tensor_f32("rope_freqs.weight", {2}, {1, 8})).rope.freq_factors ==
        std::vector<double>{1, 8});
}

TEST_CASE("a GGUF file that is not a Llama is refused with its key") {
  check_gguf_refused(GgufBuilder().text("general.architecture", "gemma"),
                     "general.architecture = gemma: unknown architecture; known: llama");
  check_gguf_refused(GgufBuilder(), "no metadata key 'general.architecture'");
  check_gguf_refused(GgufBuilder().text("general.architecture", "llama"), "no metadata key 'llama.block_count'");
  check_gguf_refused(tiny_llama_gguf().integer("llama.expert_count", 8), "llama.expert_count = 8");
  check_gguf_refused(tiny_llama_gguf().integer("split.count", 2), "split.count = 2");
  check_gguf_refused(tiny_llama_gguf().integer("llama.rope.dimension_count", 2), "llama.rope.dimension_count = 2");
  check_gguf_refused(tiny_llama_gguf().integer("llama.attention.value_length", 2), "value_length = 2 differs");
  check_gguf_refused(tiny_llama_gguf().integer("llama.attention.key_length", 5), "head_dim of 5 is odd");
  check_gguf_refused(tiny_llama_gguf().number("llama.rope.freq_base", 0), "llama.rope.freq_base = 0 is outside");
  check_gguf_refused(tiny_llama_gguf().text("llama.rope.scaling.type", "longrope"),
                     "llama.rope.scaling.type = longrope: unknown; known: none, linear, yarn");
  check_gguf_refused(tiny_llama_gguf()
                         .text("llama.rope.scaling.type", "yarn")
                         .number("llama.rope.scaling.factor", 16)
                         .number("llama.rope.scaling.attn_factor", 0.5f)
                         .integer("llama.rope.scaling.original_context_length", 32),
                     "llama.rope.scaling.attn_factor = 0.5");
  check_gguf_refused(tiny_llama_gguf().tensor_f32("rope_freqs.weight", {3}, {1, 1, 8}),
                     "'rope_freqs.weight' has shape");
  check_gguf_refused(tiny_llama_gguf().tensor_f32("rope_freqs.weight", {2}, {1, 0}), "'rope_freqs.weight' holds 0");
}

TEST_CASE("SmolLM2's config and vocabulary are what its model card says") {
  const auto path = testing::smollm2_or_skip();
  const LlamaConfig config = read_config(path);
  CHECK(config.layers == 30);
  CHECK(config.hidden == 576);
  CHECK(config.heads == 9);
  CHECK(config.kv_heads == 3);
  CHECK(config.head_dim == 64);
  CHECK(config.intermediate == 1536);
  CHECK(config.vocab == 49152);
  CHECK(config.max_positions == 8192);
  CHECK(config.rope.theta == 100000);
  CHECK(config.tied_head);
  const GgufFile file(path);
  CHECK(file.text("tokenizer.ggml.model") == "gpt2");
  CHECK(file.texts("tokenizer.ggml.tokens").size() == 49152);
  CHECK(file.integers("tokenizer.ggml.token_type").size() == 49152);
  CHECK(file.texts("tokenizer.ggml.merges").size() > 48000);
  CHECK_FALSE(file.flag("tokenizer.ggml.add_bos_token", true));
  CHECK(file.text("tokenizer.chat_template").find("<|im_start|>") != std::string::npos);
}

}  // namespace kvsweep
