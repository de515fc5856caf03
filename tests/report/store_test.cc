// contract: a results directory keeps what was appended, whatever ends the process, and refuses what is not its own.
#include "harness/report/store.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <set>

#include "harness/core/error.h"
#include "tests/report/examples.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::example_record;
using testing::example_sample;
using testing::read_text;
using testing::TemporaryDirectory;
using testing::write_text;
namespace fs = std::filesystem;

namespace {

using Ids = std::map<std::string, std::string>;

const Ids& ids() {
  static const Ids ids = {{"a", "point a"}, {"b", "point b"}};
  return ids;
}

Record record_of(const std::string& id, const std::string& status = "ok") {
  Record record = example_record();
  record.id = id;
  record.status = status;
  return record;
}

// Files below `directory` with their contents, without locks.
Ids contents(const fs::path& directory) {
  Ids files;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file() && entry.path().filename().string().find("lock") == std::string::npos)
      files[entry.path().filename().string()] = read_text(entry.path());
  return files;
}

// No file of this process grows past `bytes`: the kernel then acts as with a full disk, a short write first.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(uintmax_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  sighandler_t handler_;
};

void open_and_fail(const fs::path& directory, const Ids& with, const std::string& message,
                   const std::optional<Shard>& shard = std::nullopt) {
  const Ids before = contents(directory);
  CHECK_THROWS_MATCHES(Store(directory, with, shard), std::runtime_error, MessageMatches(ContainsSubstring(message)));
  CHECK(contents(directory) == before);
}

}  // namespace

TEST_CASE("what was appended is there after reopening") {
  const TemporaryDirectory root;
  const fs::path directory = root.path() / "deep" / "results";
  {
    Store store(directory, ids());
    CHECK(store.finished().empty());
    store.append(std::vector{example_sample("a", 0), example_sample("a", 1), example_sample("b", 0)});
    store.append(record_of("a"));
    CHECK(store.finished().size() == 1);
    CHECK(store.samples().size() == 3);
  }
  Store store(directory, ids());
  REQUIRE(store.finished().contains("a"));
  CHECK(to_json_line(store.finished().at("a")) == to_json_line(record_of("a")));
  CHECK(store.samples().contains({"a", "d030-s1"}));
  CHECK(to_json_line(store.samples().at({"b", "d030-s0"})) == to_json_line(example_sample("b", 0)));
}

TEST_CASE("the last line of an id wins, and a failed point is not finished") {
  const TemporaryDirectory root;
  Store store(root.path(), ids());
  store.append(record_of("a", "failed"));
  store.append(record_of("b", "not_engaged"));
  CHECK_FALSE(store.finished().contains("a"));
  CHECK(store.finished().contains("b"));
  store.append(record_of("a"));
  CHECK(store.finished().contains("a"));
  store.append(record_of("b", "failed"));
  CHECK_FALSE(store.finished().contains("b"));

  const std::vector<Record> records = read_records(root.path());
  REQUIRE(records.size() == 2);
  CHECK(records[0].id == "a");
  CHECK(records[0].status == "ok");
  CHECK(records[1].status == "failed");

  SampleRecord changed = example_sample("a", 0);
  store.append(std::vector{changed});
  changed.output = "changed";
  store.append(std::vector{changed});
  CHECK(store.samples().at({"a", "d030-s0"}).output == "changed");
}

TEST_CASE("a file cut at any byte opens with its whole lines and goes on") {
  const TemporaryDirectory root;
  const fs::path file = root.path() / "samples.jsonl";
  {
    Store store(root.path(), ids());
    store.append(std::vector{example_sample("a", 0)});
    store.append(std::vector{example_sample("a", 1), example_sample("b", 1)});
  }
  const std::string whole = read_text(file);
  for (size_t bytes = whole.size() + 1; bytes-- > 0;) {
    const bool near_newline = whole.substr(bytes < 2 ? 0 : bytes - 2, 4).find('\n') != std::string::npos;
    if (bytes % 37 != 0 && !near_newline) continue;
    write_text(file, whole.substr(0, bytes));
    const auto lines = std::count(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes), '\n');
    Store store(root.path(), ids());
    INFO(bytes << " bytes");
    REQUIRE(static_cast<std::ptrdiff_t>(store.samples().size()) == lines);
    store.append(std::vector{example_sample("b", 7)});
    REQUIRE(store.samples().size() == static_cast<size_t>(lines) + 1);
    const std::string text = read_text(file);
    REQUIRE(text == whole.substr(0, bytes == 0 ? 0 : whole.rfind('\n', bytes - 1) + 1) +
                        to_json_line(example_sample("b", 7)) + "\n");
  }
}

TEST_CASE("a damaged whole line is an error that names it, and nothing is changed") {
  const TemporaryDirectory root;
  {
    Store store(root.path(), ids());
    store.append(record_of("a"));
    store.append(record_of("b"));
    store.append(std::vector{example_sample("a", 0)});
  }
  const std::string records = read_text(root.path() / "records.jsonl");
  const std::string samples = read_text(root.path() / "samples.jsonl");
  write_text(root.path() / "records.jsonl", "x" + records + "{\"torn");
  open_and_fail(root.path(), ids(), "records.jsonl:1: the line is not JSON");
  CHECK_THROWS_AS(read_records(root.path()), DataError);
  write_text(root.path() / "records.jsonl", records + "{\"torn");
  write_text(root.path() / "samples.jsonl", samples + "{}\n");
  open_and_fail(root.path(), ids(), "samples.jsonl:2: point_id is missing");
  write_text(root.path() / "samples.jsonl", samples);
  CHECK(Store(root.path(), ids()).finished().size() == 2);
}

TEST_CASE("a directory of another sweep is refused, a grown sweep is not") {
  const TemporaryDirectory root;
  { Store store(root.path(), ids()); }
  open_and_fail(root.path(), {{"a", "point a"}, {"c", "point c"}},
                "was made by another sweep: 1 of its 2 points are not in this one, the first is b (point b)");
  { Store store(root.path(), {{"a", "point a"}, {"b", "point b"}, {"c", "point c"}}); }
  open_and_fail(root.path(), ids(), "1 of its 3 points are not in this one, the first is c (point c)");
}

TEST_CASE("facts of a directory are kept and a change of one is refused") {
  const TemporaryDirectory root;
  {
    Store store(root.path(), ids());
    store.require_facts({{"weights of m", "123"}});
    store.require_facts({{"weights of m", "123"}, {"data of t", "9"}});
  }
  Store store(root.path(), ids());
  const Ids before = contents(root.path());
  CHECK_THROWS_MATCHES(store.require_facts({{"weights of m", "124"}, {"other", "1"}}), ConfigError,
                       MessageMatches(ContainsSubstring("was made with weights of m = 123, now it is 124")));
  CHECK(contents(root.path()) == before);
  CHECK_THROWS_AS(store.require_facts({{"data of t", "8"}}), ConfigError);
  CHECK_NOTHROW(store.require_facts({{"data of t", "9"}}));
}

TEST_CASE("what is not a results directory is refused and left alone") {
  const TemporaryDirectory root;
  SECTION("a directory with other files") {
    write_text(root.path() / "thesis.tex", "x");
    open_and_fail(root.path(), ids(), "is not a results directory: it has thesis.tex, but no manifest.json");
    CHECK_FALSE(fs::exists(root.path() / "lock"));
  }
  SECTION("a file") {
    write_text(root.path() / "file", "x");
    CHECK_THROWS_MATCHES(Store(root.path() / "file", ids()), DataError, MessageMatches(ContainsSubstring("file: ")));
    CHECK_THROWS_MATCHES(Store(root.path() / "file" / "below", ids()), DataError,
                         MessageMatches(ContainsSubstring("below: cannot be made")));
    CHECK(read_text(root.path() / "file") == "x");
  }
  SECTION("a directory whose manifest is damaged") {
    write_text(root.path() / "manifest.json", "{");
    open_and_fail(root.path(), ids(), "manifest.json: not a manifest");
    write_text(root.path() / "manifest.json", R"({"schema":2,"points":{},"facts":{}})");
    open_and_fail(root.path(), ids(), "manifest.json: schema is 2");
  }
  SECTION("a start that was cut short is taken over") {
    write_text(root.path() / "lock", "");
    write_text(root.path() / "manifest.json.tmp", "{");
    CHECK_NOTHROW(Store(root.path(), ids()));
  }
}

TEST_CASE("a directory without write permission is an error that names it") {
  if (::geteuid() == 0) SKIP("root may write everywhere");
  const TemporaryDirectory root;
  fs::permissions(root.path(), fs::perms::owner_read | fs::perms::owner_exec);
  CHECK_THROWS_MATCHES(Store(root.path(), ids()), DataError, MessageMatches(ContainsSubstring("cannot be written")));
  CHECK_THROWS_MATCHES(Store(root.path() / "new", ids()), DataError,
                       MessageMatches(ContainsSubstring("cannot be made")));
  fs::permissions(root.path(), fs::perms::owner_all);
}

TEST_CASE("a second user of a directory is refused with the first one's process number, until the first is gone") {
  const TemporaryDirectory root;
  {
    Store first(root.path(), ids());
    CHECK_THROWS_MATCHES(Store(root.path(), ids()), ConfigError,
                         MessageMatches(ContainsSubstring(root.path().string()) &&
                                        ContainsSubstring("in use by process " + std::to_string(::getpid()) + ";")));
  }
  CHECK_NOTHROW(Store(root.path(), ids()));
}

TEST_CASE("a full disk is an error, and nothing of the failed append stays") {
  const TemporaryDirectory root;
  Store store(root.path(), ids());
  store.append(std::vector{example_sample("a", 0)});
  const std::string before = read_text(root.path() / "samples.jsonl");
  {
    const FileSizeLimit limit(before.size() + 40);
    CHECK_THROWS_MATCHES(store.append(std::vector{example_sample("a", 1), example_sample("b", 1)}), DataError,
                         MessageMatches(ContainsSubstring("samples.jsonl: cannot be written: ")));
  }
  CHECK(read_text(root.path() / "samples.jsonl") == before);
  CHECK(store.samples().size() == 1);
  store.append(std::vector{example_sample("a", 1)});
  CHECK(read_text(root.path() / "samples.jsonl") == before + to_json_line(example_sample("a", 1)) + "\n");
}

TEST_CASE("a killed process loses at most the line it was writing") {
  const TemporaryDirectory root;
  int pipe_ends[2];
  REQUIRE(::pipe(pipe_ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Store store(root.path(), ids());
    for (int64_t i = 0;; ++i) {
      store.append(std::vector{example_sample("a", i), example_sample("b", i)});
      const char done = 1;
      if (::write(pipe_ends[1], &done, 1) != 1) ::_exit(1);
    }
  }
  char done[20];
  size_t appended = 0;
  while (appended < sizeof done) {
    const ssize_t got = ::read(pipe_ends[0], done, sizeof done - appended);
    REQUIRE(got > 0);
    appended += static_cast<size_t>(got);
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(pipe_ends[0]);
  ::close(pipe_ends[1]);
  Store store(root.path(), ids());
  CHECK(store.samples().size() >= 2 * appended);
  CHECK(store.samples().contains({"b", "d030-s19"}));
}

TEST_CASE("shards share a directory: each writes its own files and knows what others had on opening") {
  const TemporaryDirectory root;
  Store one(root.path(), ids(), Shard{1, 2});
  one.append(std::vector{example_sample("a", 0)});
  Store two(root.path(), {{"a", "point a"}, {"b", "point b"}, {"c", "point c"}}, Shard{2, 2});
  CHECK(two.samples().size() == 1);
  two.append(std::vector{example_sample("a", 1)});
  CHECK(one.samples().size() == 1);
  one.require_facts({{"weights of m", "1"}});
  two.require_facts({{"data of t", "2"}});
  CHECK_THROWS_MATCHES(one.require_facts({{"data of t", "3"}}), ConfigError,
                       MessageMatches(ContainsSubstring("was made with data of t = 2, now it is 3")));
  const std::string manifest = read_text(root.path() / "manifest.json");
  for (const char* text : {"weights of m", "data of t", "point c"}) CHECK_THAT(manifest, ContainsSubstring(text));
  CHECK(read_text(root.path() / "samples-1-of-2.jsonl") == to_json_line(example_sample("a", 0)) + "\n");
  CHECK(read_text(root.path() / "samples-2-of-2.jsonl") == to_json_line(example_sample("a", 1)) + "\n");
  const Store three(root.path(), {{"a", "point a"}, {"b", "point b"}, {"c", "point c"}}, Shard{2, 3});
  CHECK(three.samples().size() == 2);
  CHECK_FALSE(fs::exists(root.path() / "records.jsonl"));
  CHECK_FALSE(fs::exists(root.path() / "samples.jsonl"));
  CHECK_THROWS_MATCHES(read_records(root.path()), DataError, MessageMatches(ContainsSubstring("kvsweep merge")));
}

TEST_CASE("a shard is run by one process at a time, and a directory by shards or by a run without") {
  const TemporaryDirectory root;
  {
    const Store one(root.path(), ids(), Shard{1, 2});
    CHECK_THROWS_MATCHES(
        Store(root.path(), ids(), Shard{1, 2}), ConfigError,
        MessageMatches(ContainsSubstring("shard 1/2: is in use by process " + std::to_string(::getpid()) + ";")));
    CHECK_THROWS_MATCHES(Store(root.path(), ids()), ConfigError,
                         MessageMatches(ContainsSubstring("is in use by other processes")));
  }
  open_and_fail(root.path(), ids(), "holds shards of a run (samples-1-of-2.jsonl)");
  CHECK_NOTHROW(Store(root.path(), ids(), Shard{1, 2}));
  const TemporaryDirectory other;
  {
    const Store whole(other.path(), ids());
    CHECK_THROWS_MATCHES(Store(other.path(), ids(), Shard{1, 2}), ConfigError,
                         MessageMatches(ContainsSubstring("is in use by process " + std::to_string(::getpid()) + ";")));
  }
  open_and_fail(other.path(), ids(), "holds a run without shards (samples.jsonl)", Shard{1, 2});
  CHECK_NOTHROW(Store(other.path(), ids()));
}

TEST_CASE("a shard cuts a torn line off its own files alone") {
  const TemporaryDirectory root;
  const fs::path own = root.path() / "samples-1-of-2.jsonl", other = root.path() / "samples-2-of-2.jsonl";
  {
    Store one(root.path(), ids(), Shard{1, 2}), two(root.path(), ids(), Shard{2, 2});
    one.append(std::vector{example_sample("a", 0)});
    two.append(std::vector{example_sample("a", 1)});
  }
  write_text(own, read_text(own) + "{\"torn");
  write_text(other, read_text(other) + "{\"being written");
  {
    const Store one(root.path(), ids(), Shard{1, 2});
    CHECK(one.samples().size() == 2);
  }
  CHECK(read_text(own) == to_json_line(example_sample("a", 0)) + "\n");
  CHECK(read_text(other).ends_with("{\"being written"));
  write_text(other, "x\n");
  open_and_fail(root.path(), ids(), "samples-2-of-2.jsonl:1: the line is not JSON", Shard{1, 2});
}

TEST_CASE("many processes start on one new directory at once") {
  const TemporaryDirectory root;
  constexpr int64_t kProcesses = 8;
  std::vector<pid_t> children;
  for (int64_t i = 1; i <= kProcesses; ++i) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        Store store(root.path() / "new", ids(), Shard{i, kProcesses});
        store.require_facts({{"fact " + std::to_string(i), "1"}});
        for (int64_t n = 0; n < 20; ++n) store.append(std::vector{example_sample("a", 100 * i + n)});
      } catch (const std::exception&) {
        ::_exit(1);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  const Store store(root.path() / "new", ids(), Shard{1, 1});
  CHECK(store.samples().size() == 20 * kProcesses);
  const std::string manifest = read_text(root.path() / "new/manifest.json");
  for (int64_t i = 1; i <= kProcesses; ++i) CHECK_THAT(manifest, ContainsSubstring("fact " + std::to_string(i)));
}

TEST_CASE("tables read a directory while it is in use, without its torn line") {
  const TemporaryDirectory root;
  Store store(root.path(), ids());
  CHECK_THROWS_MATCHES(read_records(root.path()), DataError, MessageMatches(ContainsSubstring("has no whole record")));
  CHECK_THROWS_MATCHES(read_records(root.path() / "none"), DataError,
                       MessageMatches(ContainsSubstring("records.jsonl")));
  store.append(record_of("b"));
  store.append(record_of("a"));
  const std::string text = read_text(root.path() / "records.jsonl");
  write_text(root.path() / "records.jsonl", text + text.substr(0, 100));
  const std::vector<Record> records = read_records(root.path());
  REQUIRE(records.size() == 2);
  CHECK(records[0].id == "b");
  CHECK(records[1].id == "a");
}

TEST_CASE("records of an older schema are refused by tables and made again by a run") {
  const TemporaryDirectory root;
  {
    Store store(root.path(), ids());
    store.append(record_of("a"));
    store.append(record_of("b"));
  }
  const fs::path file = root.path() / "records.jsonl";
  std::string old = read_text(file);
  for (size_t at = 0; (at = old.find(R"("schema":3)", at)) != std::string::npos;) old.replace(at, 10, R"("schema":2)");
  write_text(file, old);
  CHECK_THROWS_MATCHES(read_records(root.path()), StaleRecord, MessageMatches(ContainsSubstring("kvsweep run")));
  Store store(root.path(), ids());
  CHECK(store.finished().empty());
  store.append(record_of("a"));
  CHECK_THROWS_MATCHES(read_records(root.path()), StaleRecord, MessageMatches(ContainsSubstring("records.jsonl:2")));
  store.append(record_of("b"));
  CHECK(read_records(root.path()).size() == 2);
}

}  // namespace kvsweep
