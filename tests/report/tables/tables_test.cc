// golden and contract: stored results make the stored tables, byte for byte; order of lines never shows; no table
// averages over a gap. Each folder of golden/report has records.jsonl, some have samples.jsonl, and tables as
// <table>.<txt, md, csv or tex>. The tables were made by this program (`kvsweep report FOLDER --table T --format F`)
// and read; the results in `mixed` by ResultsWorld (results_world.h): needles of two lengths with a failed point,
// graded scores by document with a score that is no number, and perplexities; so those in `layers`, of which only the
// analysis is stored (export_test.cc); those of the other folders by hand.
#include "harness/report/tables/tables.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <random>
#include <sstream>

#include "harness/core/error.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::EndsWith;
using Catch::Matchers::MessageMatches;
using testing::full_precision;
using testing::ResultsWorld;
namespace fs = std::filesystem;

namespace {

const std::vector<std::pair<std::string, TableKind>> kKinds = {
    {"main", TableKind::kMain},     {"pivot", TableKind::kPivot},
    {"loss", TableKind::kLoss},     {"recommend", TableKind::kRecommend},
    {"pareto", TableKind::kPareto}, {"kv", TableKind::kKeyValue},
    {"grid", TableKind::kGrid}};
const std::vector<std::pair<std::string, TableFormat>> kFormats = {{"txt", TableFormat::kTerminal},
                                                                   {"md", TableFormat::kMarkdown},
                                                                   {"csv", TableFormat::kCsv},
                                                                   {"tex", TableFormat::kLatex}};

std::string tables(const fs::path& path, TableKind kind, TableFormat format, const std::string& only = "") {
  TableRequest request;
  request.kind = kind;
  request.only = only;
  request.render.format = format;
  return render_tables(analyse(read_results(path)), request);
}

std::string line_with(const std::string& text, const std::string& part) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (line.find(part) != std::string::npos) return line;
  return "";
}

void shuffle_lines(const fs::path& from, const fs::path& to, unsigned seed) {
  std::istringstream in(testing::read_text(from));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::shuffle(lines.begin(), lines.end(), std::mt19937(seed));
  testing::write_text(to, join(lines, "\n") + "\n");
}

fs::path mixed() {
  const auto files = testing::golden_files("report/mixed/samples[.]jsonl");
  REQUIRE_FALSE(files.empty());
  return files.front().parent_path();
}

double every(int64_t i, int64_t n) {
  return i % n == 0 ? 0 : 1;
}

}  // namespace

TEST_CASE("stored results make the stored tables", "[golden]") {
  const auto files = testing::golden_files("report/[^/]*/records[.]jsonl");
  REQUIRE_FALSE(files.empty());
  int compared = 0;
  for (const auto& file : files) {
    for (const auto& [name, kind] : kKinds) {
      for (const auto& [ending, format] : kFormats) {
        const fs::path expected = file.parent_path() / (name + "." + ending);
        if (!fs::exists(expected)) continue;
        INFO(expected.string());
        CHECK(tables(file.parent_path(), kind, format) == testing::read_text(expected));
        ++compared;
      }
    }
  }
  CHECK(compared > 0);
}

TEST_CASE("stored points keep their ids", "[golden]") {
  for (const auto& file : testing::golden_files("report/[^/]*/records[.]jsonl"))
    for (const Record& record : read_records(file.parent_path())) CHECK(record.point.id() == record.id);
}

TEST_CASE("the order of lines never shows in a table") {
  const testing::TemporaryDirectory place;
  for (const char* name : {"records.jsonl", "samples.jsonl"}) shuffle_lines(mixed() / name, place.path() / name, 7);
  for (const auto& [name, kind] : kKinds) {
    INFO(name);
    for (const auto& [unused, format] : kFormats)
      CHECK(tables(place.path(), kind, format) == tables(mixed(), kind, format));
  }
}

TEST_CASE("no table averages over a gap") {
  // Two lengths; K4 V4 failed at one of them and would be the best.
  std::vector<testing::WorldGroup> groups(2);
  for (testing::WorldGroup& group : groups)
    group.points = {full_precision(), {4, 4, "uniform", [](int64_t) { return 1.0; }}, {2, 4, "uniform", [](int64_t i) {
                                                                                         return every(i, 4);
                                                                                       }}};
  groups[1].tokens = "1024";
  groups[1].points[1].status = "failed";
  const ResultsWorld world(groups);
  const std::string best = tables(world.path(), TableKind::kRecommend, TableFormat::kTerminal);
  CHECK_THAT(line_with(best, "   8  "), ContainsSubstring("uniform K2 V4"));
  CHECK_THAT(best, ContainsSubstring("not considered: uniform K4 V4: ") && ContainsSubstring("failed: out of memory"));
  const std::string pareto = tables(world.path(), TableKind::kPareto, TableFormat::kTerminal);
  CHECK(line_with(pareto, "uniform K4 V4").starts_with("not in it: "));
  const std::string loss = tables(world.path(), TableKind::kLoss, TableFormat::kTerminal);
  CHECK(line_with(loss, "retrieval  uniform").ends_with("missing"));
  CHECK_THAT(loss, ContainsSubstring("missing: retrieval, uniform K4: ") && ContainsSubstring("failed: out of memory"));
  CHECK_THAT(tables(world.path(), TableKind::kMain, TableFormat::kTerminal),
             ContainsSubstring("failed: uniform k_bits=4 v_bits=4: out of memory"));
  CHECK_THAT(tables(world.path(), TableKind::kPivot, TableFormat::kTerminal),
             ContainsSubstring("failed: out of memory"));
  CHECK_THAT(tables(world.path(), TableKind::kGrid, TableFormat::kTerminal),
             ContainsSubstring("1024 tokens: failed: out of memory"));
}

TEST_CASE("a row that shows no difference says what it would have seen") {
  const ResultsWorld world({{.points = {full_precision(),
                                        {4, 4, "uniform", [](int64_t i) { return i == 3 ? 0.0 : 1.0; }},
                                        {2, 2, "uniform", [](int64_t i) { return every(i, 2); }}}}});
  const std::string text = tables(world.path(), TableKind::kMain, TableFormat::kTerminal);
  CHECK(line_with(text, "uniform   2").ends_with("worse"));
  CHECK(line_with(text, "uniform   4").ends_with("not shown"));
  CHECK_THAT(text, ContainsSubstring("no difference shown for 1 of 2: they would have seen losses from 0.1"));
}

TEST_CASE(
    "a difference that is not shown is within noise where full precision against itself flips as many positions") {
  // Each sample of a point flips one of three positions.
  const auto verdict = [](std::optional<Noise> noise, int64_t every_nth) {
    const ResultsWorld world({{.noise = noise, .points = {full_precision(), {4, 4, "uniform", [=](int64_t i) {
                                                                               return every(i + 1, every_nth);
                                                                             }}}}});
    const std::string line =
        line_with(tables(world.path(), TableKind::kMain, TableFormat::kTerminal), "uniform   4   4");
    return line.substr(std::min(line.size(), line.find_last_of("0123456789") + 1));
  };
  CHECK_THAT(verdict(Noise{1e-9, 1e-8, 3, 1}, 40), EndsWith("  within noise"));
  CHECK_THAT(verdict(Noise{1e-9, 1e-8, 30, 9}, 40),
             EndsWith("  not shown"));  // 0.300 of full precision's against 0.333
  CHECK_THAT(verdict(Noise{0, 0, 0, 0}, 40), EndsWith("  not shown"));
  CHECK_THAT(verdict(std::nullopt, 40), EndsWith("  not shown"));
  CHECK_THAT(verdict(Noise{1e-9, 1e-8, 3, 3}, 2), EndsWith("  worse"));  // what is shown stays shown
}

TEST_CASE("where nothing changed the interval is what so many items allow") {
  std::vector<testing::WorldGroup> groups(2);
  for (testing::WorldGroup& group : groups) group.points = {full_precision(), {4, 4}};
  groups[1].tokens = "1024";
  const ResultsWorld world(groups);
  // -ln(0.025) / 80
  CHECK_THAT(tables(world.path(), TableKind::kPareto, TableFormat::kTerminal),
             ContainsSubstring("+0.000 [-0.046, 0.046]"));
}

TEST_CASE("records without samples keep their columns, and the table says so") {
  const ResultsWorld world({{.points = {full_precision(), {4, 4, "uniform", [](int64_t i) { return every(i, 4); }}}}});
  fs::remove(world.samples_file());
  const std::string text = tables(world.path(), TableKind::kMain, TableFormat::kTerminal);
  CHECK_THAT(text, ContainsSubstring("exact_match±SE") && ContainsSubstring("loss±SE"));
  CHECK_THAT(line_with(text, "uniform   4"),
             ContainsSubstring("0.750±0.069  +0.250±0.069") && ContainsSubstring("no samples"));
  CHECK_THAT(text, ContainsSubstring("no samples: differences are those of the records"));
}

TEST_CASE("a glob shows full precision and the points that match, with the numbers of all") {
  const std::string all = tables(mixed(), TableKind::kMain, TableFormat::kTerminal);
  const std::string some =
      tables(mixed(), TableKind::kMain, TableFormat::kTerminal, "*needle tokens=512*k_bits=2 v_bits=2*");
  CHECK(some.find("| 1024 tokens") == std::string::npos);
  CHECK(line_with(some, "uniform   2   4").empty());
  const auto numbers = [](const std::string& text) {
    std::istringstream in(line_with(text, "uniform   2   2"));
    return std::vector<std::string>(std::istream_iterator<std::string>(in), {});
  };
  CHECK(numbers(some) == numbers(all));  // columns are as wide as what is shown
  CHECK_FALSE(line_with(some, "reference").empty());
  CHECK_THROWS_MATCHES(tables(mixed(), TableKind::kMain, TableFormat::kTerminal, "nothing"), ConfigError,
                       MessageMatches(ContainsSubstring("--only 'nothing': matches none of")));
}

TEST_CASE("a pivot has a key for whatever differs, and refuses keys that there are not") {
  const Analysis analysis = analyse(read_results(mixed()));
  TableRequest request;
  request.kind = TableKind::kPivot;
  request.pivot.rows = {"task"};
  request.pivot.columns = {"k_bits"};
  const std::string text = render_tables(analysis, request);
  CHECK(text.starts_with("loss: task x tokens x scheme x v_bits by k_bits\n"));
  request.pivot.rows = {"length"};
  CHECK_THROWS_MATCHES(render_tables(analysis, request), ConfigError,
                       MessageMatches(ContainsSubstring("--rows length: is not a key; allowed: model, task, tokens")));
  request.pivot.rows = {"k_bits"};
  CHECK_THROWS_AS(render_tables(analysis, request), ConfigError);
}

TEST_CASE("a heat map has colours only when asked for, and its columns stay in line") {
  TableRequest request;
  request.kind = TableKind::kGrid;
  const Analysis analysis = analyse(read_results(mixed()));
  const std::string plain = render_tables(analysis, request);
  CHECK(plain.find('\x1b') == std::string::npos);
  CHECK_THAT(plain, ContainsSubstring("█"));
  request.render.colour = true;
  const std::string coloured = render_tables(analysis, request);
  CHECK_THAT(coloured, ContainsSubstring("\x1b[48;5;"));
  CHECK(coloured.find("█") == std::string::npos);
}

TEST_CASE("colour is for terminals, unless NO_COLOR is set to something") {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY), file = open("/dev/null", O_WRONLY);
  REQUIRE((terminal >= 0 && file >= 0));
  const char* own = std::getenv("NO_COLOR");
  const std::optional<std::string> before = own == nullptr ? std::nullopt : std::optional<std::string>(own);
  unsetenv("NO_COLOR");
  CHECK(colour_wanted(terminal));
  CHECK_FALSE(colour_wanted(file));
  setenv("NO_COLOR", "", 1);
  CHECK(colour_wanted(terminal));
  for (const char* value : {"1", "0", "anything"}) {
    setenv("NO_COLOR", value, 1);
    CHECK_FALSE(colour_wanted(terminal));
    CHECK_FALSE(colour_wanted(file));
  }
  if (before)
    setenv("NO_COLOR", before->c_str(), 1);
  else
    unsetenv("NO_COLOR");
  close(terminal);
  close(file);
}

TEST_CASE("text from outside is inert in LaTeX") {
  CHECK(latex_escaped(R"(a_b & 50% $x$ #1 {y} ~ ^ \input)") ==
        R"(a\_b \& 50\% \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}input)");
}

TEST_CASE("LaTeX tables compile as they stand", "[tex]") {
  if (std::system("command -v pdflatex >/dev/null 2>&1") != 0) SKIP("pdflatex is not installed");
  if (std::system("kpsewhich siunitx.sty booktabs.sty >/dev/null 2>&1") != 0)
    SKIP("siunitx or booktabs is not installed");
  for (const auto& [name, kind] : kKinds) {
    const testing::TemporaryDirectory place;
    const std::string snippet = tables(mixed(), kind, TableFormat::kLatex);
    std::string packages;
    std::istringstream in(snippet);
    for (std::string line; std::getline(in, line);)
      if (line.starts_with("% \\usepackage")) packages += line.substr(2) + "\n";
    testing::write_text(place.path() / "t.tex", "\\documentclass{article}\n" + packages + "\\begin{document}\n" +
                                                    snippet + "\\end{document}\n");
    INFO(name);
    CHECK(std::system(("cd '" + place.path().string() +
                       "' && pdflatex -interaction=nonstopmode -halt-on-error t.tex >/dev/null 2>&1 && test -s t.pdf")
                          .c_str()) == 0);
  }
}

}  // namespace kvsweep
