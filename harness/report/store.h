#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

// A results directory: manifest.json (which points, which weights), records.jsonl and samples.jsonl, append-only.
// Survives kill -9 at any byte: a torn last line is cut off on opening (and said so in the log), nothing else is
// touched.
class Store {
 public:
  // Creates or reopens `directory` for the points `ids` (id -> label), takes an exclusive lock on it for its lifetime.
  // Errors (ConfigError / DataError, nothing written): not writable, locked by another process, made by another sweep
  // (it has points that `ids` has not: names how many and one of them), a damaged line that is not the last.
  Store(const std::filesystem::path& directory, const std::map<std::string, std::string>& ids);
  ~Store();

  // Records with status ok or not_engaged, by id; the last line of an id wins.
  const std::map<std::string, Record>& finished() const;
  // Samples of points, by (point id, sample id); the last line wins.
  const std::map<std::pair<std::string, std::string>, SampleRecord>& samples() const;

  // One write of all lines, then flushed to the file. A short write or a full disk is a DataError naming file and
  // cause; what was written of it is cut off again.
  void append(const std::vector<SampleRecord>& samples);
  void append(const Record& record);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Records of a directory for tables: last line of each id, in order of first appearance. Takes no lock; a torn last
// line is skipped. Throws DataError when there is no records.jsonl or no record in it.
std::vector<Record> read_records(const std::filesystem::path& directory);

}  // namespace kvsweep
