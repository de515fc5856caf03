#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/llama_config.h"

namespace kvsweep {

// Where weights come from: a GGUF file or a Hugging Face directory, under the names of the latter
// ("model.layers.0.self_attn.q_proj.weight"), q and k rows in half-split order.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const std::string& name) const = 0;
  // Every tensor, sorted: what a model did not ask for can be reported.
  virtual std::vector<std::string> names() const = 0;
  // Shape of a tensor, row-major ([out, in] for a projection). Throws DataError for a missing one.
  virtual std::vector<int64_t> shape(const std::string& name) const = 0;
  // Writes the tensor as float32 to `out` (room for the product of shape()). Throws DataError for a missing tensor and
  // for a type that is not a weight type.
  virtual void read(const std::string& name, float* out) const = 0;
  // File and the tensor's name in it, for messages.
  virtual std::string place(const std::string& name) const = 0;
  // Content hash, made anew on every call: of the GGUF file; of the lines "<file name> <sha256>\n" of all safetensors
  // files in sorted order.
  virtual std::string sha256() const = 0;
};

// Opens a directory (model.safetensors, or model.safetensors.index.json with its shards) or a .gguf file. Throws
// DataError.
std::unique_ptr<WeightSource> open_weights(const std::filesystem::path& path);

// The configuration that lies beside those weights: config.json of a directory, metadata of a .gguf file. Throws
// DataError.
LlamaConfig read_config(const std::filesystem::path& path);

}  // namespace kvsweep
