#include "models/weight_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/files/safetensors.h"
#include "models/gguf.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

// A model.safetensors, or the shards that model.safetensors.index.json names.
class HfWeights : public WeightSource {
 public:
  explicit HfWeights(const fs::path& directory) : directory_(directory) {
    const fs::path single = directory / "model.safetensors";
    const fs::path index = directory / "model.safetensors.index.json";
    if (fs::exists(single)) {
      add_shard(single);
    } else if (fs::exists(index)) {
      add_index(index);
    } else {
      throw DataError(
          fmt::format("{}: holds neither model.safetensors nor model.safetensors.index.json (other weight "
                      "formats of a directory are not supported)",
                      directory.string()));
    }
  }

  bool has(const std::string& name) const override { return shard_of_.contains(name); }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, shard] : shard_of_) names.push_back(name);
    return names;
  }

  std::vector<int64_t> shape(const std::string& name) const override { return shard(name).tensor(name).shape; }
  void read(const std::string& name, float* out) const override { shard(name).read(name, out); }

  std::string place(const std::string& name) const override {
    const auto at = shard_of_.find(name);
    const fs::path& file = at == shard_of_.end() ? directory_ : shards_[at->second].path();
    return fmt::format("{}: {}", file.string(), name);
  }

  std::string sha256() const override {
    std::map<std::string, std::string> hashes;
    for (const SafetensorsFile& file : shards_) hashes[file.path().filename().string()] = sha256_file(file.path());
    std::string lines;
    for (const auto& [name, hash] : hashes) lines += fmt::format("{} {}\n", name, hash);
    return sha256_hex(lines);
  }

 private:
  void add_shard(const fs::path& path) {
    shards_.emplace_back(path);
    for (const auto& [name, tensor] : shards_.back().tensors())
      if (const auto [at, fresh] = shard_of_.emplace(name, shards_.size() - 1); !fresh)
        throw DataError(
            fmt::format("{}: tensor '{}' is also in {}", path.string(), name, shards_[at->second].path().string()));
  }

  void add_index(const fs::path& index) {
    std::ifstream in(index, std::ios::binary);
    const nlohmann::json json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
      throw DataError(fmt::format("{}: is not a JSON object with an object 'weight_map'", index.string()));
    std::map<std::string, std::string> file_of;
    std::set<std::string> files;
    for (const auto& [name, file] : json["weight_map"].items()) {
      const std::string text = file.is_string() ? file.get<std::string>() : "";
      if (text.empty() || fs::path(text).filename() != text || text == "..")
        throw DataError(fmt::format("{}: weight_map names no plain file for tensor '{}'", index.string(), name));
      file_of[name] = text;
      files.insert(text);
    }
    for (const std::string& file : files) add_shard(directory_ / file);
    for (const auto& [name, file] : file_of)
      if (!has(name) || shard(name).path().filename() != file)
        throw DataError(fmt::format("{}: tensor '{}' is not in {}", index.string(), name, file));
  }

  const SafetensorsFile& shard(const std::string& name) const {
    const auto at = shard_of_.find(name);
    if (at == shard_of_.end()) throw DataError(fmt::format("{}: has no tensor '{}'", directory_.string(), name));
    return shards_[at->second];
  }

  fs::path directory_;
  std::vector<SafetensorsFile> shards_;
  std::map<std::string, size_t> shard_of_;
};

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; a name that is not known stays as it is. GGUF's
// names: gguf 0.19.0, tensor_mapping.py.
std::string hf_name(const std::string& gguf) {
  static const std::map<std::string, std::string> kWhole = {{"token_embd.weight", "model.embed_tokens.weight"},
                                                            {"output_norm.weight", "model.norm.weight"},
                                                            {"output.weight", "lm_head.weight"}};
  static const std::map<std::string, std::string> kInLayer = {
      {"attn_norm", "input_layernorm"}, {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
      {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"}};
  if (const auto at = kWhole.find(gguf); at != kWhole.end()) return at->second;
  constexpr size_t kPrefix = 4;  // "blk."
  const size_t dot = gguf.find('.', kPrefix);
  const size_t last = gguf.rfind('.');
  if (!gguf.starts_with("blk.") || dot == std::string::npos || last == dot) return gguf;
  const auto at = kInLayer.find(gguf.substr(dot + 1, last - dot - 1));
  if (at == kInLayer.end()) return gguf;
  return fmt::format("model.layers.{}.{}{}", gguf.substr(kPrefix, dot - kPrefix), at->second, gguf.substr(last));
}

// Rows of one head from pairs (2i, 2i + 1), as llama.cpp's converter leaves them, to pairs (i, i + D/2).
void interleaved_to_half_split(const std::vector<float>& rows, int64_t head_dim, int64_t row_values, float* out) {
  const int64_t count = static_cast<int64_t>(rows.size()) / row_values;
  for (int64_t row = 0; row < count; ++row) {
    const int64_t within = row % head_dim;
    const int64_t target = row - within + within % 2 * (head_dim / 2) + within / 2;
    std::memcpy(out + target * row_values, rows.data() + row * row_values,
                static_cast<size_t>(row_values) * sizeof(float));
  }
}

class GgufWeights : public WeightSource {
 public:
  explicit GgufWeights(const fs::path& path) : file_(path), config_(read_gguf_config(file_)) {
    for (const GgufTensor& tensor : file_.tensors())
      if (tensor.name != "rope_freqs.weight") gguf_name_[hf_name(tensor.name)] = tensor.name;
  }

  bool has(const std::string& name) const override { return gguf_name_.contains(name); }

  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, gguf] : gguf_name_) names.push_back(name);
    return names;
  }

  std::vector<int64_t> shape(const std::string& name) const override { return tensor(name).shape; }

  void read(const std::string& name, float* out) const override {
    const GgufTensor& from = tensor(name);
    const int64_t heads = rotated_heads(from.name);
    if (heads == 0) return file_.read(from, out);
    if (from.shape[0] != heads * config_.head_dim)
      throw DataError(fmt::format("{}: has {} rows; needed are {} heads of {}", place(name), from.shape[0], heads,
                                  config_.head_dim));
    const int64_t values = std::accumulate(from.shape.begin(), from.shape.end(), int64_t{1}, std::multiplies<>());
    std::vector<float> rows(static_cast<size_t>(values));
    file_.read(from, rows.data());
    interleaved_to_half_split(rows, config_.head_dim, values / from.shape[0], out);
  }

  std::string place(const std::string& name) const override {
    const auto at = gguf_name_.find(name);
    return fmt::format("{}: {}", file_.path().string(), at == gguf_name_.end() ? name : at->second);
  }

  std::string sha256() const override { return sha256_file(file_.path()); }

 private:
  // 0: not a tensor whose rows RoPE turns.
  int64_t rotated_heads(const std::string& gguf) const {
    if (gguf.ends_with(".attn_q.weight") || gguf.ends_with(".attn_q.bias")) return config_.heads;
    if (gguf.ends_with(".attn_k.weight") || gguf.ends_with(".attn_k.bias")) return config_.kv_heads;
    return 0;
  }

  const GgufTensor& tensor(const std::string& name) const {
    const auto at = gguf_name_.find(name);
    if (at == gguf_name_.end()) throw DataError(fmt::format("{}: has no tensor for '{}'", file_.path().string(), name));
    return file_.tensor(at->second);
  }

  GgufFile file_;
  LlamaConfig config_;
  std::map<std::string, std::string> gguf_name_;  // by Hugging Face name
};

bool is_gguf(const fs::path& path) {
  std::error_code unreadable;
  if (fs::is_directory(path, unreadable)) return false;
  if (path.extension() == ".gguf") return true;
  throw DataError(fmt::format("{}: {}; a model is a .gguf file or a Hugging Face directory", path.string(),
                              fs::exists(path, unreadable) ? "is neither" : "does not exist"));
}

}  // namespace

std::unique_ptr<WeightSource> open_weights(const fs::path& path) {
  if (is_gguf(path)) return std::make_unique<GgufWeights>(path);
  return std::make_unique<HfWeights>(path);
}

LlamaConfig read_config(const fs::path& path) {
  return is_gguf(path) ? read_gguf_config(GgufFile(path)) : read_hf_config(path / "config.json");
}

}  // namespace kvsweep
