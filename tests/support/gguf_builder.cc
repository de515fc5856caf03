#include "tests/support/gguf_builder.h"

namespace kvsweep::testing {

std::string gguf_text(const std::string& text) {
  return bytes_of(uint64_t{text.size()}) + text;
}

GgufBuilder& GgufBuilder::raw(const std::string& key, uint32_t type, const std::string& bytes) {
  metadata_ += gguf_text(key) + bytes_of(type) + bytes;
  ++keys_;
  return *this;
}

GgufBuilder& GgufBuilder::integer(const std::string& key, uint32_t value) {
  return raw(key, 4, bytes_of(value));
}

GgufBuilder& GgufBuilder::number(const std::string& key, float value) {
  return raw(key, 6, bytes_of(value));
}

GgufBuilder& GgufBuilder::flag(const std::string& key, bool value) {
  return raw(key, 7, bytes_of(uint8_t{value}));
}

GgufBuilder& GgufBuilder::text(const std::string& key, const std::string& value) {
  return raw(key, 8, gguf_text(value));
}

GgufBuilder& GgufBuilder::texts(const std::string& key, const std::vector<std::string>& values) {
  std::string bytes = bytes_of(uint32_t{8}) + bytes_of(uint64_t{values.size()});
  for (const std::string& value : values) bytes += gguf_text(value);
  return raw(key, 9, bytes);
}

GgufBuilder& GgufBuilder::tensor(const std::string& name, const std::vector<int64_t>& shape, uint32_t type,
                                 const std::string& packed, int64_t offset) {
  data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  infos_ += gguf_text(name) + bytes_of(static_cast<uint32_t>(shape.size()));
  for (size_t i = shape.size(); i > 0; --i) infos_ += bytes_of(shape[i - 1]);
  infos_ += bytes_of(type) + bytes_of(offset < 0 ? static_cast<int64_t>(data_.size()) : offset);
  data_ += packed;
  ++tensors_;
  return *this;
}

GgufBuilder& GgufBuilder::tensor_f32(const std::string& name, const std::vector<int64_t>& shape,
                                     const std::vector<float>& values) {
  std::string packed;
  for (float value : values) packed += bytes_of(value);
  return tensor(name, shape, 0, packed);
}

std::string GgufBuilder::bytes() const {
  GgufBuilder all = *this;
  if (alignment != 32) all.integer("general.alignment", alignment);
  std::string file = "GGUF" + bytes_of(version) + bytes_of(all.tensors_) + bytes_of(all.keys_);
  file += all.metadata_ + infos_;
  file.resize((file.size() + alignment - 1) / alignment * alignment);
  return file + data_;
}

GgufBuilder tiny_llama_gguf() {
  GgufBuilder file;
  file.text("general.architecture", "llama")
      .integer("llama.block_count", 1)
      .integer("llama.embedding_length", 8)
      .integer("llama.attention.head_count", 2)
      .integer("llama.attention.head_count_kv", 1)
      .integer("llama.feed_forward_length", 16)
      .integer("llama.context_length", 64)
      .number("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .tensor_f32("token_embd.weight", {3, 8}, std::vector<float>(3 * 8, 0.5f));
  return file;
}

}  // namespace kvsweep::testing
