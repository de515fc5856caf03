// contract: known data sets: what is there, what differs, what has to be fetched.
#include "tasks/data/manifest.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/golden.h"

namespace kvsweep {
namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;

namespace {

const KnownSet& set_of(const std::string& folder) {
  for (const KnownSet& set : known_sets())
    if (set.folder == folder) return set;
  throw std::invalid_argument(folder);
}

}  // namespace

TEST_CASE("every known file belongs to a known set and has a hash of its own form") {
  std::set<std::string> folders, paths;
  for (const KnownSet& set : known_sets()) {
    INFO(set.folder);
    CHECK(folders.insert(set.folder).second);
    CHECK(!known_files(set).empty());
    CHECK(set.revision.size() == 40);
    CHECK(!set.licence.empty());
    CHECK(!set.tasks.empty());
  }
  for (const KnownFile& file : known_files()) {
    INFO(file.path);
    CHECK(file.sha256.size() == 64);
    CHECK(file.sha256.find_first_not_of("0123456789abcdef") == std::string::npos);
    CHECK(folders.contains(file.path.substr(0, file.path.find('/'))));
    CHECK(paths.insert(file.path).second);
  }
}

TEST_CASE("a set is missing, there, or there with another content, and only the last is a warning") {
  const testing::TemporaryDirectory root;
  const DataLocator data({"/nowhere", root.path()});
  const KnownSet& words = set_of("wonderwords");
  SetStatus status = check_set(words, data);
  CHECK(status.missing.size() == 3);
  CHECK(status.root.empty());
  CHECK(status.sha256.empty());
  CHECK(data_warnings(data, {"wonderwords/nounlist.txt"}).empty());
  fs::create_directories(root.path() / "wonderwords");
  testing::write_text(root.path() / "wonderwords/nounlist.txt", "stone\n");
  status = check_set(words, data);
  CHECK(status.other == std::vector<std::string>{"wonderwords/nounlist.txt"});
  CHECK(status.missing.size() == 2);
  CHECK(status.root == root.path());
  CHECK(status.sha256.size() == 64);
  for (const std::string item : {"wonderwords/nounlist.txt", "wonderwords"}) {
    const std::vector<std::string> warnings = data_warnings(data, {item, "mine.jsonl"});
    REQUIRE(warnings.size() == 1);
    CHECK_THAT(warnings[0], ContainsSubstring("data wonderwords/nounlist.txt: SHA-256 ") &&
                                ContainsSubstring("tested was 8d88b3ebc2e2969e"));
  }
  CHECK(data_warnings(data, {"wonderwords/verblist.txt", "wonder", "wonderwords/noun"}).empty());
}

TEST_CASE("data sets at hand are the tested ones") {
  const DataLocator data(testing::data_roots());
  int64_t found = 0;
  for (const KnownSet& set : known_sets()) {
    INFO(set.folder);
    const SetStatus status = check_set(set, data);
    CHECK(status.other.empty());
    found += !status.root.empty();
  }
  if (found == 0) SKIP("no data root");
}

TEST_CASE("a plan names repository, commit, path and hash of what can be fetched") {
  const auto plan = nlohmann::json::parse(fetch_plan({set_of("gsm8k"), set_of("wikitext2_raw")}));
  REQUIRE(plan.size() == 2);
  CHECK(plan[0]["repository"] == "openai/grade-school-math");
  CHECK(plan[0]["revision"].get<std::string>().size() == 40);
  REQUIRE(plan[0]["files"].size() == 2);  // not cot_8shot.json, which is in no repository
  CHECK(plan[0]["files"][0]["path"] == "gsm8k/test.jsonl");
  CHECK(plan[0]["files"][0]["upstream"] == "grade_school_math/data/test.jsonl");
  CHECK(plan[0]["files"][0]["sha256"] == "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14");
  REQUIRE(plan[1]["files"].size() == 1);
  CHECK(plan[1]["files"][0]["convert"] == "lf");
  CHECK(plan[1]["files"][0]["path"] == "wikitext2_raw/wikitext-test.hfjoin.txt");
}

}  // namespace kvsweep
