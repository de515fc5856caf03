#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/report/record.h"
#include "harness/report/store.h"
#include "tests/report/examples.h"
#include "tests/support/golden.h"

namespace kvsweep::testing {

// A point of a made-up sweep: full precision with k_bits 16.
struct WorldPoint {
  int k_bits = 4, v_bits = 4;
  std::string scheme = "uniform";
  // Of item i; the default is right everywhere.
  std::function<double(int64_t i)> score = [](int64_t) { return 1.0; };
  std::string status = "";  // "failed": no samples
  Fields params = {};       // in place of k_bits and v_bits
};

struct WorldGroup {
  std::string task = "needle", tokens = "512", metric = "exact_match", kind = "retrieval";
  int64_t items = 40;
  bool exponential = false, higher_is_better = true;
  std::optional<Noise> noise = {};  // of each of full precision's samples
  std::vector<WorldPoint> points;
  std::function<std::map<std::string, std::string>(int64_t i)> tags = [](int64_t i) {
    return std::map<std::string, std::string>{{"depth", std::to_string(i % 5 * 25)}};
  };
};

inline WorldPoint full_precision(std::function<double(int64_t)> score = [](int64_t) { return 1.0; }) {
  return {16, 16, "full", std::move(score), ""};
}

// A results directory as a run leaves it behind, in a temporary folder.
class ResultsWorld {
 public:
  explicit ResultsWorld(const std::vector<WorldGroup>& groups) {
    for (const WorldGroup& group : groups) add(group);
    std::map<std::string, std::string> ids;
    for (const Record& record : records_) ids[record.id] = record.point.label();
    Store store(path(), ids);
    store.append(samples_);
    for (const Record& record : records_) store.append(record);
  }
  std::filesystem::path path() const { return directory_.path() / "results"; }
  const std::vector<Record>& records() const { return records_; }
  const std::vector<SampleRecord>& samples() const { return samples_; }
  std::filesystem::path records_file() const { return path() / "records.jsonl"; }
  std::filesystem::path samples_file() const { return path() / "samples.jsonl"; }

 private:
  static Record blank(const WorldGroup& group, const WorldPoint& point) {
    Record record;
    record.point = example_record().point;
    record.point.seed = 17;
    record.point.task = group.task;
    record.point.task_params = {{"tokens", group.tokens}, {"samples", std::to_string(group.items)}};
    record.point.tokens = std::stoll(group.tokens);
    record.point.scheme = point.scheme;
    record.point.scheme_params.clear();
    if (point.k_bits < 16)
      record.point.scheme_params = {{"k_bits", std::to_string(point.k_bits)}, {"v_bits", std::to_string(point.v_bits)}};
    if (!point.params.empty()) record.point.scheme_params = point.params;
    record.nominal_k_bits = point.k_bits;
    record.nominal_v_bits = point.v_bits;
    record.primary_metric = group.metric;
    record.metric_info[group.metric] = {group.metric, group.exponential, group.higher_is_better, ""};
    record.task_kind = group.kind;
    record.env = example_record().env;
    record.id = record.point.id();
    return record;
  }

  void add(const WorldGroup& group) {
    std::vector<SampleRecord> reference;
    std::string reference_id;
    for (const WorldPoint& point : group.points)
      if (point.k_bits == 16) {
        reference_id = blank(group, point).id;
        reference = samples_of(group, point, reference_id);
      }
    for (const WorldPoint& point : group.points) {
      Record record = blank(group, point);
      record.reference_id = reference_id;
      if (point.status == "failed") {
        record.status = "failed";
        record.error = "out of memory";
      } else {
        const std::vector<SampleRecord> own = samples_of(group, point, record.id);
        summarize(record, own, reference, point.k_bits == 16);
        samples_.insert(samples_.end(), own.begin(), own.end());
      }
      records_.push_back(std::move(record));
    }
  }

  static std::vector<SampleRecord> samples_of(const WorldGroup& group, const WorldPoint& point, const std::string& id) {
    std::vector<SampleRecord> samples;
    for (int64_t i = 0; i < group.items; ++i) {
      SampleRecord sample = example_sample(id, i);
      sample.sample_id = "s" + std::to_string(i);
      sample.prompt_hash = group.task + group.tokens + "/" + std::to_string(i);
      sample.tags = group.tags(i);
      sample.scores = {{group.metric, point.score(i)}};
      sample.kl.assign(3, point.k_bits == 16 ? 0.0f : 1.0f / static_cast<float>(1 << point.k_bits));
      sample.output = point.k_bits == 16 ? "the answer is 42" : "the answer is " + std::to_string(point.k_bits);
      sample.first_divergence = point.k_bits == 16 ? -1 : 2;
      sample.noise = point.k_bits == 16 ? group.noise : std::nullopt;
      sample.attention.reset();
      sample.compressed_reads = point.k_bits == 16 ? 0 : 100;
      sample.bytes.live = sample.bytes.values * (point.k_bits + point.v_bits) / 16;
      samples.push_back(std::move(sample));
    }
    return samples;
  }

  TemporaryDirectory directory_;
  std::vector<Record> records_;
  std::vector<SampleRecord> samples_;
};

}  // namespace kvsweep::testing
