#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kvsweep {

// RoPE settings as config.json or GGUF metadata state them. Parameters as in transformers' modeling_rope_utils.py.
struct RopeConfig {
  std::string type = "default";  // default, linear, llama3, yarn
  double theta = 10000;
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  int64_t original_max_positions = 0;                // llama3, yarn; 0: the model's max positions
  double beta_fast = 32, beta_slow = 1;              // yarn
  double attention_factor = 0;                       // yarn; 0: from factor, mscale and mscale_all_dim
  double mscale = 0, mscale_all_dim = 0;             // yarn
  bool truncate = true;                              // yarn
  std::vector<double> freq_factors;                  // GGUF's rope_freqs.weight: inv_freq is divided by them; or empty
};

// Inverse frequencies [head_dim / 2] and the factor that cos and sin are multiplied by.
struct RopeTable {
  std::vector<float> inv_freq;
  float attention_scaling = 1;
};
// In float32 and in the order of transformers' modeling_rope_utils.py. Throws DataError for a type that is not known.
RopeTable rope_table(const RopeConfig& rope, int64_t head_dim, int64_t max_positions);

class GgufFile;

// What a Llama-like decoder needs to know. read_hf_config and read_gguf_config promise: sizes are positive and in sane
// ranges, kv_heads divides heads, head_dim is even.
struct LlamaConfig {
  std::string architecture = "llama";  // llama, mistral
  int64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0, vocab = 0;
  int64_t max_positions = 0;
  double rms_eps = 1e-5;
  bool tied_head = false, attention_bias = false, mlp_bias = false;
  RopeConfig rope;
};

// Reads a Hugging Face config.json, old style (rope_theta, rope_scaling) or new (rope_parameters). Missing keys have
// the defaults of transformers' LlamaConfig. Throws DataError that names the file, the key, what came and what is
// allowed.
LlamaConfig read_hf_config(const std::filesystem::path& path);

// The same from GGUF metadata ("llama.*") and tensors: vocab is the rows of token_embd.weight, tied_head means that
// there is no output.weight, biases are there when the first layer has them.
LlamaConfig read_gguf_config(const GgufFile& file);

}  // namespace kvsweep
