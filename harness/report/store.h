#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/record.h"
#include "harness/report/shard.h"

namespace kvsweep {

// A results directory: manifest.json (which points, and the facts that every session on it must share), records.jsonl
// and samples.jsonl, append-only, and `lock`. Survives kill -9 at any byte: a torn last line is cut off on opening (and
// said so in the log), nothing else is touched.
//
// With a shard, many processes share the directory: each appends to samples-, groups- and records-<i>-of-<n>.jsonl of
// its own and reads the samples of the others as they are on opening; records.jsonl is left to merge_shards(). A
// directory is for shards or for a run without them, never both; shards of different counts may share one.
class Store {
 public:
  // Creates or reopens `directory` for the points `ids` (id -> label), takes an exclusive lock on it (with a shard: on
  // its files) for its lifetime. Points that the directory does not know yet are added to it. Errors (nothing written
  // but lock files): ConfigError: held by another process (names its pid), not a results directory, of the other kind
  // (shards or not), made by another sweep (it has points that `ids` has not: names how many and one of them).
  // DataError: cannot be written; a whole line (one with its newline) is damaged, also when it is the last: names file
  // and line.
  Store(const std::filesystem::path& directory, const std::map<std::string, std::string>& ids,
        const std::optional<Shard>& shard = std::nullopt);
  ~Store();

  // Facts that samples of one directory must share: the SHA-256 of a model's weights, of a task's data. A new name is
  // written to the manifest; ConfigError when the directory was made with another value.
  void require_facts(const std::map<std::string, std::string>& facts);

  // Records with status ok or not_engaged, by id; the last line of an id wins.
  const std::map<std::string, Record>& finished() const;
  // Samples of points, by (point id, sample id); the last line wins.
  const std::map<std::pair<std::string, std::string>, SampleRecord>& samples() const;

  // One write of all lines: the operating system has them when this returns; a record is on the disk too, after the
  // samples before it. A full disk is a DataError naming file and cause; what was written of it is cut off again. A
  // shard's records are of points that failed there.
  void append(const std::vector<SampleRecord>& samples);
  void append(const Record& record);
  // What a shard is about to run, before its first sample of the group; for who merges.
  void append(const ShardGroup& group);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Records of a directory for tables: last line of each id, in order of first appearance. Takes no lock; a torn last
// line is skipped. Throws DataError when there is no records.jsonl or no record in it, and for a damaged line;
// StaleRecord when a point has none of this schema.
std::vector<Record> read_records(const std::filesystem::path& directory);

}  // namespace kvsweep
