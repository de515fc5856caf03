#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/kv_cache.h"
#include "harness/files/tensor_file.h"

namespace kvsweep {

// Where an artifact comes from. On disk: texts of the safetensors header, "params" as a JSON list of pairs.
struct ArtifactHeader {
  std::string scheme;                                       // name of the plug-in
  std::vector<std::pair<std::string, std::string>> params;  // resolved
  std::string model, weights_sha256;
  int64_t layers = 0, kv_heads = 0, head_dim = 0;
  std::string text, text_sha256;      // "": the calibration read no text
  int64_t sequences = 0, tokens = 0;  // of text: so many sequences of so many tokens
  std::string program;                // version and commit
};

// What `kvsweep calibrate` made for one scheme and one model.
struct Artifact {
  std::filesystem::path path;  // for messages
  ArtifactHeader header;
  TensorMap tensors;  // "layers.<i>.<name>" and names of the whole model, CPU

  // Throws DataError that names file and tensor.
  const at::Tensor& tensor(const std::string& name) const;
  const at::Tensor& tensor(int64_t layer, const std::string& name) const;
  // Throws ConfigError that names both sides when the artifact was made for other weights or another shape. Weights
  // are compared where the context knows its model's.
  void check_model(const CacheContext& context) const;
};

// Throws DataError that names the file when it is no artifact.
ArtifactHeader read_artifact_header(const std::filesystem::path& path);
// Throws ConfigError too, that names file and both schemes, for an artifact of another scheme.
Artifact read_artifact(const std::filesystem::path& path, const std::string& scheme);
void write_artifact(const std::filesystem::path& path, const ArtifactHeader& header, const TensorMap& tensors);

}  // namespace kvsweep
