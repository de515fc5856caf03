#include "harness/report/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "harness/core/error.h"
#include "harness/report/append_file.h"
#include "harness/report/manifest.h"
#include "harness/report/record.h"
#include "harness/report/shard.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

// A line of a file, and where it stands.
template <class T>
struct Placed {
  T value;
  std::string line, place;
};

using SampleKey = std::pair<std::string, std::string>;  // point, sample

std::string without_times(SampleRecord sample) {
  sample.time = {};
  return to_json_line(sample);
}

// What every shard must know alike of a point.
std::string asked_for(Record record) {
  record.env = {};
  record.warnings.clear();
  return to_json_line(record);
}

// Sessions of one program on one kind of machine.
std::string build_of(const Provenance& env) {
  return fmt::format("{} {}{} torch {} {} {}", env.version, env.commit, env.dirty ? " (changed)" : "", env.torch,
                     env.device, env.dtype);
}

struct MergedPoint {
  int64_t order = 0;
  bool lossless = false;
  Placed<Record> blank;          // of the last session that ran it
  std::set<std::string> builds;  // of all sessions
};

struct MergedGroup {
  int64_t order = 0;
  Placed<std::vector<std::string>> samples;   // the longest list
  std::map<std::string, MergedPoint> points;  // by id
};

class Merge {
 public:
  void read(const fs::path& directory);
  MergeResult result(const fs::path& out);
  // records.jsonl of `out`.
  void write_records(const fs::path& out) const;
  // The rest of what a run without shards leaves behind.
  void write_run(const fs::path& out) const;

 private:
  void add(const Manifest& manifest, const fs::path& directory);
  void add(Placed<SampleRecord> sample);
  void add(Placed<ShardGroup> group);
  void add_samples(MergedGroup& group, Placed<ShardGroup>& line) const;
  void add_point(MergedGroup& group, ShardPoint point, const std::string& place) const;
  void add_failure(Record record);
  void decide(const std::string& reference_id, const MergedGroup& group, const std::string& id,
              const MergedPoint& point);
  std::vector<std::pair<std::string, const MergedGroup*>> ordered_groups() const;
  static std::vector<std::pair<std::string, const MergedPoint*>> ordered_points(const MergedGroup& group);
  void note_unfinished(const std::string& reference_id, const std::string& sample_id);

  Manifest manifest_;
  std::set<Shard, bool (*)(const Shard&, const Shard&)> shards_{
      [](const Shard& a, const Shard& b) { return std::tie(a.count, a.index) < std::tie(b.count, b.index); }};
  std::map<SampleKey, Placed<SampleRecord>> samples_;
  std::map<std::string, MergedGroup> groups_;  // by reference point
  std::map<std::string, Record> failures_;     // by point
  std::vector<Record> records_;
  std::set<std::pair<int64_t, int64_t>> unfinished_;  // count, index
  MergeResult result_;
};

void Merge::read(const fs::path& directory) {
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored) || !fs::exists(directory / kManifestFile, ignored))
    throw ConfigError(fmt::format("{}: is not a results directory: it has no {}", directory.string(), kManifestFile));
  const std::vector<Shard> shards = shards_in(directory, "samples");
  if (shards.empty())
    throw ConfigError(fmt::format("{}: has no shards (samples-<i>-of-<n>.jsonl): only runs with --shard are merged",
                                  directory.string()));
  add(read_manifest(directory), directory);
  for (const Shard& shard : shards) {
    shards_.insert(shard);
    ++result_.shards;
    scan_lines(directory / shard.file("samples"), [&](const std::string& line, const std::string& place) {
      add({sample_from_json(line, place), line, place});
    });
    scan_lines(directory / shard.file("groups"), [&](const std::string& line, const std::string& place) {
      add({shard_group_from_json(line, place), line, place});
    });
    scan_lines(directory / shard.file("records"),
               [&](const std::string& line, const std::string& place) { add_failure(record_from_json(line, place)); });
  }
}

void Merge::add(const Manifest& manifest, const fs::path& directory) {
  for (const auto& [name, value] : manifest.facts)
    if (const auto [at, fresh] = manifest_.facts.emplace(name, value); !fresh && at->second != value)
      throw ConfigError(fmt::format("{}: was made with {} = {}, another directory with {}; they cannot be merged",
                                    directory.string(), name, std::min(value, at->second),
                                    std::max(value, at->second)));
  manifest_.points.insert(manifest.points.begin(), manifest.points.end());
}

void Merge::add(Placed<SampleRecord> sample) {
  SampleKey key(sample.value.point_id, sample.value.sample_id);
  const auto at = samples_.find(key);
  if (at == samples_.end()) {
    samples_.emplace(std::move(key), std::move(sample));
    return;
  }
  Placed<SampleRecord>& before = at->second;
  if (without_times(before.value) != without_times(sample.value))
    throw DataError(fmt::format("{} and {}: sample {} of point {} differs between the two", before.place, sample.place,
                                key.second, key.first));
  ++result_.duplicates;
  if (sample.line < before.line) before = std::move(sample);
}

void Merge::add(Placed<ShardGroup> group) {
  const auto [at, fresh] = groups_.try_emplace(group.value.reference_id);
  MergedGroup& merged = at->second;
  merged.order = fresh ? group.value.order : std::min(merged.order, group.value.order);
  add_samples(merged, group);
  for (ShardPoint& point : group.value.points) add_point(merged, std::move(point), group.place);
}

// A run with --limit knows a part of the list.
void Merge::add_samples(MergedGroup& group, Placed<ShardGroup>& line) const {
  Placed<std::vector<std::string>> samples{std::move(line.value.samples), "", line.place};
  auto &longer = group.samples, &shorter = samples;
  if (longer.value.size() < shorter.value.size()) std::swap(longer, shorter);
  if (!std::equal(shorter.value.begin(), shorter.value.end(), longer.value.begin()))
    throw DataError(fmt::format("{} and {}: the task made different samples", longer.place, shorter.place));
}

void Merge::add_point(MergedGroup& group, ShardPoint point, const std::string& place) const {
  Placed<Record> blank{std::move(point.record), "", place};
  blank.line = to_json_line(blank.value);
  const std::string build = build_of(blank.value.env);
  const auto [at, fresh] = group.points.try_emplace(blank.value.id);
  MergedPoint& merged = at->second;
  merged.builds.insert(build);
  if (fresh) {
    merged.order = point.order;
    merged.lossless = point.lossless;
    merged.blank = std::move(blank);
    return;
  }
  merged.order = std::min(merged.order, point.order);
  if (merged.lossless != point.lossless || asked_for(merged.blank.value) != asked_for(blank.value))
    throw DataError(
        fmt::format("{} and {}: what they say of point {} differs", merged.blank.place, place, blank.value.id));
  const auto age = [](const Placed<Record>& record) { return std::tie(record.value.env.started_at, record.line); };
  if (age(merged.blank) < age(blank)) merged.blank = std::move(blank);
}

// Several shards may fail at one point: its error is the one that sorts first.
void Merge::add_failure(Record record) {
  const auto [at, fresh] = failures_.try_emplace(record.id, record);
  if (fresh) return;
  const auto key = [](const Record& r) { return std::make_pair(r.error, to_json_line(r)); };
  if (key(record) < key(at->second)) at->second = std::move(record);
}

std::vector<std::pair<std::string, const MergedGroup*>> Merge::ordered_groups() const {
  std::vector<std::pair<std::string, const MergedGroup*>> groups;
  for (const auto& [id, group] : groups_) groups.emplace_back(id, &group);
  std::sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return std::tie(a.second->order, a.first) < std::tie(b.second->order, b.first);
  });
  return groups;
}

std::vector<std::pair<std::string, const MergedPoint*>> Merge::ordered_points(const MergedGroup& group) {
  std::vector<std::pair<std::string, const MergedPoint*>> points;
  for (const auto& [id, point] : group.points) points.emplace_back(id, &point);
  std::sort(points.begin(), points.end(), [](const auto& a, const auto& b) {
    return std::tie(a.second->order, a.first) < std::tie(b.second->order, b.first);
  });
  return points;
}

void Merge::note_unfinished(const std::string& reference_id, const std::string& sample_id) {
  for (const Shard& known : shards_)
    for (Shard shard{1, known.count}; shard.index <= shard.count; ++shard.index)
      if (shard.takes(reference_id, sample_id)) unfinished_.emplace(shard.count, shard.index);
}

void Merge::decide(const std::string& reference_id, const MergedGroup& group, const std::string& id,
                   const MergedPoint& point) {
  std::vector<SampleRecord> own, reference;
  IncompletePoint incomplete{id, point.blank.value.point.label(), 0, std::ssize(group.samples.value), {}};
  for (const std::string& sample : group.samples.value) {
    const auto one = samples_.find({id, sample}), other = samples_.find({reference_id, sample});
    if (one == samples_.end() || other == samples_.end()) {
      incomplete.missing.push_back(sample);
      continue;
    }
    own.push_back(one->second.value);
    reference.push_back(other->second.value);
  }
  if (incomplete.missing.empty()) {
    Record record = point.blank.value;
    record.error.clear();
    if (point.builds.size() > 1)
      record.warnings.push_back("its samples come from different programs: " +
                                join({point.builds.begin(), point.builds.end()}, "; "));
    summarize(record, own, reference, point.lossless);
    records_.push_back(std::move(record));
    return;
  }
  if (const auto failed = failures_.find(id); failed != failures_.end()) {
    records_.push_back(failed->second);
    ++result_.failed;
    return;
  }
  incomplete.samples = std::ssize(own);
  for (const std::string& sample : incomplete.missing) note_unfinished(reference_id, sample);
  result_.incomplete.push_back(std::move(incomplete));
}

MergeResult Merge::result(const fs::path& out) {
  result_.out = out;
  std::set<std::string> begun;
  for (const auto& [reference_id, group] : ordered_groups())
    for (const auto& [id, point] : ordered_points(*group)) {
      begun.insert(id);
      decide(reference_id, *group, id, *point);
    }
  for (const auto& [id, label] : manifest_.points)
    if (!begun.contains(id)) result_.incomplete.push_back({id, label, 0, 0, {}});
  result_.samples = std::ssize(samples_);
  result_.records = std::ssize(records_);
  for (const auto& [count, index] : unfinished_) result_.unfinished_shards.push_back(Shard{index, count}.text());
  return result_;
}

void Merge::write_records(const fs::path& out) const {
  std::string lines;
  for (const Record& record : records_) lines += to_json_line(record) + '\n';
  replace_file(out / "records.jsonl", lines);
}

void Merge::write_run(const fs::path& out) const {
  write_manifest(out, manifest_);
  std::string lines;
  for (const auto& [reference_id, group] : ordered_groups()) {
    std::vector<std::string> ids = {reference_id};
    for (const auto& [id, point] : ordered_points(*group))
      if (id != reference_id) ids.push_back(id);
    for (const std::string& sample : group->samples.value)
      for (const std::string& id : ids)
        if (const auto at = samples_.find({id, sample}); at != samples_.end()) lines += at->second.line + '\n';
  }
  replace_file(out / "samples.jsonl", lines);
}

fs::path canonical_path(const fs::path& path) {
  return fs::weakly_canonical(fs::absolute(path));
}

// A new directory, or one that is empty.
void make_out(const fs::path& out) {
  std::error_code error;
  if (fs::exists(out, error) && !(fs::is_directory(out, error) && fs::is_empty(out, error)))
    throw ConfigError(fmt::format("{}: is there already; --out needs a new directory", out.string()));
  fs::create_directories(out, error);
  if (error) throw DataError(fmt::format("{}: cannot be made: {}", out.string(), error.message()));
}

}  // namespace

MergeResult merge_shards(const std::vector<fs::path>& directories, const std::optional<fs::path>& out) {
  std::set<fs::path> different;
  for (const fs::path& directory : directories) different.insert(canonical_path(directory));
  const bool in_place = !out || (different.size() == 1 && canonical_path(*out) == *different.begin());
  if (in_place && different.size() != 1)
    throw ConfigError("several directories are merged into a new one: --out DIR says where");
  const fs::path target = in_place ? directories.front() : *out;
  Merge merge;
  std::optional<FileLock> lock;
  const auto lock_target = [&] { lock.emplace(target / "lock", FileLock::Kind::kAlone, target.string()); };
  if (in_place && fs::exists(target / kManifestFile)) lock_target();
  for (const fs::path& directory : different) merge.read(directory);
  if (!in_place) {
    make_out(target);
    lock_target();
  }
  const MergeResult result = merge.result(target);
  if (!in_place) merge.write_run(target);
  merge.write_records(target);
  return result;
}

}  // namespace kvsweep
