#include "harness/report/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/log.h"
#include "harness/report/append_file.h"
#include "harness/report/manifest.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;
constexpr const char* kRecords = "records.jsonl";
constexpr const char* kSamples = "samples.jsonl";
constexpr const char* kLock = "lock";
constexpr const char* kManifestLock = "manifest.lock";

using Texts = std::map<std::string, std::string>;

// Leaves alone what is not ours: a results directory has a manifest, or nothing but what a start that was cut short
// leaves behind.
void check_is_results(const fs::path& directory) {
  static const std::set<std::string> kStarted = {kLock, kManifestLock, kManifestFile, "manifest.json.tmp"};
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (kStarted.contains(name) || name.starts_with("lock-")) continue;
    if (fs::exists(directory / kManifestFile)) return;  // asked last: another shard may just have written it
    throw ConfigError(fmt::format("{}: is not a results directory: it has {}, but no {}; choose a new directory",
                                  directory.string(), name, kManifestFile));
  }
}

void make_directory(const fs::path& directory) {
  try {
    fs::create_directories(directory);
    if (fs::is_directory(directory)) return check_is_results(directory);
  } catch (const fs::filesystem_error& error) {
    throw DataError(fmt::format("{}: cannot be made or read: {}", directory.string(), error.code().message()));
  }
  throw DataError(fmt::format("{}: is a file, a results directory is needed", directory.string()));
}

fs::path prepared(const fs::path& directory) {
  make_directory(directory);
  return directory;
}

void check_same_sweep(const fs::path& directory, const Texts& known, const Texts& ids) {
  std::vector<std::string> strangers;
  for (const auto& [id, label] : known)
    if (!ids.contains(id)) strangers.push_back(fmt::format("{} ({})", id, label));
  if (strangers.empty()) return;
  throw ConfigError(
      fmt::format("{}: was made by another sweep: {} of its {} points are not in this one, the first is {}; choose "
                  "another directory",
                  directory.string(), strangers.size(), known.size(), strangers.front()));
}

// A run with shards and one without do not see each other's samples.
void check_kind(const fs::path& directory, const std::optional<Shard>& shard) {
  if (shard) {
    if (fs::exists(directory / kSamples))
      throw ConfigError(
          fmt::format("{}: holds a run without shards ({}): go on without --shard, or choose another "
                      "directory",
                      directory.string(), kSamples));
  } else if (const auto shards = shards_in(directory, "samples"); !shards.empty()) {
    throw ConfigError(
        fmt::format("{}: holds shards of a run ({}): go on with --shard, `kvsweep merge` it, or choose another "
                    "directory",
                    directory.string(), shards.front().file("samples")));
  }
}

}  // namespace

struct Store::State {
  State(const fs::path& where, const Texts& ids, const std::optional<Shard>& of_shard)
      : directory(prepared(where)), shard(of_shard) {
    lock.emplace(directory / kLock, shard ? FileLock::Kind::kShared : FileLock::Kind::kAlone, directory.string());
    if (shard)
      shard_lock.emplace(directory / shard->lock_file(), FileLock::Kind::kAlone,
                         fmt::format("{}: shard {}", directory.string(), shard->text()));
    const auto manifest_lock = lock_manifest();
    manifest = read_manifest(directory);
    check_same_sweep(directory, manifest.points, ids);
    check_kind(directory, shard);
    int64_t stale = 0;
    const LineScan record_lines = scan_lines(directory / record_file(), [&](const auto& line, const auto& place) {
      try {
        Record record = record_from_json(line, place);
        if (!shard) keep(std::move(record));
      } catch (const StaleRecord&) {
        ++stale;
      }
    });
    if (stale > 0)
      log(fmt::format("{}: {} records of an older program are made again from their samples", directory.string(),
                      stale));
    const LineScan sample_lines = scan_lines(
        directory / sample_file(), [&](const auto& line, const auto& place) { keep(sample_from_json(line, place)); });
    const LineScan group_lines =
        shard ? scan_lines(directory / shard->file("groups"), shard_group_from_json) : LineScan{};
    if (shard) scan_others();
    if (manifest.points != ids) {
      manifest.points = ids;
      write_manifest(directory, manifest);
    }
    open(records, record_file(), record_lines);
    open(samples, sample_file(), sample_lines);
    if (shard) open(groups, shard->file("groups"), group_lines);
  }

  std::string record_file() const { return shard ? shard->file("records") : kRecords; }
  std::string sample_file() const { return shard ? shard->file("samples") : kSamples; }

  // While it is held no other shard changes the manifest; without shards `lock` sees to that.
  std::optional<FileLock> lock_manifest() const {
    if (!shard) return std::nullopt;
    return std::make_optional<FileLock>(directory / kManifestLock, FileLock::Kind::kWait, directory.string());
  }

  void open(std::optional<AppendFile>& file, const std::string& name, const LineScan& lines) const {
    const fs::path path = directory / name;
    if (lines.torn_bytes > 0)
      log(fmt::format("{}: cut off a torn last line of {} bytes", path.string(), lines.torn_bytes));
    file.emplace(path, lines.whole_bytes);
  }

  // What other shards have measured and what an earlier merge found finished: not ours to mend, a last line may be torn
  // because it is just being written.
  void scan_others() {
    for (const Shard& other : shards_in(directory, "samples"))
      if (other != *shard)
        scan_lines(directory / other.file("samples"),
                   [&](const auto& line, const auto& place) { keep(sample_from_json(line, place)); });
    scan_lines(directory / kRecords, [&](const auto& line, const auto& place) { keep(record_from_json(line, place)); });
  }

  void keep(Record record) {
    if (record.status == "failed")
      finished.erase(record.id);
    else
      finished.insert_or_assign(record.id, std::move(record));
  }
  void keep(SampleRecord sample) {
    std::pair key(sample.point_id, sample.sample_id);
    by_sample.insert_or_assign(std::move(key), std::move(sample));
  }

  fs::path directory;
  std::optional<Shard> shard;
  std::optional<FileLock> lock, shard_lock;
  Manifest manifest;
  std::map<std::string, Record> finished;
  std::map<std::pair<std::string, std::string>, SampleRecord> by_sample;
  std::optional<AppendFile> records, samples, groups;
};

Store::Store(const fs::path& directory, const Texts& ids, const std::optional<Shard>& shard)
    : state_(std::make_unique<State>(directory, ids, shard)) {}

Store::~Store() = default;

void Store::require_facts(const Texts& facts) {
  const auto manifest_lock = state_->lock_manifest();
  if (state_->shard) state_->manifest = read_manifest(state_->directory);
  Texts merged = facts;
  merged.insert(state_->manifest.facts.begin(), state_->manifest.facts.end());
  for (const auto& [name, value] : state_->manifest.facts)
    if (merged.at(name) != value)
      throw ConfigError(fmt::format("{}: was made with {} = {}, now it is {}; choose another directory",
                                    state_->directory.string(), name, value, merged.at(name)));
  if (merged == state_->manifest.facts) return;
  const Manifest next{state_->manifest.points, merged};
  write_manifest(state_->directory, next);
  state_->manifest = next;
}

const std::map<std::string, Record>& Store::finished() const {
  return state_->finished;
}

const std::map<std::pair<std::string, std::string>, SampleRecord>& Store::samples() const {
  return state_->by_sample;
}

void Store::append(const std::vector<SampleRecord>& samples) {
  std::string lines;
  for (const SampleRecord& sample : samples) lines += to_json_line(sample) + '\n';
  state_->samples->append(lines);
  for (const SampleRecord& sample : samples) state_->keep(sample);
}

void Store::append(const Record& record) {
  // In this order no record outlives its samples.
  state_->samples->sync();
  state_->records->append(to_json_line(record) + '\n');
  state_->records->sync();
  if (!state_->shard) state_->keep(record);
}

void Store::append(const ShardGroup& group) {
  state_->groups->append(to_json_line(group) + '\n');
  state_->groups->sync();
}

std::vector<Record> read_records(const fs::path& directory) {
  std::vector<Record> records;
  std::map<std::string, size_t> index;
  std::map<std::string, StaleRecord> stale;  // that no later line has replaced
  const fs::path path = directory / kRecords;
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    throw DataError(fmt::format("{}: has no {}: {}", directory.string(), kRecords,
                                shards_in(directory, "samples").empty()
                                    ? "not a results directory, or nothing has run yet"
                                    : "its shards are not merged; `kvsweep merge` does it"));
  scan_lines(path, [&](const std::string& line, const std::string& place) {
    try {
      Record record = record_from_json(line, place);
      stale.erase(record.id);
      const auto [at, fresh] = index.try_emplace(record.id, records.size());
      if (fresh)
        records.push_back(std::move(record));
      else
        records[at->second] = std::move(record);
    } catch (const StaleRecord& record) {
      if (!index.contains(record.id)) stale.insert_or_assign(record.id, record);
    }
  });
  if (!stale.empty()) throw stale.begin()->second;
  if (records.empty()) throw DataError(fmt::format("{}: has no whole record yet", path.string()));
  return records;
}

}  // namespace kvsweep
