#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvsweep::testing {

// Writes small GGUF files for tests, right ones and wrong ones. Value types: gguf.md of the ggml project.
class GgufBuilder {
 public:
  uint32_t version = 3;
  uint32_t alignment = 32;  // of tensor offsets; written as general.alignment unless 32

  GgufBuilder& integer(const std::string& key, uint32_t value);
  GgufBuilder& number(const std::string& key, float value);
  GgufBuilder& flag(const std::string& key, bool value);
  GgufBuilder& text(const std::string& key, const std::string& value);
  GgufBuilder& texts(const std::string& key, const std::vector<std::string>& values);
  // Any value: its type number and its bytes.
  GgufBuilder& raw(const std::string& key, uint32_t type, const std::string& bytes);
  // shape: row-major. type: ggml's number. Offsets follow from the order unless one is given (from the data's start).
  GgufBuilder& tensor(const std::string& name, const std::vector<int64_t>& shape, uint32_t type,
                      const std::string& packed, int64_t offset = -1);
  GgufBuilder& tensor_f32(const std::string& name, const std::vector<int64_t>& shape, const std::vector<float>& values);
  std::string bytes() const;

 private:
  int64_t keys_ = 0, tensors_ = 0;
  std::string metadata_, infos_, data_;
};

// The bytes of a value as they lie in memory.
template <class T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// A length as 8 bytes, then the text.
std::string gguf_text(const std::string& text);

// The smallest set of keys and tensors that is a Llama: 1 layer, 2 heads and 1 key-value head of 4, 8 wide, 3 tokens.
GgufBuilder tiny_llama_gguf();

}  // namespace kvsweep::testing
