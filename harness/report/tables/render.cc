#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>

#include "harness/core/error.h"
#include "harness/report/tables/table.h"

namespace kvsweep {
namespace {

constexpr const char* kBlocks[] = {"█", "▓", "▒", "░", " "};  // the darker, the worse

// Colours of the 256-colour palette from bad to good, which differ in lightness too, with the text's colour on them.
struct Shade {
  int background, text;
};
constexpr std::array<Shade, 6> kShades = {{{52, 231}, {88, 231}, {130, 231}, {178, 16}, {150, 16}, {194, 16}}};

template <typename Scale>
const auto& step_of(const Scale& scale, double shade) {
  const auto last = static_cast<double>(std::size(scale) - 1);
  return scale[static_cast<size_t>(std::lround(std::clamp(shade, 0.0, 1.0) * last))];
}

// Widths in to_terminal() do not count the sequences.
std::string coloured(const std::string& text, double shade) {
  const Shade& colour = step_of(kShades, shade);
  return fmt::format("\x1b[48;5;{};38;5;{}m{}\x1b[0m", colour.background, colour.text, text);
}

std::string text_of(const Cell& cell, const RenderOptions& options) {
  if (options.format == TableFormat::kMarkdown) return cell.strong ? "**" + cell.text + "**" : cell.text;
  if (!cell.shade) return cell.text;
  return options.colour ? coloured(cell.text, *cell.shade) : cell.text + step_of(kBlocks, *cell.shade);
}

std::string table_text(const Table& table, const RenderOptions& options) {
  TextTable text;
  for (const Column& column : table.columns) text.columns.push_back({column.title, column.left});
  for (const auto& row : table.rows) {
    auto& cells = text.rows.emplace_back();
    for (const Cell& cell : row) cells.push_back(text_of(cell, options));
  }
  return options.format == TableFormat::kMarkdown ? to_markdown(text) : to_terminal(text);
}

std::string terminal(const Table& table, const RenderOptions& options) {
  std::string out = table.title + "\n";
  for (const std::string& line : table.about) out += line + "\n";
  if (!table.rows.empty()) out += table_text(table, options);
  if (!table.rows.empty() && !table.notes.empty()) out += "\n";
  for (const std::string& note : table.notes) out += note + "\n";
  return out;
}

// A line break or a pipe in a text is a table's or a heading's end.
std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string markdown(const Table& table, const RenderOptions& options) {
  std::string out = fmt::format("{} {}\n\n", std::string(static_cast<size_t>(table.level), '#'), one_line(table.title));
  for (const std::string& line : table.about) out += one_line(line) + "\n";
  if (!table.about.empty()) out += "\n";
  if (!table.rows.empty()) out += table_text(table, options);
  if (!table.rows.empty() && !table.notes.empty()) out += "\n";
  for (const std::string& note : table.notes) out += "- " + one_line(note) + "\n";
  return out;
}

// --- LaTeX

constexpr const char* kPreamble =
    "% Needs in the preamble:\n"
    "% \\usepackage[utf8]{inputenc}\n"
    "% \\usepackage[T1]{fontenc}\n"
    "% \\usepackage{booktabs}\n"
    "% \\usepackage{siunitx}\n";

// Digits before and behind the point of a column's numbers.
struct NumberFormat {
  size_t integer = 1, decimal = 0;
  bool signs = false, any = false;
};

// None where a number of the column has an exponent or is not finite.
std::optional<NumberFormat> number_format(const Table& table, size_t column) {
  NumberFormat out;
  for (const auto& row : table.rows) {
    const Cell& cell = row[column];
    if (!cell.number) {
      if (!cell.latex.empty()) return std::nullopt;
      continue;
    }
    std::string digits = cell.text;
    if (digits.empty() || digits.find_first_not_of("+-0123456789.") != std::string::npos) return std::nullopt;
    if (digits[0] == '+' || digits[0] == '-') {
      out.signs = true;
      digits.erase(0, 1);
    }
    const size_t point = std::min(digits.find('.'), digits.size());
    out.integer = std::max(out.integer, point);
    out.decimal = std::max(out.decimal, point == digits.size() ? 0 : digits.size() - point - 1);
    out.any = true;
  }
  if (!out.any) return std::nullopt;
  return out;
}

std::string strong(const std::string& source, bool is) {
  return is ? "{\\bfseries\\boldmath " + source + "}" : source;
}

std::string latex_cell(const Cell& cell, bool aligned) {
  if (aligned)
    return cell.number ? (cell.strong ? "\\bfseries " : "") + cell.text : "{" + latex_escaped(cell.text) + "}";
  if (!cell.latex.empty()) return strong(cell.latex, cell.strong);
  const bool finite = cell.number && cell.text.find_first_not_of("+-0123456789.e") == std::string::npos;
  return strong(finite ? "\\num{" + cell.text + "}" : latex_escaped(cell.text), cell.strong);
}

std::string latex_row(const std::vector<std::string>& cells) {
  return "    " + join(cells, " & ") + " \\\\\n";
}

std::string latex(const Table& table) {
  std::string about = latex_escaped(table.title);
  for (const std::string& line : table.about) about += ". " + latex_escaped(line);
  if (!table.commits.empty()) about += ". kvsweep " + latex_escaped(table.commits);
  std::string out = "\n\\begin{table}[htbp]\n  \\centering\n  \\footnotesize\n  \\setlength{\\tabcolsep}{4pt}\n";
  out += "  \\caption{" + about + ".}\n";
  if (!table.rows.empty()) {
    std::string spec;
    std::vector<std::string> titles;
    std::vector<std::pair<size_t, bool>> columns;  // index, aligned at the point
    for (size_t c = 0; c < table.columns.size(); ++c) {
      const Column& column = table.columns[c];
      if (!column.on_paper) continue;
      const std::optional<NumberFormat> numbers = column.left ? std::nullopt : number_format(table, c);
      if (numbers)
        spec += fmt::format("S[table-format={}{}.{}]", numbers->signs ? "+" : "", numbers->integer, numbers->decimal);
      else
        spec += column.left ? "l" : "r";
      titles.push_back("{" + latex_escaped(column.title) + "}");
      columns.emplace_back(c, numbers.has_value());
    }
    out += "  \\begin{tabular}{" + spec + "}\n    \\toprule\n" + latex_row(titles) + "    \\midrule\n";
    for (const auto& row : table.rows) {
      std::vector<std::string> cells;
      for (const auto& [c, aligned] : columns) cells.push_back(latex_cell(row[c], aligned));
      out += latex_row(cells);
    }
    out += "    \\bottomrule\n  \\end{tabular}\n";
  }
  for (const std::string& note : table.notes) out += "  \\par\\smallskip\\raggedright " + latex_escaped(note) + "\n";
  return out + "\\end{table}\n";
}

}  // namespace

std::string latex_escaped(const std::string& text) {
  static const std::map<std::string, std::string> known = {{"\\", "\\textbackslash{}"},
                                                           {"{", "\\{"},
                                                           {"}", "\\}"},
                                                           {"$", "\\$"},
                                                           {"&", "\\&"},
                                                           {"#", "\\#"},
                                                           {"%", "\\%"},
                                                           {"_", "\\_"},
                                                           {"~", "\\textasciitilde{}"},
                                                           {"^", "\\textasciicircum{}"},
                                                           {"<", "\\textless{}"},
                                                           {">", "\\textgreater{}"},
                                                           {"|", "\\textbar{}"},
                                                           {"[", "{[}"},
                                                           {"]", "{]}"},
                                                           {"\"", "\\textquotedbl{}"},
                                                           {"±", "$\\pm$"},
                                                           {"×", "$\\times$"},
                                                           {"≤", "$\\le$"},
                                                           {"≥", "$\\ge$"},
                                                           {"\n", " "}};
  std::string out;
  for (size_t i = 0; i < text.size();) {
    size_t length = 1;
    while (i + length < text.size() && (text[i + length] & 0xC0) == 0x80) ++length;
    const std::string character = text.substr(i, length);
    const auto at = known.find(character);
    if (at != known.end())
      out += at->second;
    else if (length > 1 && static_cast<unsigned char>(character[0]) > 0xC3)
      out += "?";
    else if (static_cast<unsigned char>(character[0]) >= 0x20)
      out += character;
    i += length;
  }
  return out;
}

bool colour_wanted(int descriptor) {
  const char* no_color = std::getenv("NO_COLOR");
  return isatty(descriptor) == 1 && (no_color == nullptr || *no_color == '\0');
}

std::string render(const Document& document, const RenderOptions& options) {
  if (options.format == TableFormat::kCsv) return to_csv(document.csv);
  if (document.tables.empty()) return "";
  std::string out = options.format == TableFormat::kLatex ? kPreamble : "";
  for (const Table& table : document.tables) {
    if (options.format == TableFormat::kLatex) {
      out += latex(table);
      continue;
    }
    out += (out.empty() ? "" : "\n");
    out += options.format == TableFormat::kMarkdown ? markdown(table, options) : terminal(table, options);
  }
  const char* lead = options.format == TableFormat::kLatex      ? "% "
                     : options.format == TableFormat::kMarkdown ? "- "
                                                                : "";
  if (!document.legend.empty()) out += "\n";
  for (const std::string& line : document.legend) out += lead + line + "\n";
  return out;
}

}  // namespace kvsweep
