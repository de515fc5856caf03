#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kvsweep {

struct CsvRow {
  std::vector<std::string> fields;
  int64_t line = 0;  // where it begins, from 1: a quoted field may hold line breaks
};

// A comma-separated file as RFC 4180 has it and Python's csv module reads it by default: fields may be quoted, "" is a
// quote within one, line breaks within quotes belong to the field; rows end with LF or CRLF; empty lines are left out.
// No header is assumed. Throws DataError "<file>:<line>: ..." for a file that cannot be read or is not UTF-8, a quote
// that is not closed or has text behind it, and a row that has not `columns` fields (0: any number).
std::vector<CsvRow> read_csv(const std::filesystem::path& file, int64_t columns);

}  // namespace kvsweep
