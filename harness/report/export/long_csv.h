#pragma once

#include <cstdint>
#include <ostream>

#include "harness/report/analysis/results.h"

namespace kvsweep {

// Long form: one row a sample and metric, for pandas, in the order of records, items and metrics' names; RFC 4180 with
// "\n" line ends. Facts of the point and of the sample are repeated in each row. Numbers are in their shortest exact
// form, an empty cell is what there is not; a point without samples has one row, whose `gap` says why. Rows are written
// as they are made.
//
// `value` is the sample's as scored (nats for a perplexity), kl and kl_max are over the sample's positions in nats,
// top1_flips counts positions, tags are "name=value" joined by ";".
//
// Returns the number of rows. Throws DataError when `out` fails.
int64_t write_long_csv(const Results& results, std::ostream& out);

}  // namespace kvsweep
