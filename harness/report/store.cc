#include "harness/report/store.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/log.h"
#include "harness/report/append_file.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kRecords = "records.jsonl";
constexpr const char* kSamples = "samples.jsonl";

using Texts = std::map<std::string, std::string>;

struct Manifest {
  Texts points;  // id -> label
  Texts facts;
};

Manifest read_manifest(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return {};
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  try {
    const auto json = nlohmann::json::parse(text);
    if (json.at("schema") != 1)
      throw DataError(
          fmt::format("{}: schema is {}, this program reads schema 1", path.string(), json["schema"].dump()));
    return {json.at("points").get<Texts>(), json.at("facts").get<Texts>()};
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("{}: not a manifest: {}", path.string(), error.what()));
  }
}

void write_manifest(const fs::path& path, const Manifest& manifest) {
  nlohmann::ordered_json json;
  json["schema"] = 1;
  json["facts"] = manifest.facts;
  json["points"] = manifest.points;
  replace_file(path, json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

// Leaves alone what is not ours: a results directory has a manifest, or nothing but what a start that was cut short
// leaves behind.
void check_is_results(const fs::path& directory) {
  if (fs::exists(directory / kManifest)) return;
  static const std::set<std::string> kStarted = {"lock", "manifest.json.tmp"};
  for (const auto& entry : fs::directory_iterator(directory))
    if (!kStarted.contains(entry.path().filename().string()))
      throw ConfigError(fmt::format("{}: is not a results directory: it has {}, but no {}; choose a new directory",
                                    directory.string(), entry.path().filename().string(), kManifest));
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

int64_t whole_bytes(const fs::path& path, const LineScan& scan) {
  if (scan.torn_bytes > 0) log(fmt::format("{}: cut off a torn last line of {} bytes", path.string(), scan.torn_bytes));
  return scan.whole_bytes;
}

}  // namespace

struct Store::State {
  State(const fs::path& where, const Texts& ids) : directory(prepared(where)), lock(directory) {
    manifest = read_manifest(directory / kManifest);
    check_same_sweep(directory, manifest.points, ids);
    const LineScan record_lines = scan_lines(
        directory / kRecords, [&](const auto& line, const auto& place) { keep(record_from_json(line, place)); });
    const LineScan sample_lines = scan_lines(
        directory / kSamples, [&](const auto& line, const auto& place) { keep(sample_from_json(line, place)); });
    if (manifest.points != ids) {
      manifest.points = ids;
      write_manifest(directory / kManifest, manifest);
    }
    records.emplace(directory / kRecords, whole_bytes(directory / kRecords, record_lines));
    samples.emplace(directory / kSamples, whole_bytes(directory / kSamples, sample_lines));
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
  DirectoryLock lock;
  Manifest manifest;
  std::map<std::string, Record> finished;
  std::map<std::pair<std::string, std::string>, SampleRecord> by_sample;
  std::optional<AppendFile> records, samples;
};

Store::Store(const fs::path& directory, const Texts& ids) : state_(std::make_unique<State>(directory, ids)) {}

Store::~Store() = default;

void Store::require_facts(const Texts& facts) {
  Texts merged = facts;
  merged.insert(state_->manifest.facts.begin(), state_->manifest.facts.end());
  for (const auto& [name, value] : state_->manifest.facts)
    if (merged.at(name) != value)
      throw ConfigError(fmt::format("{}: was made with {} = {}, now it is {}; choose another directory",
                                    state_->directory.string(), name, value, merged.at(name)));
  if (merged == state_->manifest.facts) return;
  const Manifest next{state_->manifest.points, merged};
  write_manifest(state_->directory / kManifest, next);
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
  state_->keep(record);
}

std::vector<Record> read_records(const fs::path& directory) {
  std::vector<Record> records;
  std::map<std::string, size_t> index;
  const fs::path path = directory / kRecords;
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    throw DataError(
        fmt::format("{}: has no {}: not a results directory, or nothing has run yet", directory.string(), kRecords));
  scan_lines(path, [&](const std::string& line, const std::string& place) {
    Record record = record_from_json(line, place);
    const auto [at, fresh] = index.try_emplace(record.id, records.size());
    if (fresh)
      records.push_back(std::move(record));
    else
      records[at->second] = std::move(record);
  });
  if (records.empty()) throw DataError(fmt::format("{}: has no whole record yet", path.string()));
  return records;
}

}  // namespace kvsweep
