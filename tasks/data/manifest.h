#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "harness/core/task.h"

namespace kvsweep {

// A data set in the version that the project was tested with.
struct KnownSet {
  std::string folder;      // below a data root
  std::string tasks;       // that read it
  std::string repository;  // where the tested files came from: "openai/grade-school-math"
  std::string revision;    // commit
  std::string prefix;      // of the files' paths in the repository
  std::string licence;
  std::vector<std::string> made;  // files that are not in the repository: how stands in docs/protocols.md
};
const std::vector<KnownSet>& known_sets();

struct KnownFile {
  std::string path;    // below a data root: "gsm8k/test.jsonl"
  std::string sha256;  // of its content
};
// Of all known sets, sorted by path.
const std::vector<KnownFile>& known_files();
// Those of one set.
std::vector<KnownFile> known_files(const KnownSet& set);

// What lies at the data roots.
struct SetStatus {
  std::vector<std::string> ok, other, missing;  // paths below a data root
  std::filesystem::path root;                   // of the first file that is there; "" for none
  std::string sha256;                           // data_sha256() of the files that are there; "" for none
};
SetStatus check_set(const KnownSet& set, const DataLocator& locator);

// One line for each known file that `data` (Task::data()) names, alone or with its folder, and whose content is not the
// tested one: a record made from it carries the line as a warning. Files that are not known are the user's own.
std::vector<std::string> data_warnings(const DataLocator& locator, const std::vector<std::string>& data);

// What scripts/get_data.py needs to fetch the files of the sets, as JSON.
std::string fetch_plan(const std::vector<KnownSet>& sets);

}  // namespace kvsweep
