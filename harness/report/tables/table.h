#pragma once

#include <optional>
#include <string>
#include <vector>

#include "harness/report/text_table.h"

namespace kvsweep {

enum class TableFormat { kTerminal, kMarkdown, kCsv, kLatex };

struct Cell {
  std::string text;             // of terminal and Markdown
  std::string latex;            // LaTeX source; "": the text, escaped
  bool number = false;          // the text is a decimal number: aligned at its point in LaTeX
  bool strong = false;          // a difference that is significant: bold in LaTeX and Markdown
  std::optional<double> shade;  // heat map: 0 (bad) to 1 (good)
};

struct Column {
  std::string title;
  bool left = false;     // aligned left: names; else right: numbers
  bool on_paper = true;  // also in LaTeX, where a page is narrower
};

struct Table {
  std::string title;
  int level = 3;                   // of the heading in Markdown
  std::vector<std::string> about;  // the rules that it was made under, a line each
  std::string commits;             // of the program: LaTeX captions say it, other formats have it in CSV
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
  std::vector<std::string> notes;  // what is missing and why, and other things to know, a line each
};

// What is shown at once. CSV is not the tables as they look but one long table, a line each number: the same columns
// whatever the results, recorded numbers in their shortest exact form, others to 12 digits, an empty cell for what
// there is not.
struct Document {
  std::vector<Table> tables;
  std::vector<std::string> legend;  // how columns are to be read
  TextTable csv;
};

struct RenderOptions {
  TableFormat format = TableFormat::kTerminal;
  bool colour = false;  // terminal: heat maps in colours of the 256-colour palette, else with block characters
};

// Whether what is written there is to be coloured: a terminal, and $NO_COLOR is not set to anything
// (https://no-color.org).
bool colour_wanted(int descriptor);

// LaTeX: a table environment for each table (booktabs, siunitx), behind comments that name the packages; compiles as
// it stands in a document that loads them. Headings become captions. Any text is escaped.
std::string render(const Document& document, const RenderOptions& options);

// Text as LaTeX shows it: its ten special characters escaped, characters beyond Latin-1 that these tables use spelled
// out, control characters dropped.
std::string latex_escaped(const std::string& text);

}  // namespace kvsweep
