#include "harness/report/append_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* what) {
  throw DataError(fmt::format("{}: {}: {}", path.string(), what, std::strerror(errno)));
}

int open_or_fail(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) fail(path, "cannot be written");
  return fd;
}

// False with errno set. Interrupted and short writes go on where they stopped.
bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

std::string read_pid(int fd) {
  char text[32] = {};
  const ssize_t bytes = ::pread(fd, text, sizeof text - 1, 0);
  std::string pid(text, bytes > 0 ? static_cast<size_t>(bytes) : 0);
  while (!pid.empty() && pid.back() == '\n') pid.pop_back();
  return pid;
}

int lock_or_errno(int fd, FileLock::Kind kind) {
  const int how = kind == FileLock::Kind::kShared ? LOCK_SH | LOCK_NB
                  : kind == FileLock::Kind::kWait ? LOCK_EX
                                                  : LOCK_EX | LOCK_NB;
  while (::flock(fd, how) != 0)
    if (errno != EINTR) return errno;
  return 0;
}

}  // namespace

LineScan scan_lines(const std::filesystem::path& path,
                    const std::function<void(const std::string& line, const std::string& place)>& on_line) {
  LineScan scan;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return scan;
  if (!std::filesystem::is_regular_file(path, ignored))
    throw DataError(fmt::format("{}: is not a regular file", path.string()));
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(path, "cannot be read");
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (in.eof()) {
      scan.torn_bytes = static_cast<int64_t>(line.size());
      break;
    }
    on_line(line, fmt::format("{}:{}", path.string(), number));
    scan.whole_bytes += static_cast<int64_t>(line.size()) + 1;
  }
  if (in.bad()) fail(path, "cannot be read");
  return scan;
}

AppendFile::AppendFile(std::filesystem::path path, int64_t bytes) : path_(std::move(path)), bytes_(bytes) {
  fd_ = open_or_fail(path_, O_WRONLY | O_APPEND);
  if (::ftruncate(fd_, bytes_) == 0) return;
  const int cause = errno;
  ::close(fd_);
  errno = cause;
  fail(path_, "cannot be cut");
}

AppendFile::~AppendFile() {
  ::close(fd_);
}

void AppendFile::append(const std::string& lines) {
  if (write_all(fd_, lines)) {
    bytes_ += static_cast<int64_t>(lines.size());
    return;
  }
  const int cause = errno;
  if (::ftruncate(fd_, bytes_) != 0) fail(path_, "cannot be written, and a torn line cannot be cut off");
  errno = cause;
  fail(path_, "cannot be written");
}

void AppendFile::sync() {
  if (::fdatasync(fd_) != 0) fail(path_, "cannot be flushed to the disk");
}

void replace_file(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path fresh = path.string() + ".tmp";
  const int fd = open_or_fail(fresh, O_WRONLY | O_TRUNC);
  const bool written = write_all(fd, text) && ::fsync(fd) == 0;
  const int cause = errno;
  ::close(fd);
  errno = cause;
  if (!written) fail(fresh, "cannot be written");
  if (::rename(fresh.c_str(), path.c_str()) != 0) fail(path, "cannot be replaced");
}

FileLock::FileLock(const std::filesystem::path& path, Kind kind, const std::string& what) : kind_(kind) {
  fd_ = open_or_fail(path, O_RDWR);
  if (const int cause = lock_or_errno(fd_, kind); cause != 0) {
    const std::string pid = read_pid(fd_);
    ::close(fd_);
    errno = cause;
    if (cause != EWOULDBLOCK) fail(path, "cannot be locked");
    throw ConfigError(fmt::format("{}: is in use by {}; wait for it or choose another directory", what,
                                  pid.empty() ? "other processes" : "process " + pid));
  }
  if (kind == Kind::kShared) return;
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd_, 0) == 0 && write_all(fd_, pid)) return;
  const int cause = errno;
  ::close(fd_);
  errno = cause;
  fail(path, "cannot be written");
}

FileLock::~FileLock() {
  // The file stays: whoever removed it could remove it from under a process that has just locked it. Its text goes.
  if (kind_ != Kind::kShared) static_cast<void>(::ftruncate(fd_, 0) == 0);
  ::close(fd_);
}

}  // namespace kvsweep
