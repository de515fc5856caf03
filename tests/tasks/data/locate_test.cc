// contract: where data is looked for, what a missing one says, what a data hash covers.
#include "tasks/data/locate.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>

#include "harness/core/error.h"
#include "tests/support/golden.h"

namespace kvsweep {
namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

// Sets an environment variable for one scope.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Environment() {
    if (old_)
      setenv(name_, old_->c_str(), 1);
    else
      unsetenv(name_);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("data roots are the argument, the environment, the neighbour and the user's cache, in this order") {
  testing::TemporaryDirectory given, named, cache;
  const Environment data("KVSWEEP_DATA", named.path().string()), xdg("XDG_CACHE_HOME", cache.path().string());
  CHECK(default_data_roots(given.path()) ==
        std::vector<fs::path>{given.path(), named.path(), "../shared/data", cache.path() / "kvsweep/data"});
  const Environment unset("KVSWEEP_DATA", "");
  CHECK(default_data_roots(std::nullopt) == std::vector<fs::path>{"../shared/data", cache.path() / "kvsweep/data"});
}

TEST_CASE("a data root that somebody named must be a directory") {
  CHECK_THROWS_MATCHES(default_data_roots("/nowhere/data"), ConfigError,
                       MessageMatches(ContainsSubstring("--data = /nowhere/data")));
  const Environment data("KVSWEEP_DATA", "/nowhere/else");
  CHECK_THROWS_MATCHES(default_data_roots(std::nullopt), ConfigError,
                       MessageMatches(ContainsSubstring("KVSWEEP_DATA = /nowhere/else")));
}

TEST_CASE("the first root that has it wins, and an absolute path stands for itself") {
  testing::TemporaryDirectory a, b;
  testing::write_text(b.path() / "x.txt", "b");
  const DataLocator locator({a.path(), b.path()});
  CHECK(locator.find("x.txt") == b.path() / "x.txt");
  testing::write_text(a.path() / "x.txt", "a");
  CHECK(locator.find("x.txt") == a.path() / "x.txt");
  CHECK(locator.find((b.path() / "x.txt").string()) == b.path() / "x.txt");
  CHECK(DataLocator({}).find((b.path() / "x.txt").string()) == b.path() / "x.txt");
}

TEST_CASE("missing data names every place and how to get it") {
  const DataLocator locator({"/nowhere/a", "/nowhere/b"});
  for (const KnownData& data : known_data()) {
    INFO(data.folder);
    CHECK_THROWS_MATCHES(
        locator.find(data.folder + "/file.txt"), DataError,
        MessageMatches(ContainsSubstring("/nowhere/a/" + data.folder + "/file.txt") &&
                       ContainsSubstring("/nowhere/b/" + data.folder + "/file.txt") && ContainsSubstring(data.source) &&
                       ContainsSubstring(data.licence) && ContainsSubstring(data.how) && ContainsSubstring("--data")));
  }
  CHECK_THROWS_MATCHES(locator.find("mine.txt"), DataError,
                       MessageMatches(ContainsSubstring("'mine.txt'") && ContainsSubstring("/nowhere/b/mine.txt")));
}

TEST_CASE("texts are read byte for byte") {
  testing::TemporaryDirectory root;
  const std::string text = "one\r\ntwo\n\xe2\x82\xac \xf0\x9f\x98\x80\n";
  testing::write_text(root.path() / "t.txt", text);
  CHECK(read_utf8(root.path() / "t.txt") == text);
  testing::write_text(root.path() / "empty.txt", "");
  CHECK(read_utf8(root.path() / "empty.txt").empty());
}

TEST_CASE("a file that is not UTF-8 names the byte") {
  testing::TemporaryDirectory root;
  const fs::path file = root.path() / "bad.txt";
  for (const char* bad : {"\xff", "\xc0\x80", "\xe9t\xe9", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80"}) {
    testing::write_text(file, std::string("caf\xc3\xa9 ") + bad);
    CHECK_THROWS_MATCHES(read_utf8(file), DataError,
                         MessageMatches(ContainsSubstring(file.string()) && ContainsSubstring("byte 6 (0x")));
  }
  CHECK_THROWS_AS(read_utf8(root.path() / "missing.txt"), DataError);
  CHECK_THROWS_AS(read_utf8(root.path()), DataError);
}

TEST_CASE("a data hash covers names and contents, not places, notes or order") {
  testing::TemporaryDirectory a, b;
  for (const fs::path& root : {a.path(), b.path()}) {
    fs::create_directories(root / "set/deep");
    testing::write_text(root / "set/one.txt", "1");
    testing::write_text(root / "set/deep/two.txt", "2");
    testing::write_text(root / "words.txt", "w");
  }
  testing::write_text(b.path() / "set/SOURCE.txt", "from there");
  const DataLocator in_a({a.path()}), in_b({b.path()});
  const std::string hash = data_sha256(in_a, {"set", "words.txt"});
  CHECK(hash.size() == 64);
  CHECK(hash == data_sha256(in_b, {"words.txt", "set"}));
  CHECK(hash != data_sha256(in_a, {"set"}));
  testing::write_text(b.path() / "set/deep/two.txt", "3");
  CHECK(hash != data_sha256(in_b, {"set", "words.txt"}));
  fs::rename(a.path() / "set/one.txt", a.path() / "set/uno.txt");
  CHECK(hash != data_sha256(in_a, {"set", "words.txt"}));
  CHECK(data_sha256(in_a, {}).empty());
}

}  // namespace kvsweep
