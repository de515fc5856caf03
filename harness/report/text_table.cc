#include "harness/report/text_table.h"

#include <algorithm>
#include <functional>

namespace kvsweep {
namespace {

// As wide as it looks: UTF-8 characters, without colour sequences (ESC [ ... m).
size_t characters(const std::string& text) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b')
      i = std::min(text.find('m', i), text.size());
    else
      count += (text[i] & 0xC0) != 0x80;
  }
  return count;
}

std::vector<std::string> titles(const TextTable& table) {
  std::vector<std::string> titles;
  for (const TextColumn& column : table.columns) titles.push_back(column.title);
  return titles;
}

std::string escaped(const std::string& cell, const std::string& special, const std::function<std::string(char)>& with) {
  std::string out;
  for (const char c : cell) out += special.find(c) == std::string::npos ? std::string(1, c) : with(c);
  return out;
}

std::string markdown_row(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells)
    line += " " + escaped(cell, "|\n", [](char c) { return c == '|' ? "\\|" : " "; }) + " |";
  return line + "\n";
}

}  // namespace

std::string to_terminal(const TextTable& table) {
  std::vector<std::vector<std::string>> lines = table.rows;
  lines.insert(lines.begin(), titles(table));
  std::vector<size_t> widths(table.columns.size());
  for (const auto& cells : lines)
    for (size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], characters(cells[i]));
  std::string out;
  for (const auto& cells : lines) {
    std::string line;
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string padding(widths[i] - characters(cells[i]), ' ');
      line += (i > 0 ? "  " : "") + (table.columns[i].left ? cells[i] + padding : padding + cells[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string to_markdown(const TextTable& table) {
  std::string out = markdown_row(titles(table)) + "|";
  for (const TextColumn& column : table.columns) out += column.left ? " :--- |" : " ---: |";
  out += "\n";
  for (const auto& cells : table.rows) out += markdown_row(cells);
  return out;
}

std::string csv_row(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (i > 0) line += ',';
    if (cells[i].find_first_of(",\"\r\n") == std::string::npos)
      line += cells[i];
    else
      line += '"' + escaped(cells[i], "\"", [](char) { return "\"\""; }) + '"';
  }
  return line + "\n";
}

std::string to_csv(const TextTable& table) {
  std::string out = csv_row(titles(table));
  for (const auto& cells : table.rows) out += csv_row(cells);
  return out;
}

}  // namespace kvsweep
