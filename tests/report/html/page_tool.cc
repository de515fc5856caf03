// Makes what tests in Python look at.
//
//   kvsweep_page_tool page RESULTS FILE                       the page of a results directory
//   kvsweep_page_tool lm-eval RESULTS DIRECTORY               the export in the layout of lm-evaluation-harness
//   kvsweep_page_tool synthetic GROUPS CONFIGURATIONS SAMPLES DIRECTORY [GRADED]
//                                                             made-up results: GROUPS x CONFIGURATIONS records; in
//                                                             GRADED of them (a share, 0) scores are graded, not 0/1
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "harness/core/random.h"
#include "harness/report/export/lm_eval.h"
#include "harness/report/html/page.h"
#include "tests/report/examples.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

// A configuration: full precision first, then K and V bits over several schemes.
Point point_of(int64_t group, int64_t configuration) {
  static constexpr const char* kSchemes[] = {"uniform", "kivi", "ggml", "quanto", "rotated"};
  static constexpr int kBits[] = {2, 3, 4, 8};
  Point point = testing::example_record().point;
  point.task = group % 2 == 0 ? "needle" : "recall";
  point.tokens = 512 * (1 + group / 2);
  point.task_params = {{"tokens", std::to_string(point.tokens)}};
  point.seed = 17;
  point.scheme = "full";
  point.scheme_params.clear();
  if (configuration == 0) return point;
  const int64_t c = configuration - 1;
  point.scheme = kSchemes[c / 16 % 5];
  point.scheme_params = {{"k_bits", std::to_string(kBits[c / 4 % 4])},
                         {"v_bits", std::to_string(kBits[c % 4])},
                         {"group", std::to_string(32 * (1 + c / 80))}};
  return point;
}

class Synthetic {
 public:
  Synthetic(int64_t samples, double graded, const fs::path& directory) : samples_(samples), graded_(graded) {
    fs::create_directories(directory);
    records_.open(directory / "records.jsonl");
    lines_.open(directory / "samples.jsonl");
  }

  void add(int64_t group, int64_t configurations) {
    std::vector<SampleRecord> reference;
    for (int64_t c = 0; c < configurations; ++c) {
      Record record = testing::example_record();
      record.point = point_of(group, c);
      record.id = record.point.id();
      if (c == 0) reference_id_ = record.id;
      record.reference_id = reference_id_;
      record.metrics.clear();
      record.breakdown.clear();
      record.warnings.clear();
      const Fields& params = record.point.scheme_params;
      record.nominal_k_bits = c == 0 ? 16 : std::stod(params[0].second);
      record.nominal_v_bits = c == 0 ? 16 : std::stod(params[1].second);
      const std::vector<SampleRecord> own = samples_of(group, c, record, reference);
      if (c == 0) reference = own;
      summarize(record, own, reference, c == 0);
      for (const SampleRecord& sample : own) lines_ << to_json_line(sample) << '\n';
      records_ << to_json_line(record) << '\n';
    }
  }

 private:
  std::vector<SampleRecord> samples_of(int64_t group, int64_t c, const Record& record,
                                       const std::vector<SampleRecord>& reference) {
    const double bits = (record.nominal_k_bits + record.nominal_v_bits) / 2;
    const double lossy = c == 0 ? 0 : std::exp2(-bits);
    std::vector<SampleRecord> out;
    for (int64_t i = 0; i < samples_; ++i) {
      SampleRecord sample = testing::example_sample(record.id, i);
      sample.sample_id = fmt::format("s{:05}", i);
      sample.prompt_hash = fmt::format("{:064x}", group * 1000003 + i);
      sample.tags = {{"depth", std::to_string(i % 10 * 11)}};
      const bool right = c == 0 ? random_.below(10) > 0 : reference[static_cast<size_t>(i)].scores.begin()->second > 0;
      const bool flips = c > 0 && random_.uniform() < lossy,
                 differs = flips || (c > 0 && random_.uniform() < 4 * lossy);
      sample.scores = {{"exact_match", graded(group)    ? std::round(1000 * random_.uniform()) / 1000
                                       : right != flips ? 1.0
                                                        : 0.0}};
      sample.kl.clear();
      for (int position = 0; position < 12; ++position)
        sample.kl.push_back(c == 0 ? 0.0f : static_cast<float>(lossy * random_.uniform()));
      sample.output = c > 0 && !differs ? reference[static_cast<size_t>(i)].output : text();
      sample.first_divergence = differs ? 3 : -1;
      sample.noise.reset();
      sample.bytes.live = static_cast<int64_t>(static_cast<double>(sample.bytes.values) * bits / 8);
      out.push_back(std::move(sample));
    }
    return out;
  }
  std::string text() {
    static constexpr const char* kWords[] = {"the", "answer", "is", "number", "of",
                                             "a",   "magic",  "in", "text",   "seven"};
    std::string out;
    for (int word = 0; word < 24; ++word) out += fmt::format("{}{} ", kWords[random_.below(10)], random_.below(100));
    return out;
  }

  // The share of the groups so far that are graded is the one that was asked for.
  bool graded(int64_t group) const {
    return std::floor(graded_ * static_cast<double>(group + 1)) > std::floor(graded_ * static_cast<double>(group));
  }

  int64_t samples_;
  double graded_;
  std::ofstream records_, lines_;
  std::string reference_id_;
  Rng random_{17};
};

int run(const std::vector<std::string>& arguments) {
  if (arguments.size() == 3 && arguments[0] == "page") {
    write_page(arguments[2], analyse(read_results(arguments[1])));
    return 0;
  }
  if (arguments.size() == 3 && arguments[0] == "lm-eval") {
    write_lm_eval(read_results(arguments[1]), arguments[2]);
    return 0;
  }
  if ((arguments.size() == 5 || arguments.size() == 6) && arguments[0] == "synthetic") {
    Synthetic synthetic(std::stoll(arguments[3]), arguments.size() == 6 ? std::stod(arguments[5]) : 0, arguments[4]);
    for (int64_t group = 0; group < std::stoll(arguments[1]); ++group) synthetic.add(group, std::stoll(arguments[2]));
    return 0;
  }
  fmt::print(stderr,
             "usage: page RESULTS FILE | lm-eval RESULTS DIRECTORY | synthetic GROUPS CONFIGURATIONS SAMPLES DIRECTORY "
             "[GRADED]\n");
  return 2;
}

}  // namespace
}  // namespace kvsweep

int main(int argc, char** argv) {
  try {
    return kvsweep::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
