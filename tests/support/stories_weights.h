#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "models/weight_source.h"

namespace kvsweep::testing {

// A llama2.c checkpoint (the format of karpathy/llama2.c before version 1): seven int32, then float32 tensors, all
// layers of one kind together, q and k rows in interleaved order.
class StoriesWeights : public WeightSource {
 public:
  explicit StoriesWeights(const std::filesystem::path& path);
  const LlamaConfig& config() const { return config_; }
  bool has(const std::string& name) const override { return entries_.contains(name); }
  std::vector<std::string> names() const override;
  std::vector<int64_t> shape(const std::string& name) const override;
  void read(const std::string& name, float* out) const override;
  std::string place(const std::string& name) const override { return path_.string() + ": " + name; }
  std::string sha256() const override;

 private:
  struct Entry {
    std::vector<int64_t> shape;
    int64_t first = 0;       // in values_
    int64_t half_split = 0;  // heads whose rows are reordered; 0: none
  };
  std::filesystem::path path_;
  LlamaConfig config_;
  std::vector<float> values_;
  std::map<std::string, Entry> entries_;
};

}  // namespace kvsweep::testing
