#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvsweep {

// What comparisons need of a line of samples.jsonl, without its texts and lists. Views last until the next line is
// read.
struct SampleLine {
  std::string_view point_id, sample_id, prompt_hash;
  int64_t index = 0, context_tokens = 0, generated = 0, positions = 0, top1_flips = 0, first_divergence = -1;
  double kl = 0, kl_max = 0;                                        // NaN: no positions
  double drift = 0, oldest = 0, full_oldest = 0;                    // NaN: none
  std::vector<std::pair<std::string_view, std::string_view>> tags;  // in the order of the line
  std::vector<std::pair<std::string_view, double>> scores;
};

// Reads lines at a gigabyte a second, where sample_from_json() reads tens of megabytes; a test holds them equal.
class SampleLineReader {
 public:
  // Bytes that must be readable behind a line.
  static constexpr size_t kPadding = 64;

  SampleLineReader();
  ~SampleLineReader();
  SampleLineReader(SampleLineReader&&) noexcept;

  // nullptr: not a line of this schema; sample_from_json() says what is wrong with it. What is skipped is not checked.
  const SampleLine* read(std::string_view line);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvsweep
