#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "models/mapped_file.h"

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
  // All values as float32 to `out` (room for the product of shape); the pages are given back. Throws DataError that
  // names tensor and dtype unless that is F32, F16 or BF16.
  void read(const std::string& name, float* out) const;

 private:
  [[noreturn]] void fail(const std::string& message) const;
  void check_places(int64_t data_begin) const;

  MappedFile file_;
  std::map<std::string, SafetensorsTensor> tensors_;
};

}  // namespace kvsweep
