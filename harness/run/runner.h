#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "harness/report/shard.h"

namespace kvsweep {

// Asked after each prompt whether a run may stop, because what it was run for is decided.
struct RunWatch {
  virtual ~RunWatch() = default;
  // All that the run measures, before its first sample.
  virtual void begin(const std::vector<ShardGroup>& groups) = 0;
  // New samples; at first those that an earlier run has left.
  virtual bool decided(const std::vector<SampleRecord>& samples) = 0;
};

struct RunOptions {
  std::optional<std::filesystem::path> out;   // default: results/<sweep name>
  std::optional<int64_t> limit;               // at most this many samples a point
  std::optional<std::string> only;            // glob over point labels
  std::optional<std::filesystem::path> data;  // first data root
  std::optional<Shard> shard;                 // only the prompts that are this shard's; no records but failed ones
  std::optional<int64_t> memory;              // bytes in all; default: four fifths of what is free
  bool greedy_reuse = true;                   // see EngineOptions
  bool alone = false;
  RunWatch* watch = nullptr;  // of a sweep of one model, without shards
  bool dry_run = false;       // print the plan and stop
  std::string command;        // recorded
};

// Exit statuses of the program.
inline constexpr int kExitOk = 0, kExitFailedPoints = 1, kExitBadInput = 2, kExitInterrupted = 130;

// Runs a sweep: plans it, says what it will cost, evaluates every prompt under all of a group's pending schemes at
// once, appends what comes out, and writes one record for each point, also for one that failed. A second call goes on
// where the first one ended. With a shard the records are left to `kvsweep merge`. The unit of what is stored is one
// prompt under all pending points of its group. Where rows do not depend on their batch (Provenance::deterministic),
// results do not depend on where an earlier run was stopped, bit for bit. Returns kExitOk,
// kExitFailedPoints or kExitInterrupted; kExitOk when a watch has stopped it, which leaves a directory that can be gone
// on with. Throws ConfigError or DataError before anything is written.
int run_sweep(const std::filesystem::path& sweep_file, const RunOptions& options);

}  // namespace kvsweep
