#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace kvsweep {

// A whole file mapped read-only. The file must not shrink while it is mapped: the kernel answers that with SIGBUS.
class MappedFile {
 public:
  // Throws DataError that names the file when it cannot be opened or is not a regular file. An empty file is a map of 0
  // bytes.
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  int64_t bytes() const { return bytes_; }
  // Bytes [offset, offset + count). Throws DataError when they do not lie in the file.
  std::span<const uint8_t> span(int64_t offset, int64_t count) const;
  // Gives the pages that lie wholly in [offset, offset + count) back, so that bytes read once do not count as resident
  // memory; reading them again loads them again.
  void drop(int64_t offset, int64_t count) const;

 private:
  std::filesystem::path path_;
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace kvsweep
