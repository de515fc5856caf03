#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "harness/files/mapped_file.h"

namespace kvsweep {

struct GgufTensor {
  std::string name;
  uint32_t type = 0;           // ggml's number; see gguf_type()
  std::vector<int64_t> shape;  // row-major, [out, in] for a projection: the reverse of the file's dimension order
  int64_t offset = 0;          // from the start of the file
  int64_t bytes = 0;           // packed; 0 when the type is not known
};

// A GGUF file, version 2 or 3, little-endian: metadata and tensors. Layout: gguf.md of the ggml project.
//
// Everything that the header says is checked on opening: DataError names the file and the key or tensor. Getters take a
// fallback for a missing key; without one a missing key is an error. A key of another type than asked for is always
// one.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  int64_t version() const { return version_; }
  int64_t alignment() const { return alignment_; }
  int64_t data_offset() const { return data_offset_; }  // first byte after header and padding

  bool has(const std::string& key) const { return metadata_.contains(key); }
  int64_t integer(const std::string& key, std::optional<int64_t> fallback = {}) const;
  double number(const std::string& key, std::optional<double> fallback = {}) const;  // integers too
  bool flag(const std::string& key, std::optional<bool> fallback = {}) const;
  std::string text(const std::string& key, std::optional<std::string> fallback = {}) const;
  std::vector<int64_t> integers(const std::string& key, std::optional<std::vector<int64_t>> fallback = {}) const;
  std::vector<double> numbers(const std::string& key, std::optional<std::vector<double>> fallback = {}) const;
  std::vector<std::string> texts(const std::string& key, std::optional<std::vector<std::string>> fallback = {}) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // file order
  const GgufTensor* find(const std::string& name) const;               // null when missing
  // Throws DataError for a missing one.
  const GgufTensor& tensor(const std::string& name) const;
  // Packed bytes. Valid as long as this object.
  std::span<const uint8_t> packed(const GgufTensor& tensor) const;
  // All values as float32, in the file's order, to `out` (room for the product of shape); the pages are given back.
  // Throws DataError that names tensor, type and the types that can be read.
  void read(const GgufTensor& tensor, float* out) const;

 private:
  // Every integer type is int64_t, every float type double, an array of flags one of integers.
  using Value = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<double>,
                             std::vector<std::string>>;
  class Cursor;

  void read_version(Cursor& cursor);
  void read_metadata(Cursor& cursor, int64_t count);
  void read_tensors(Cursor& cursor, int64_t count);
  static GgufTensor read_tensor(Cursor& cursor, int64_t file_bytes);
  void check_places() const;
  static Value read_value(Cursor& cursor, uint32_t type);
  static Value read_array(Cursor& cursor);
  [[noreturn]] void fail(const std::string& message) const;
  const Value* lookup(const std::string& key, bool required) const;
  template <class T>
  T get(const std::string& key, const std::optional<T>& fallback, const char* wanted) const;

  MappedFile file_;
  int64_t version_ = 0, alignment_ = 32, data_offset_ = 0;
  std::map<std::string, Value> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t> tensor_index_;
};

}  // namespace kvsweep
