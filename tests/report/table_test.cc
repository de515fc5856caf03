// golden: stored records make the stored tables, byte for byte. Each folder of golden/report has records.jsonl and
// table.txt, table.md, table.csv; KVSWEEP_WRITE_GOLDEN=1 writes the tables anew, to be read before they are committed.
#include "harness/report/table.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <sstream>

#include "harness/core/error.h"
#include "harness/report/store.h"
#include "tests/report/examples.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using testing::example_record;

namespace {

std::string line_with(const std::string& text, const std::string& part) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (line.find(part) != std::string::npos) return line;
  return "";
}

}  // namespace

TEST_CASE("stored records make the stored tables", "[golden]") {
  const auto files = testing::golden_files("report/[^/]*/records[.]jsonl");
  REQUIRE_FALSE(files.empty());
  const bool write = std::getenv("KVSWEEP_WRITE_GOLDEN") != nullptr;
  for (const auto& file : files) {
    const std::vector<Record> records = read_records(file.parent_path());
    for (const auto& [name, format] :
         {std::pair("table.txt", TableFormat::kTerminal), std::pair("table.md", TableFormat::kMarkdown),
          std::pair("table.csv", TableFormat::kCsv)}) {
      const auto expected = file.parent_path() / name;
      const std::string table = render_tables(records, format);
      if (write) testing::write_text(expected, table);
      INFO(expected.string());
      CHECK(table == testing::read_text(expected));
    }
  }
  if (write) SKIP("the tables were written, not compared");
}

TEST_CASE("stored points keep their ids", "[golden]") {
  for (const auto& file : testing::golden_files("report/[^/]*/records[.]jsonl"))
    for (const Record& record : read_records(file.parent_path())) CHECK(record.point.id() == record.id);
}

TEST_CASE("records that were not made under the same rules never share a table") {
  const Record first = example_record();
  std::vector<Record> others(8, first);
  others[0].point.model = "other";
  others[1].point.task = "other";
  others[2].point.task_version = 3;
  others[3].point.task_params[1].second = "11";
  others[4].point.view = "chunked:128";
  others[5].point.seed = 3;
  others[6].env.weights_sha256 = "other";
  others[7].env.data_sha256 = "other";
  for (const Record& other : others) {
    const std::string text = render_tables({first, other}, TableFormat::kTerminal);
    INFO(text);
    CHECK(text.find("\nview ") != text.rfind("\nview "));
  }
  Record same = first;
  same.point.scheme = "other";
  const std::string text = render_tables({first, same}, TableFormat::kTerminal);
  CHECK(text.find("\nview ") == text.rfind("\nview "));
}

TEST_CASE("a parameter has a column when it differs and says more than the bits") {
  std::vector<Record> records(2, example_record());
  for (Record& record : records)
    record.point.scheme_params = {{"k_bits", "4"}, {"v_bits", "2"}, {"group", "64"}, {"window", "0"}};
  records[1].point.scheme_params = {{"k_bits", "8"}, {"v_bits", "2"}, {"group", "64"}, {"window", "128"}};
  records[1].nominal_k_bits = 8;
  const std::string header = line_with(render_tables(records, TableFormat::kTerminal), "scheme");
  CHECK_THAT(header, ContainsSubstring("window"));
  CHECK_THAT(header, !ContainsSubstring("group"));
  CHECK_THAT(header, !ContainsSubstring("k_bits"));
  records[1].nominal_k_bits = 4.5;
  CHECK_THAT(line_with(render_tables(records, TableFormat::kTerminal), "scheme"), ContainsSubstring("k_bits"));
}

TEST_CASE("a record without its own metric is an error, not a hole in the table") {
  Record record = example_record();
  record.metrics.clear();
  for (const TableFormat format : {TableFormat::kTerminal, TableFormat::kMarkdown, TableFormat::kCsv})
    CHECK_THROWS_AS(render_tables({record}, format), DataError);
}

TEST_CASE("no records make no table, and in CSV the header alone") {
  CHECK(render_tables({}, TableFormat::kTerminal).empty());
  const std::string csv = render_tables({}, TableFormat::kCsv);
  CHECK(csv.find('\n') == csv.size() - 1);
  CHECK_THAT(csv, ContainsSubstring("id,status,error,model,task,"));
}

}  // namespace kvsweep
