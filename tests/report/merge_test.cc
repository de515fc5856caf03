// contract: merged shards are the records of a run without shards, in whatever order files come; what is missing,
// doubled or contradictory is told.
#include "harness/report/merge.h"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <iterator>
#include <sstream>

#include "harness/core/error.h"
#include "harness/report/store.h"
#include "tests/report/examples.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::read_text;
using testing::TemporaryDirectory;
using testing::write_text;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kSamples = 12;

// A sweep of one group: full precision, which is listed, and two schemes.
class Sweep {
 public:
  Sweep() {
    for (int64_t bits : {0, 4, 2}) {
      Record record;
      record.status = "failed";
      record.error = "not measured yet";
      record.point = testing::example_record().point;
      record.env = testing::example_record().env;
      record.primary_metric = "exact_match";
      record.metric_info["exact_match"] = {};
      record.point.scheme = bits == 0 ? "full" : "uniform";
      record.point.scheme_params = {{"k_bits", std::to_string(bits)}};
      record.id = record.point.id();
      records_.push_back(record);
    }
  }
  const Record& record(size_t point) const { return records_[point]; }
  const std::string& id(size_t point) const { return records_[point].id; }
  std::map<std::string, std::string> ids() const {
    std::map<std::string, std::string> ids;
    for (const Record& record : records_) ids[record.id] = record.point.label();
    return ids;
  }
  static std::string sample_id(int64_t index) { return testing::example_sample("", index).sample_id; }
  SampleRecord sample(size_t point, int64_t index) const {
    SampleRecord sample = testing::example_sample(id(point), index);
    sample.scores = {{"exact_match", static_cast<double>((index + static_cast<int64_t>(point)) % 3 > 0)}};
    sample.kl = {static_cast<float>(point) * 0.25f, static_cast<float>(index) * 0.5f};
    sample.compressed_reads = point == 0 ? 0 : 10;
    sample.time.prefill_ms = static_cast<double>(100 * index);
    if (index > 0) sample.time.decode_ms_per_token.reset();
    return sample;
  }
  ShardGroup group(int64_t samples = kSamples, std::vector<size_t> points = {0, 1, 2}) const {
    ShardGroup group{id(0), 0, {}, {}};
    for (int64_t i = 0; i < samples; ++i) group.samples.push_back(sample_id(i));
    for (const size_t point : points)
      group.points.push_back({static_cast<int64_t>(point), point == 0, records_[point]});
    return group;
  }
  // What a process with --shard leaves behind; `without`: ids of samples that it has not come to.
  void run(const fs::path& directory, const Shard& shard, const std::vector<std::string>& without = {}) const {
    Store store(directory, ids(), shard);
    store.require_facts({{"weights of m", "123"}});
    store.append(group());
    for (int64_t i = 0; i < kSamples; ++i) {
      if (!shard.takes(id(0), sample_id(i)) || std::ranges::count(without, sample_id(i)) > 0) continue;
      store.append(std::vector{sample(0, i), sample(1, i), sample(2, i)});
    }
  }
  std::string records_of_unsharded(const fs::path& directory) const {
    {
      Store store(directory, ids());
      for (int64_t i = 0; i < kSamples; ++i) store.append(std::vector{sample(0, i), sample(1, i), sample(2, i)});
      for (size_t point = 0; point < 3; ++point) {
        Record record = records_[point];
        record.error.clear();
        std::vector<SampleRecord> own, reference;
        for (int64_t i = 0; i < kSamples; ++i) {
          own.push_back(store.samples().at({id(point), sample_id(i)}));
          reference.push_back(store.samples().at({id(0), sample_id(i)}));
        }
        summarize(record, own, reference, point == 0);
        store.append(record);
      }
    }
    return read_text(directory / "records.jsonl");
  }

 private:
  std::vector<Record> records_;
};

std::string records_in(const fs::path& directory) {
  return read_text(directory / "records.jsonl");
}

std::vector<std::string> lines_of(const fs::path& file) {
  std::istringstream in(read_text(file));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("shards of one directory merge into the records of a run without shards") {
  const TemporaryDirectory root;
  const Sweep sweep;
  const std::string expected = sweep.records_of_unsharded(root.path() / "whole");
  for (const int64_t count : {1, 2, 3}) {
    const fs::path directory = root.path() / std::to_string(count);
    for (int64_t index = 1; index <= count; ++index) sweep.run(directory, {index, count});
    CHECK_FALSE(fs::exists(directory / "records.jsonl"));
    const MergeResult result = merge_shards({directory}, std::nullopt);
    CHECK(result.incomplete.empty());
    CHECK(result.duplicates == 0);
    CHECK(result.records == 3);
    CHECK(result.samples == 3 * kSamples);
    CHECK(result.shards == count);
    CHECK(records_in(directory) == expected);
    CHECK(read_records(directory).size() == 3);
  }
}

TEST_CASE("directories, files and lines merge alike in every order, into a directory that can be gone on with") {
  const TemporaryDirectory root;
  const Sweep sweep;
  const std::string expected = sweep.records_of_unsharded(root.path() / "whole");
  std::vector<fs::path> directories;
  for (int64_t index = 1; index <= 3; ++index) {
    directories.push_back(root.path() / ("part" + std::to_string(index)));
    sweep.run(directories.back(), {index, 3});
  }
  std::sort(directories.begin(), directories.end());
  std::string samples;
  do {
    const fs::path out = root.path() / "out";
    CHECK(merge_shards(directories, out).incomplete.empty());
    CHECK(records_in(out) == expected);
    if (samples.empty()) samples = read_text(out / "samples.jsonl");
    CHECK(read_text(out / "samples.jsonl") == samples);
    fs::remove_all(out);
    for (const fs::path& directory : directories) {  // lines in another order too
      const fs::path file = directory / shards_in(directory, "samples").front().file("samples");
      std::vector<std::string> lines = lines_of(file);
      std::rotate(lines.begin(), lines.begin() + 1, lines.end());
      write_text(file, join(lines, "\n") + "\n");
    }
  } while (std::next_permutation(directories.begin(), directories.end()));
  CHECK(
      merge_shards({directories[0], directories[1], directories[2], directories[0]}, root.path() / "out").duplicates ==
      0);
  const Store store(root.path() / "out", sweep.ids());
  CHECK(store.finished().size() == 3);
  CHECK(store.samples().size() == 3 * kSamples);
}

TEST_CASE("missing samples leave a point incomplete and name the shard that should have them") {
  const TemporaryDirectory root;
  const Sweep sweep;
  int64_t index = 0;
  while (!Shard{2, 2}.takes(sweep.id(0), Sweep::sample_id(index))) ++index;
  sweep.run(root.path(), {1, 2});
  sweep.run(root.path(), {2, 2}, {Sweep::sample_id(index)});
  const MergeResult result = merge_shards({root.path()}, std::nullopt);
  REQUIRE(result.incomplete.size() == 3);
  CHECK(result.records == 0);
  CHECK(result.incomplete[1].id == sweep.id(1));
  CHECK(result.incomplete[1].label == sweep.record(1).point.label());
  CHECK(result.incomplete[1].samples == kSamples - 1);
  CHECK(result.incomplete[1].of == kSamples);
  CHECK(result.incomplete[1].missing == std::vector{Sweep::sample_id(index)});
  CHECK(result.unfinished_shards == std::vector<std::string>{"2/2"});
  {
    Store store(root.path(), sweep.ids(), Shard{2, 2});  // goes on
    store.append(std::vector{sweep.sample(0, index), sweep.sample(1, index), sweep.sample(2, index)});
  }
  CHECK(merge_shards({root.path()}, std::nullopt).incomplete.empty());
  CHECK(records_in(root.path()) == sweep.records_of_unsharded(root.path() / "whole"));
}

TEST_CASE("a sample without its full-precision partner is missing, a torn line is none") {
  const TemporaryDirectory root;
  const Sweep sweep;
  sweep.run(root.path(), {1, 1});
  const fs::path file = root.path() / "samples-1-of-1.jsonl";
  std::vector<std::string> lines = lines_of(file);
  lines.erase(lines.begin());  // the reference's first sample
  write_text(file, join(lines, "\n") + "\n{\"torn");
  const MergeResult result = merge_shards({root.path()}, std::nullopt);
  REQUIRE(result.incomplete.size() == 3);
  for (const IncompletePoint& point : result.incomplete) CHECK(point.missing == std::vector{Sweep::sample_id(0)});
}

TEST_CASE("points that no shard has begun are incomplete") {
  const TemporaryDirectory root;
  const Sweep sweep;
  auto ids = sweep.ids();
  ids["zzz"] = "another point";
  { Store store(root.path(), ids, Shard{1, 1}); }
  const MergeResult none = merge_shards({root.path()}, std::nullopt);
  CHECK(none.incomplete.size() == 4);
  CHECK(none.incomplete[0].of == 0);
  {
    Store store(root.path(), ids, Shard{1, 1});
    store.append(sweep.group(1, {0, 1}));
    store.append(std::vector{sweep.sample(0, 0), sweep.sample(1, 0), sweep.sample(2, 0)});
  }
  const MergeResult some = merge_shards({root.path()}, std::nullopt);
  CHECK(some.records == 2);
  CHECK(some.incomplete.size() == 2);
}

TEST_CASE("a shard with a limit is completed by the others' longer list") {
  const TemporaryDirectory root;
  const Sweep sweep;
  {
    Store store(root.path(), sweep.ids(), Shard{1, 1});
    store.append(sweep.group(2));
    for (int64_t i : {0, 1}) store.append(std::vector{sweep.sample(0, i), sweep.sample(1, i), sweep.sample(2, i)});
  }
  merge_shards({root.path()}, std::nullopt);
  CHECK(read_records(root.path()).front().n == 2);
  {
    Store store(root.path(), sweep.ids(), Shard{1, 1});
    store.append(sweep.group());
  }
  CHECK(merge_shards({root.path()}, std::nullopt).incomplete.size() == 3);
  {
    Store store(root.path(), sweep.ids(), Shard{1, 1});
    ShardGroup other = sweep.group(3);
    std::swap(other.samples[0], other.samples[2]);
    store.append(other);
  }
  CHECK_THROWS_MATCHES(
      merge_shards({root.path()}, std::nullopt), DataError,
      MessageMatches(ContainsSubstring("groups-1-of-1.jsonl:2") && ContainsSubstring("groups-1-of-1.jsonl:3") &&
                     ContainsSubstring("different samples")));
}

TEST_CASE("equal samples are counted, times apart, and different ones are an error that names both lines") {
  const TemporaryDirectory root;
  const Sweep sweep;
  sweep.run(root.path(), {1, 2});
  sweep.run(root.path(), {2, 2});
  const std::string before = sweep.records_of_unsharded(root.path() / "whole");
  // Another machine has run all of it, slower: another count of shards may stand beside.
  const std::string key = sweep.id(1);
  {
    const fs::path other = root.path() / "other";
    Store store(other, sweep.ids(), Shard{1, 1});
    store.append(sweep.group());
    for (int64_t i = 0; i < kSamples; ++i) {
      SampleRecord slow = sweep.sample(1, i);
      slow.time = {1e6, 1e6, 1e6, std::nullopt, ""};
      store.append(std::vector{slow});
    }
  }
  const fs::path file = root.path() / "samples-1-of-1.jsonl";
  fs::copy_file(root.path() / "other/samples-1-of-1.jsonl", file);
  const MergeResult result = merge_shards({root.path()}, std::nullopt);
  CHECK(result.duplicates == kSamples);
  CHECK(result.samples == 3 * kSamples);
  CHECK(result.incomplete.empty());
  const auto kept = read_records(root.path());
  CHECK(kept[1].metrics.at("exact_match").mean == Catch::Approx(8.0 / 12));
  // From which of the two a time comes does not depend on the order of files.
  merge_shards({root.path() / "other", root.path()}, root.path() / "out1");
  merge_shards({root.path(), root.path() / "other"}, root.path() / "out2");
  CHECK(records_in(root.path() / "out1") == records_in(root.path() / "out2"));

  SampleRecord changed = sweep.sample(1, 4);
  changed.output += "x";
  write_text(file, to_json_line(sweep.sample(1, 3)) + "\n" + to_json_line(changed) + "\n");
  const std::string records = records_in(root.path());
  CHECK_THROWS_MATCHES(
      merge_shards({root.path()}, std::nullopt), DataError,
      MessageMatches(ContainsSubstring("samples-1-of-1.jsonl:2") && ContainsSubstring("-of-2.jsonl:") &&
                     ContainsSubstring("sample " + Sweep::sample_id(4) + " of point " + key + " differs")));
  CHECK(records_in(root.path()) == records);
}

TEST_CASE("which of equal samples and which session is kept does not depend on where they lie") {
  const TemporaryDirectory root;
  const Sweep sweep;
  for (const bool late : {false, true}) {
    Store store(root.path() / (late ? "late" : "early"), sweep.ids(), Shard{1, 1});
    ShardGroup group = sweep.group();
    for (ShardPoint& point : group.points) point.record.env.started_at = late ? "2026-11-23" : "2026-11-21";
    store.append(group);
    for (int64_t i = 0; i < kSamples; ++i)
      for (size_t point = 0; point < 3; ++point) {
        SampleRecord sample = sweep.sample(point, i);
        sample.time.prefill_ms += late ? 5e4 : 0;
        store.append(std::vector{sample});
      }
  }
  std::vector<std::string> merged;
  for (const bool swapped : {false, true}) {
    const fs::path place = root.path() / (swapped ? "swapped" : "straight");
    fs::create_directories(place);
    fs::copy(root.path() / "early", place / (swapped ? "2" : "1"));
    fs::copy(root.path() / "late", place / (swapped ? "1" : "2"));
    CHECK(merge_shards({place / "1", place / "2"}, place / "out").duplicates == 3 * kSamples);
    merged.push_back(records_in(place / "out"));
    for (const Record& record : read_records(place / "out")) CHECK(record.env.started_at == "2026-11-23");
  }
  CHECK(merged[0] == merged[1]);
}

TEST_CASE("a point that failed in a shard is a failed record until all of its samples are there") {
  const TemporaryDirectory root;
  const Sweep sweep;
  int64_t index = 0;
  while (!Shard{2, 2}.takes(sweep.id(0), Sweep::sample_id(index))) ++index;
  sweep.run(root.path(), {1, 2});
  {
    Store store(root.path(), sweep.ids(), Shard{2, 2});
    store.append(sweep.group());
    for (int64_t i = 0; i < kSamples; ++i)
      if (Shard{2, 2}.takes(sweep.id(0), Sweep::sample_id(i)))
        store.append(i == index ? std::vector{sweep.sample(0, i), sweep.sample(1, i)}
                                : std::vector{sweep.sample(0, i), sweep.sample(1, i), sweep.sample(2, i)});
    Record failed = sweep.record(2);
    failed.error = "out of memory";
    store.append(failed);
    CHECK(store.finished().empty());
  }
  CHECK_FALSE(fs::exists(root.path() / "records.jsonl"));
  const MergeResult result = merge_shards({root.path()}, std::nullopt);
  CHECK(result.incomplete.empty());
  CHECK(result.failed == 1);
  CHECK(result.records == 3);
  CHECK(read_records(root.path())[2].status == "failed");
  CHECK(read_records(root.path())[2].error == "out of memory");
  {
    Store store(root.path(), sweep.ids(), Shard{2, 2});
    CHECK(store.finished().size() == 2);
    store.append(std::vector{sweep.sample(2, index)});
  }
  CHECK(merge_shards({root.path()}, std::nullopt).failed == 0);
  CHECK(records_in(root.path()) == sweep.records_of_unsharded(root.path() / "whole"));
}

TEST_CASE("directories that do not belong together are refused, and nothing is written") {
  const TemporaryDirectory root;
  const Sweep sweep;
  const fs::path a = root.path() / "a", b = root.path() / "b", out = root.path() / "out";
  sweep.run(a, {1, 2});
  sweep.run(b, {2, 2});
  const auto refused = [&](const std::vector<fs::path>& directories, const std::optional<fs::path>& to,
                           const std::string& message) {
    CHECK_THROWS_MATCHES(merge_shards(directories, to), ConfigError, MessageMatches(ContainsSubstring(message)));
    CHECK_FALSE(fs::exists(out));
    CHECK_FALSE(fs::exists(a / "records.jsonl"));
  };
  refused({a, b}, std::nullopt, "--out DIR says where");
  refused({a, b}, b, "is there already");
  refused({root.path() / "none"}, std::nullopt, "none: is not a results directory");
  fs::create_directories(root.path() / "empty");
  refused({root.path() / "empty"}, std::nullopt, "empty: is not a results directory");
  sweep.records_of_unsharded(root.path() / "whole");
  refused({root.path() / "whole"}, std::nullopt, "whole: has no shards");
  { Store(b, sweep.ids(), Shard{2, 2}).require_facts({{"data of t", "1"}}); }
  { Store(a, sweep.ids(), Shard{1, 2}).require_facts({{"data of t", "2"}}); }
  refused({a, b}, out, "was made with data of t = 1, another directory with 2");
  const Store running(a, sweep.ids(), Shard{1, 2});
  refused({a}, std::nullopt, "is in use by other processes");
  CHECK(merge_shards({a}, out).incomplete.size() == 3);  // reading it is allowed
}

TEST_CASE("samples of different programs are merged with a warning, of different questions not") {
  const TemporaryDirectory root;
  const Sweep sweep;
  sweep.run(root.path(), {1, 2});
  {
    Store store(root.path(), sweep.ids(), Shard{2, 2});
    ShardGroup group = sweep.group();
    group.points[1].record.env.commit = "fedcba98";
    store.append(group);
  }
  sweep.run(root.path(), {2, 2});
  merge_shards({root.path()}, std::nullopt);
  const std::vector<Record> records = read_records(root.path());
  CHECK(records[0].warnings.empty());
  REQUIRE(records[1].warnings.size() == 1);
  CHECK_THAT(records[1].warnings[0], ContainsSubstring("fedcba98") && ContainsSubstring("0123abcd"));
  {
    Store store(root.path(), sweep.ids(), Shard{2, 2});
    ShardGroup group = sweep.group();
    group.points[1].record.nominal_k_bits = 3;
    store.append(group);
  }
  CHECK_THROWS_MATCHES(merge_shards({root.path()}, std::nullopt), DataError,
                       MessageMatches(ContainsSubstring("what they say of point " + sweep.id(1) + " differs")));
}

}  // namespace kvsweep
