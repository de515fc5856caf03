#pragma once

#include <string>
#include <vector>

namespace kvsweep {

struct TextColumn {
  std::string title;
  bool left = false;  // aligned left: names; else right: numbers
};

// Rows of finished cells. Every row has a cell for each column.
struct TextTable {
  std::vector<TextColumn> columns;
  std::vector<std::vector<std::string>> rows;
};

// Padded columns, two spaces apart, no lines and no trailing spaces. Widths count UTF-8 characters, not colour
// sequences.
std::string to_terminal(const TextTable& table);
std::string to_markdown(const TextTable& table);
// RFC 4180 quoting, "\n" line ends.
std::string to_csv(const TextTable& table);
std::string csv_row(const std::vector<std::string>& cells);

}  // namespace kvsweep
