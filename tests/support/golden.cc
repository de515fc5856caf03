#include "tests/support/golden.h"

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>

namespace kvsweep::testing {
namespace fs = std::filesystem;

std::vector<fs::path> golden_roots() {
  std::vector<fs::path> roots = {fs::path(KVSWEEP_SOURCE_DIR) / "tests/golden"};
  if (const char* extra = std::getenv("KVSWEEP_GOLDEN"); extra != nullptr && *extra != 0) {
    INFO("KVSWEEP_GOLDEN=" << extra);
    REQUIRE(fs::is_directory(extra));
    roots.emplace_back(extra);
  }
  return roots;
}

std::vector<fs::path> golden_files(const std::string& pattern) {
  const std::regex regex(pattern, std::regex::extended);
  std::vector<fs::path> files;
  for (const fs::path& root : golden_roots()) {
    std::vector<fs::path> here;
    if (!fs::is_directory(root)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root))
      if (entry.is_regular_file() && std::regex_match(fs::relative(entry.path(), root).generic_string(), regex))
        here.push_back(entry.path());
    std::sort(here.begin(), here.end());
    files.insert(files.end(), here.begin(), here.end());
  }
  return files;
}

std::vector<fs::path> data_roots() {
  std::vector<fs::path> roots;
  if (const char* given = std::getenv("KVSWEEP_DATA"); given != nullptr && fs::is_directory(given))
    roots.emplace_back(given);
  const fs::path beside = fs::path(KVSWEEP_SOURCE_DIR) / "../shared/data";
  if (fs::is_directory(beside)) roots.push_back(beside);
  return roots;
}

fs::path smollm2_or_skip() {
  fs::path folder;
  if (const char* given = std::getenv("KVSWEEP_MODELS"); given != nullptr && *given != 0) {
    folder = given;
  } else if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != 0) {
    folder = fs::path(cache) / "kvsweep/models";
  } else if (const char* home = std::getenv("HOME"); home != nullptr) {
    folder = fs::path(home) / ".cache/kvsweep/models";
  }
  const fs::path file = folder / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(file)) SKIP("no " << file.string() << ": run scripts/bootstrap.sh");
  return file;
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (fs::temp_directory_path() / "kvsweep-test-XXXXXX").string();
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  INFO(path.string());
  REQUIRE(in.good());
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  INFO(path.string());
  REQUIRE(out.good());
}

}  // namespace kvsweep::testing
