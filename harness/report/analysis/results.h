#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

// What configurations are paired by: one prompt of a task.
struct Item {
  std::string sample_id, prompt_hash;
  std::vector<std::pair<std::string, std::string>> tags;  // by name

  const std::string* tag(std::string_view name) const;  // nullptr: none
};

// Where a sample's line lies.
struct LinePlace {
  uint64_t offset = 0;
  uint32_t bytes = 0, file = 0;
};

// What comparisons need of a point's samples, as columns in the task's order.
struct PointSamples {
  std::vector<std::string> metrics;         // names, sorted
  std::vector<std::vector<double>> scores;  // of each metric, one a sample
  std::vector<uint32_t> item;               // index into Results::items()
  std::vector<float> kl, kl_max;            // mean and maximum over the sample's positions; NaN: none
  std::vector<int32_t> positions, top1_flips, first_divergence, generated, context_tokens;
  std::vector<float> drift, oldest, full_oldest;  // AttentionDrift; NaN: none
  std::vector<LinePlace> line;

  size_t size() const { return item.size(); }
  // nullptr: the samples lack it.
  const std::vector<double>* find(std::string_view metric) const;
};

// A results directory, or a baseline (one file, see baseline.h), in memory: records, and columns of their samples. The
// texts stay on the disk. Neither order nor shards of the lines show.
class Results {
 public:
  const std::filesystem::path& path() const { return path_; }
  // Last of each id, by task, then scheme and bits; numbers in names count as numbers.
  const std::vector<Record>& records() const { return records_; }
  const std::vector<Item>& items() const { return items_; }
  // Of a point; nullptr: it has none here (it failed, or its directory was thinned out).
  const PointSamples* samples(const std::string& point_id) const;
  // What LinePlace::file counts.
  const std::vector<std::filesystem::path>& files() const { return files_; }
  // The whole line again. Throws DataError when the file is gone or has changed.
  SampleRecord read_sample(const LinePlace& place) const;

 private:
  friend class ResultsReader;
  std::filesystem::path path_;
  std::vector<Record> records_;
  std::vector<Item> items_;
  std::map<std::string, PointSamples> samples_;
  std::vector<std::filesystem::path> files_;
};

// Reads a directory, or a baseline file. Throws DataError: no records; a damaged line (file and line), a record of an
// older schema, two lines for one sample of a point whose scores or prompts differ (both places).
Results read_results(const std::filesystem::path& path, int threads = 2);

// Order of records in every table: model, task and its parameters, view, seed, then scheme (full first), bits and
// parameters. Runs of digits compare as numbers.
bool before(const Record& a, const Record& b);

}  // namespace kvsweep
