#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/task.h"

namespace kvsweep {

// A data set that tasks can use but the project does not carry.
struct KnownData {
  std::string folder;  // below a data root
  std::string files;   // what tasks read there
  std::string source;  // upstream project
  std::string licence;
  std::string how;  // what to do with the upstream files so that `files` lie there
};
const std::vector<KnownData>& known_data();

// Where data may lie, in order: `given` (--data), $KVSWEEP_DATA, ../shared/data below the current directory, and
// data/ in the user's cache (user_cache()). Throws ConfigError when `given` or $KVSWEEP_DATA
// is not a directory; the other two need not exist.
std::vector<std::filesystem::path> default_data_roots(const std::optional<std::filesystem::path>& given);

// The content of a file as it is (line ends too). Throws DataError when it cannot be read or is not UTF-8.
std::string read_utf8(const std::filesystem::path& file);

// Regular files of a folder and below as generic relative names, sorted by bytes; a file is its own only entry (its
// name). Left out: SOURCE.txt (a note on where the data came from) and names that begin with a dot.
std::vector<std::string> data_files(const std::filesystem::path& path);

// SHA-256 over name and content hash of every data_files() entry of `data` (Task::data()), in sorted order: the same on
// every machine, wherever the roots lie. "" for no data.
std::string data_sha256(const DataLocator& locator, std::vector<std::string> data);

}  // namespace kvsweep
