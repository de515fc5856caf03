#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "harness/files/mapped_file.h"

namespace kvsweep {

struct SafetensorsTensor {
  std::string dtype;  // as written: "F32", "BF16", "F8_E4M3"
  std::vector<int64_t> shape;
  int64_t offset = 0;  // from the start of the file
  int64_t bytes = 0;
};

// One .safetensors file. Layout: README.md of the safetensors project ("Format"): the length of a JSON header as 8
// bytes, the header, then the tensors' bytes one after another without holes.
//
// Everything that the header says is checked on opening: DataError names the file and the tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, SafetensorsTensor>& tensors() const { return tensors_; }
  // Throws DataError for a missing one.
  const SafetensorsTensor& tensor(const std::string& name) const;
  // Texts of the header's "__metadata__".
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // All values as float32 to `out` (room for the product of shape); the pages are given back. Throws DataError that
  // names tensor and dtype unless that is F32, F16 or BF16.
  void read(const std::string& name, float* out) const;
  // The tensor's bytes as they lie in the file, row-major and little-endian; valid as long as this object.
  std::span<const uint8_t> bytes(const std::string& name) const;

 private:
  [[noreturn]] void fail(const std::string& message) const;
  void check_places(int64_t data_begin) const;

  MappedFile file_;
  std::map<std::string, SafetensorsTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// One tensor to be written: row-major bytes that the caller keeps alive.
struct SafetensorsSource {
  std::string name, dtype;  // "F32"
  std::vector<int64_t> shape;
  std::span<const uint8_t> bytes;
};

// Writes a whole file under another name beside `path`, then renames it: `path` holds the old content or the new one,
// whenever the process dies. Throws DataError that names the file.
void write_safetensors(const std::filesystem::path& path, const std::vector<SafetensorsSource>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace kvsweep
