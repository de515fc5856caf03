// oracle: rows as Python's csv module reads them (written out by hand); contract: errors name file and line.
#include "tasks/data/csv.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Fields = std::vector<std::string>;

namespace {

std::vector<CsvRow> read(const std::string& text, int64_t columns = 0) {
  const testing::TemporaryDirectory folder;
  const auto file = folder.path() / "a.csv";
  testing::write_text(file, text);
  return read_csv(file, columns);
}

}  // namespace

TEST_CASE("a quoted field holds commas, quotes and line breaks") {
  const auto rows = read("a,\"b, \"\"c\"\"\nd\",e\r\n\r\n\"\",f,\n");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].fields == Fields{"a", "b, \"c\"\nd", "e"});
  CHECK(rows[0].line == 1);
  CHECK(rows[1].fields == Fields{"", "f", ""});
  CHECK(rows[1].line == 4);
}

TEST_CASE("a quote within a plain field, a missing last line break and a byte order mark are nothing special") {
  CHECK(read("5' 3\" tall,x").front().fields == Fields{"5' 3\" tall", "x"});
  CHECK(read("\xef\xbb\xbfx,y\n").front().fields == Fields{"x", "y"});
  CHECK(read("").empty());
  CHECK(read("a\rb,c\n").front().fields == Fields{"a\rb", "c"});
}

TEST_CASE("a CSV file that cannot be right names file and line") {
  const auto check = [](const std::string& text, const std::string& message) {
    INFO(text);
    CHECK_THROWS_MATCHES(read(text, 2), DataError, MessageMatches(ContainsSubstring(message)));
  };
  check("a,b\nc\n", "a.csv:2: 1 fields, expected 2");
  check("\"a\nb\",c\nd,e,f\n", "a.csv:3: 3 fields, expected 2");
  check("a,b\nc,\"d\n\n", "a.csv:2: a quote that is not closed");
  check("a,\"b\"c\n", "a.csv:1: text behind a closing quote");
  check("a,\xff\n", "is not UTF-8");
  CHECK_THROWS_AS(read_csv("no/such.csv", 2), DataError);
}

}  // namespace kvsweep
