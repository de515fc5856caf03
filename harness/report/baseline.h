#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

// A baseline is one file that is kept in version control: what a results directory says of points and of the score of
// each of their items, without texts and positions. Lines: a header, the records, the samples.

// Whether a line of a baseline is a sample's.
bool is_baseline_sample(std::string_view line);

// Throws DataError: not a baseline, or of a newer form; StaleRecord: a record of an older schema, to be made again by
// `kvsweep gate --update-baseline`; the same id twice; no record.
std::vector<Record> read_baseline_records(const std::filesystem::path& path);

// In one step. `samples` of the records, in any order; texts, tokens and positions are left out.
void write_baseline(const std::filesystem::path& path, const std::vector<Record>& records,
                    const std::vector<SampleRecord>& samples);

}  // namespace kvsweep
