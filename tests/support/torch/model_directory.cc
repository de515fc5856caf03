#include "tests/support/torch/model_directory.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/support/golden.h"
#include "tests/support/torch/tiny_model.h"

namespace kvsweep::testing {
namespace {

std::string utf8(int code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

// GPT-2's byte alphabet: printable bytes stand for themselves, the others for code points from 256.
nlohmann::json byte_vocabulary() {
  nlohmann::json vocabulary = nlohmann::json::object();
  int others = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocabulary[utf8(printable ? byte : 256 + others++)] = byte;
  }
  return vocabulary;
}

void write_tokenizer(const std::filesystem::path& directory) {
  const nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", {{{"id", 256}, {"content", "<|end|>"}, {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", byte_vocabulary()}, {"merges", nlohmann::json::array()}}}};
  write_text(directory / "tokenizer.json", tokenizer.dump());
  write_text(directory / "tokenizer_config.json", R"({"eos_token": "<|end|>"})");
}

void write_weights(const std::filesystem::path& path, const TinyWeights& weights) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const std::string& name : weights.names()) {
    const std::vector<int64_t> shape = weights.shape(name);
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    std::vector<float> values(static_cast<size_t>(count));
    weights.read(name, values.data());
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  write_text(path, file + text + data);
}

}  // namespace

LlamaConfig byte_model_config() {
  LlamaConfig config = tiny_config();
  config.vocab = 257;
  config.max_positions = 2048;
  return config;
}

void write_model_directory(const std::filesystem::path& directory, uint64_t seed, const std::string& broken) {
  const LlamaConfig config = byte_model_config();
  std::filesystem::create_directories(directory);
  const nlohmann::json json = {{"architectures", {"LlamaForCausalLM"}},
                               {"model_type", "llama"},
                               {"hidden_act", "silu"},
                               {"num_hidden_layers", config.layers},
                               {"hidden_size", config.hidden},
                               {"num_attention_heads", config.heads},
                               {"num_key_value_heads", config.kv_heads},
                               {"head_dim", config.head_dim},
                               {"intermediate_size", config.intermediate},
                               {"vocab_size", config.vocab},
                               {"max_position_embeddings", config.max_positions},
                               {"rms_norm_eps", config.rms_eps},
                               {"rope_theta", config.rope.theta},
                               {"tie_word_embeddings", config.tied_head}};
  write_text(directory / "config.json", json.dump());
  TinyWeights weights(config, seed);
  if (!broken.empty()) weights.entry(broken).values.front() = std::numeric_limits<float>::quiet_NaN();
  write_weights(directory / "model.safetensors", weights);
  write_tokenizer(directory);
}

}  // namespace kvsweep::testing
