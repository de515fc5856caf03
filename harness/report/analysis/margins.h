#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>

#include "harness/report/analysis/analysis.h"
#include "harness/report/statistics/margin.h"

namespace kvsweep {

// Losses that are suggested as bearable: of scores in [0, 1] in their units, of perplexities as a share.
struct SuggestedMargin {
  double bits = 0, loss = 0;
};
inline constexpr SuggestedMargin kSuggestedMargins[] = {{8, 0.005}, {4, 0.01}, {3, 0.02}, {2, 0.04}};

// Of the fewest listed bits that are no fewer than the mean of the nominal K and V bits: K8V4 is held to the 8-bit one.
double suggested_margin(double k_bits, double v_bits);

struct Judged {
  double margin = 0;  // in the units of the loss
  NonInferiority result;
};

// Whether losses keep below their suggested margins, by non_inferiority(): a gate's verdict. Of a ratio metric losses
// are logarithms, and so is the margin. Items of the same weight that are only lost, gained or equal are judged by how
// many they are, and once for all points where they are as many. Safe to share among threads.
class Judge {
 public:
  // None where scores are not numbers.
  std::optional<Judged> operator()(const PairedScores& scores, const Record& record);

 private:
  using Counts = std::tuple<double, int64_t, int64_t, int64_t>;  // margin, items, lost, gained
  std::mutex mutex_;
  std::map<Counts, NonInferiority> known_;
};

}  // namespace kvsweep
