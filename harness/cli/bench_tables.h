#pragma once

#include <string>
#include <vector>

#include "harness/report/text_table.h"
#include "harness/run/bit_factorial.h"
#include "harness/run/one_pass_bench.h"
#include "harness/run/scheme_bench.h"
#include "harness/run/step_bench.h"

namespace kvsweep {

// What a row is about: a scheme's name and its parameters as text.
struct BenchRow {
  std::string scheme, parameters;
};

// One row a scheme, in the order given. Times are medians, followed by their quartiles "low-high"; after +- stands one
// standard error.
TextTable encode_table(const EncodeBench& bench, const std::vector<BenchRow>& rows);
TextTable decode_table(const std::vector<DecodeBench>& benches, const std::vector<BenchRow>& rows);
TextTable itl_table(const std::vector<ItlCost>& costs, const std::vector<BenchRow>& rows);
TextTable itl_fit_table(const std::vector<ItlCost>& costs, const std::vector<BenchRow>& rows);
TextTable concurrency_table(const std::vector<ConcurrencyCost>& costs, const std::vector<BenchRow>& rows,
                            int64_t tokens);
TextTable one_pass_table(const std::vector<OnePassCost>& costs, const std::vector<BenchRow>& rows);
TextTable factorial_table(const BitFactorial& bench);
TextTable factorial_fit_table(const BitFactorial& bench);

}  // namespace kvsweep
