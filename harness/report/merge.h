#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace kvsweep {

// A point that has no record yet.
struct IncompletePoint {
  std::string id, label;
  int64_t samples = 0, of = 0;       // that are there, that it needs; 0 of 0: no shard has begun it
  std::vector<std::string> missing;  // ids of those that are not there, in the task's order
};

struct MergeResult {
  std::filesystem::path out;
  int64_t shards = 0;      // that have files
  int64_t samples = 0;     // different ones
  int64_t duplicates = 0;  // lines that say again what another one says, times apart
  int64_t records = 0;     // written, failed ones too
  int64_t failed = 0;
  std::vector<IncompletePoint> incomplete;  // in the order of the sweep
  // Shards that should have made missing samples, "2/3", for every count in use.
  std::vector<std::string> unfinished_shards;
};

// Makes the records of a sweep from the samples of its shards: those of a run without shards, times and the run's own
// name apart. The order of directories, files and lines has no influence on anything but which of two equal samples'
// times are kept (the line that sorts first). A point with all of its samples is `ok` or `not_engaged`, also when it
// had failed before; else a point that failed is a failed record; else it is incomplete and has none.
//
// Without `out`: one directory, whose records.jsonl is replaced; its shards must not be running. With `out`: any
// directories, which are only read, also while shards run in them, into a new one that is like that of a run without
// shards and can be gone on with as such.
//
// Throws ConfigError: not a directory of shards, no `out` for several directories, `out` is there already, in use,
// directories of different weights or data. DataError: a damaged line; the same sample with different content (names
// both places); what shards know of a point differs.
MergeResult merge_shards(const std::vector<std::filesystem::path>& directories,
                         const std::optional<std::filesystem::path>& out);

}  // namespace kvsweep
