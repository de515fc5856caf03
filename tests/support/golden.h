#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace kvsweep::testing {

// tests/golden, then $KVSWEEP_GOLDEN when set (a missing directory there fails the test).
std::vector<std::filesystem::path> golden_roots();

// Every file below a golden root whose path relative to the root matches `pattern` (POSIX extended regex, whole path,
// e.g. "models/tok_[^/]*[.]jsonl"), sorted. The same relative path in two roots comes twice.
std::vector<std::filesystem::path> golden_files(const std::string& pattern);

// Roots where data sets may lie: $KVSWEEP_DATA, <source>/../shared/data. Only existing ones.
std::vector<std::filesystem::path> data_roots();

// $KVSWEEP_MODELS or the user's cache: <it>/SmolLM2-135M-Instruct.Q4_1.gguf. Skips the running test when it is missing.
std::filesystem::path smollm2_or_skip();

// A fresh directory that is removed with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace kvsweep::testing
