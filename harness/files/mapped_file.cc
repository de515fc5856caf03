#include "harness/files/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

class Descriptor {
 public:
  explicit Descriptor(const char* path) : value_(open(path, O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  int value_;
};

[[noreturn]] void fail(const std::filesystem::path& path, const char* why) {
  throw DataError(fmt::format("{}: cannot be read: {}", path.string(), why));
}

}  // namespace

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  const Descriptor file(path_.c_str());
  struct stat facts {};
  if (file.value() < 0 || fstat(file.value(), &facts) != 0) fail(path_, std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) fail(path_, "not a regular file");
  bytes_ = facts.st_size;
  if (bytes_ == 0) return;
  void* const data = mmap(nullptr, static_cast<size_t>(bytes_), PROT_READ, MAP_PRIVATE, file.value(), 0);
  if (data == MAP_FAILED) fail(path_, std::strerror(errno));
  data_ = static_cast<uint8_t*>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

std::span<const uint8_t> MappedFile::span(int64_t offset, int64_t count) const {
  if (offset < 0 || count < 0 || offset > bytes_ || count > bytes_ - offset)
    throw DataError(fmt::format("{}: {} bytes at {} end past the end of the file, which has {} bytes", path_.string(),
                                count, offset, bytes_));
  return {data_ + offset, static_cast<size_t>(count)};
}

void MappedFile::drop(int64_t offset, int64_t count) const {
  const auto range = span(offset, count);
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = (offset + page - 1) / page * page;
  const int64_t end = (offset + static_cast<int64_t>(range.size())) / page * page;
  if (begin < end) madvise(data_ + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

}  // namespace kvsweep
