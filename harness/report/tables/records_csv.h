#pragma once

#include "harness/report/tables/tables.h"

namespace kvsweep {

// One row a record, failed ones too, always the same columns; recorded numbers in their shortest exact form, an empty
// cell for what a record has not. Parameters are one cell, "k_bits=4 v_bits=2". `score` and `delta` are as recorded and
// shown, to 12 digits, `mean` and `mean_delta` as recorded (own less reference); `loss` and what follows it are of the
// paired comparison of samples, `gap` says why there is none.
TextTable records_csv(const TableContext& context);

}  // namespace kvsweep
