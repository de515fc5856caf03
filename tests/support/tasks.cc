#include "tests/support/tasks.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <sstream>

#include "models/gguf.h"
#include "models/tokenizer_gguf.h"
#include "tests/support/golden.h"

namespace kvsweep::testing {

std::unique_ptr<Task> make_task(const std::string& name, const std::map<std::string, std::string>& values) {
  std::map<std::string, ParamValue> given;
  for (const auto& [key, value] : values) given[key] = {value, 1};
  Params params(name, "sweep.yaml", std::move(given));
  const auto& table = task_table();
  const auto entry = std::find_if(table.begin(), table.end(), [&](const auto& one) { return one.name == name; });
  REQUIRE(entry != table.end());
  return entry->make(params);
}

DataLocator data_or_skip(const std::string& relative) {
  const auto roots = data_roots();
  const bool found = std::any_of(roots.begin(), roots.end(),
                                 [&](const auto& root) { return std::filesystem::exists(root / relative); });
  if (!found) SKIP("no " << relative << " in a data root");
  return DataLocator(roots);
}

std::unique_ptr<Tokenizer> smollm2_tokenizer_or_skip() {
  return load_gguf_tokenizer(GgufFile(smollm2_or_skip()));
}

std::vector<std::string> lines_of(const std::filesystem::path& file) {
  std::istringstream in(read_text(file));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) lines.push_back(line);
  return lines;
}

}  // namespace kvsweep::testing
