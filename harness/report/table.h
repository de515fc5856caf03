#pragma once

#include <string>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

enum class TableFormat { kTerminal, kMarkdown, kCsv };

// A pure function of records.
//
// Terminal and Markdown: a table for each set of records that were made under the same rules: model and weights, task
// with its parameters and data, view, seed, metric. Its caption says which. A row is one configuration of a scheme,
// the reference first, then by scheme and bits. Columns: scheme; nominal K and V bits; each parameter whose value
// differs within the table (one that merely repeats the bits is left out); score +- standard error, perplexity being
// exp(mean nll) (see shown.h); paired difference to the reference; mean KL divergence (nats); share of positions whose
// most likely token differs; nominal bits, the mean of K and V, beside effective bits; bytes a token; ms a token; n.
// A point that read nothing compressed has "not engaged" for a score. Below: failed points with their error, warnings,
// then for each scheme that ran with more than one pair of bits the grid K bits x V bits of score and of KL.
//
// CSV: one row a record, see table_csv.h.
//
// Throws DataError for a record that lacks its own primary metric.
std::string render_tables(const std::vector<Record>& records, TableFormat format);

}  // namespace kvsweep
