#pragma once

#include <string>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

enum class TableFormat { kTerminal, kMarkdown, kCsv };

// For each model, task (with its other parameters), length and view: one row a scheme configuration, sorted by scheme
// and bits, with score +- standard error, paired difference to full, KL, flips, effective bits, bytes/token, ms/token,
// n; then, for terminal and Markdown, a K bits x V bits grid of the score for each scheme that has more than one pair
// of bits. Views are never mixed in one table. Failed points are listed below with their error. A pure function of
// records.
std::string render_tables(const std::vector<Record>& records, TableFormat format);

}  // namespace kvsweep
