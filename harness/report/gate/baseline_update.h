#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "harness/report/analysis/results.h"

namespace kvsweep {

// What writing a run as the new baseline changes of one point.
struct BaselineChange {
  enum class Kind { kSame, kChanged, kAdded, kRemoved };
  Kind kind = Kind::kSame;
  const Record *before = nullptr, *after = nullptr;  // nullptr: there is none
  int64_t items = 0;                                 // of both, or of the one that there is
  int64_t changed = 0;                               // items whose scores differ, or that only one of them has
  std::string rules;                                 // fields of rules.h that differ: "weights: a against b"
};

class BaselineUpdate {
 public:
  // Reads both. A baseline that is not there yet, or of an older schema, is replaced whole (`replaced` says so). Throws
  // DataError: the file is something else than a baseline; points of the run that failed, were not engaged, have no
  // samples or scores that are not numbers (names them).
  BaselineUpdate(std::filesystem::path baseline, const std::filesystem::path& run);

  const std::vector<BaselineChange>& changes() const { return changes_; }
  const std::string& replaced() const { return replaced_; }
  std::string table() const;  // a line for each point that changes, and how many stay
  // The file is a function of records and samples, whatever their order: times of samples are left out.
  void write() const;

 private:
  void compare();
  std::filesystem::path path_;
  Results run_;
  std::optional<Results> before_;
  std::string replaced_;
  std::vector<BaselineChange> changes_;
};

}  // namespace kvsweep
