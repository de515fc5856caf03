#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace kvsweep {

// What reading a file of lines found.
struct LineScan {
  int64_t whole_bytes = 0;  // up to and with the last newline
  int64_t torn_bytes = 0;   // behind it: the start of a line that was never finished
};

// Calls `on_line` for each whole line, without its newline; place: "<path>:<line number>". A missing file has none.
// Throws DataError when it cannot be read.
LineScan scan_lines(const std::filesystem::path& path,
                    const std::function<void(const std::string& line, const std::string& place)>& on_line);

// A file that grows by whole lines. A process that dies while it writes leaves at most one torn line, at the end.
class AppendFile {
 public:
  // Opens or creates `path` and cuts it to `bytes`. Throws DataError.
  AppendFile(std::filesystem::path path, int64_t bytes);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // All of `lines` or, with a DataError that names file and cause, nothing of them.
  void append(const std::string& lines);
  // Waits until the disk has everything.
  void sync();

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  int64_t bytes_ = 0;
};

// Replaces `path` by `text` in one step: a reader, or a process killed in between, sees the old or the new file whole.
void replace_file(const std::filesystem::path& path, const std::string& text);

// A lock on a file, held by this object, that goes with the process, however it ends. The file stays.
class FileLock {
 public:
  enum class Kind {
    kAlone,   // nobody else may hold it; the file's text is the number of this process meanwhile
    kShared,  // others may hold it shared too
    kWait     // as kAlone, but waits for it
  };
  // what: that is locked, for the message. Throws ConfigError naming it and the process when it is held, DataError when
  // the file cannot be written.
  FileLock(const std::filesystem::path& path, Kind kind, const std::string& what);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  Kind kind_;
  int fd_ = -1;
};

}  // namespace kvsweep
