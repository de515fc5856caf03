#pragma once

#include <string>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

// One row a record, failed ones too, in the order given, always the same columns; recorded numbers in their shortest
// exact form, an empty cell for what a record has not. Parameters are one cell, "k_bits=4 v_bits=2". `score` and
// `delta` are as tables show them, to 12 digits, `mean` and `mean_delta` as recorded.
std::string records_csv(const std::vector<Record>& records);

}  // namespace kvsweep
