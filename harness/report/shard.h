#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

// One of the processes that share a sweep. The unit is a prompt: all points of a prompt belong to one shard, so that
// its prefill is shared there as in a run without shards.
struct Shard {
  int64_t index = 1, count = 1;  // 1 <= index <= count

  // "2/3". Throws ConfigError.
  static Shard parse(const std::string& text);
  std::string text() const;  // "2/3"

  // Whether a prompt is this shard's: a function of the group's reference point, the sample's id and `count` alone, so
  // that a sweep which grows moves no prompt. Every prompt has exactly one shard of each count.
  bool takes(const std::string& reference_id, const std::string& sample_id) const;

  // "<kind>-2-of-3.jsonl", kind: samples, groups or records.
  std::string file(const std::string& kind) const;
  std::string lock_file() const;  // "lock-2-of-3"

  bool operator==(const Shard&) const = default;
};

// The shards that have files of a kind in a directory, by count, then index. A missing directory has none.
std::vector<Shard> shards_in(const std::filesystem::path& directory, const std::string& kind);

// A point before it was measured: what a shard knows of it and who merges needs.
struct ShardPoint {
  int64_t order = 0;      // of the point within its group of the sweep
  bool lossless = false;  // a trait of its scheme
  Record record;          // without anything measured
};

// A group of a sweep as a shard is about to run it: one line of groups-<i>-of-<n>.jsonl. Of several lines with one
// reference_id all count: a later session may run other points of the group, or more samples.
struct ShardGroup {
  std::string reference_id;          // the full-precision point: names the group
  int64_t order = 0;                 // within the sweep
  std::vector<std::string> samples;  // ids of all samples, of all shards, in the task's order
  std::vector<ShardPoint> points;
};

// As to_json_line(Record) and record_from_json().
std::string to_json_line(const ShardGroup& group);
ShardGroup shard_group_from_json(const std::string& line, const std::string& place);

}  // namespace kvsweep
