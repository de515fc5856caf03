#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/llama.h"
#include "models/llama_config.h"

namespace kvsweep::testing {

// Random weights for a config, in memory, the same on every machine for one seed. Scaled so that activations stay near
// one and logits spread enough for an argmax to be stable.
class TinyWeights : public WeightSource {
 public:
  explicit TinyWeights(const LlamaConfig& config, uint64_t seed = 1);
  bool has(const std::string& name) const override;
  std::vector<std::string> names() const override;
  std::vector<int64_t> shape(const std::string& name) const override;
  void read(const std::string& name, float* out) const override;
  std::string place(const std::string& name) const override;
  std::string sha256() const override;

  struct Entry {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  Entry& entry(const std::string& name);  // for tests that break a tensor
  void remove(const std::string& name) { entries_.erase(name); }

 private:
  std::map<std::string, Entry> entries_;
};

// 2 layers, 4 query heads on 2 kv-heads of 16, hidden 48 (not heads * head_dim), vocabulary 97, tied head, 512
// positions.
LlamaConfig tiny_config();

// tiny_config() and others that differ where code may: MHA, MQA, 3 layers, untied head, biases, head dims 8 to 64.
std::vector<LlamaConfig> tiny_configs();

Llama tiny_llama(const LlamaConfig& config = tiny_config(), uint64_t seed = 1);

// Random ids below `vocab`.
std::vector<int32_t> random_tokens(int64_t count, int64_t vocab, uint64_t seed);

}  // namespace kvsweep::testing
