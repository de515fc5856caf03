#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/report/analysis/analysis.h"
#include "harness/report/analysis/family.h"

namespace kvsweep {

// Comparison::metric of samples' mean KL.
inline constexpr const char* kKlMetric = "KL";

// Which of keys and values is more sensitive: configurations of one family with the same two widths the other way
// round, K low V high against K high V low, on the same items. Nominal bits are equal in sum; effective bits need not
// be (a scheme may store more beside its keys) and stand beside.
struct KeyValueContrast {
  std::string family;
  double low = 0, high = 0;                       // nominal bits, low < high
  const Group* group = nullptr;                   // of one task and length
  const Pool* pool = nullptr;                     // or of all groups of a pool, each of the same weight
  double low_keys_bits = 0, low_values_bits = 0;  // effective, means over groups
  // Positive: the configuration with low keys is the worse one, keys are more sensitive. Of the primary metric, and of
  // the samples' mean KL to full precision in nats.
  std::optional<Comparison> score, kl;
  std::string gap;                   // why there is neither
  std::vector<std::string> records;  // ids, low keys first
};

// "keys", "values", "not shown" (`detectable` says what would have been), "no answer" where there is no interval.
std::string sensitive(const Comparison& contrast);

// What a nominal bit of keys and a bit of values cost a family in one group: y ~ 1 + K bits + V bits by least squares.
struct KeyValueSlopes {
  double keys = 0, values = 0, at_mean = 0;                      // at_mean: y at the mean of the bits
  Interval keys_interval, values_interval, difference_interval;  // difference: keys less values
  // Two-sided, of equal slopes. Slopes that differ by less than a millionth of the larger are equal: p is 1.
  double difference_p = 1;
  int points = 0;
};

struct KeyValueCosts {
  std::string family;
  const Group* group = nullptr;
  double mean_k = 0, mean_v = 0;  // nominal bits
  std::optional<KeyValueSlopes> bytes_per_token, decode_ms_per_token;
  std::string bytes_gap, time_gap;  // what is missing for each
  // Caches of the group's length that a GiB holds at the mean of the bits, and how many more for a bit less of either.
  double sequences = 0, sequences_per_key_bit = 0, sequences_per_value_bit = 0;
  std::vector<std::string> records;
};

struct KeyOrValue {
  std::vector<KeyValueContrast> groups, pools;
  std::vector<KeyValueCosts> costs;
};

// p is adjusted over all contrasts of groups, and over all of pools, score and KL each on its own.
KeyOrValue key_or_value(const Analysis& analysis, const Families& families);

}  // namespace kvsweep
