// contract: `kvsweep data` as a person calls it, and the warning in records made from other data than the tested.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/golden.h"
#include "tests/support/process.h"
#include "tests/support/torch/model_directory.h"

namespace kvsweep::testing {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;

// A data root of its own, and no other that could be found.
class Place {
 public:
  Place() {
    fs::create_directories(root() / "wonderwords");
    fs::create_directory_symlink(fs::path(KVSWEEP_SOURCE_DIR) / "scripts", path() / "scripts");
  }
  const fs::path& path() const { return temporary_.path(); }
  fs::path root() const { return path() / "root"; }
  ProcessResult run(std::vector<std::string> arguments) const {
    return run_program(path(), arguments,
                       {{"XDG_CACHE_HOME", (path() / "cache").string()},
                        {"KVSWEEP_DATA", root().string()},
                        {"KVSWEEP_DATA_ENDPOINT", ""},
                        {"OMP_NUM_THREADS", "1"}});
  }

 private:
  TemporaryDirectory temporary_;
};

}  // namespace

TEST_CASE("data list shows what is there and what is not") {
  const Place place;
  write_text(place.root() / "wonderwords/nounlist.txt", "stone\n");
  const ProcessResult result = place.run({"data", "list"});
  CHECK(result.status == 0);
  CHECK_THAT(result.out, ContainsSubstring("found     1 of 3 files in " + (place.root() / "wonderwords").string()) &&
                             ContainsSubstring("mrmaxguns/wonderwordsmodule at 5dfa455554e7") &&
                             ContainsSubstring("not here  `kvsweep data get mmlu` fetches it") &&
                             ContainsSubstring("licence   MIT"));
}

TEST_CASE("data verify tells other contents and missing files by its status") {
  const Place place;
  CHECK(place.run({"data", "verify"}).status == 0);  // what nobody asked for by name may be missing
  CHECK(place.run({"data", "verify", "wonderwords"}).status == 1);
  write_text(place.root() / "wonderwords/nounlist.txt", "stone\n");
  const ProcessResult result = place.run({"data", "verify"});
  CHECK(result.status == 1);
  CHECK_THAT(result.out,
             ContainsSubstring("other hash") && ContainsSubstring("wonderwords/nounlist.txt: other content"));
  const ProcessResult unknown = place.run({"data", "verify", "wonderword"});
  CHECK(unknown.status == 2);
  CHECK_THAT(unknown.err, ContainsSubstring("did you mean 'wonderwords'?"));
}

TEST_CASE("data get fetches from a mirror, checks, and leaves other contents alone") {
  fs::path words;
  for (const fs::path& root : data_roots())
    if (fs::exists(root / "wonderwords/verblist.txt")) words = root / "wonderwords";
  if (words.empty()) SKIP("no wonderwords in a data root");
  const Place place;
  const fs::path served =
      place.path() / "mirror/mrmaxguns/wonderwordsmodule/5dfa455554e7c225a59c865d706c4293ca2c132e/wonderwords/assets";
  fs::create_directories(served);
  for (const char* file : {"nounlist.txt", "adjectivelist.txt", "verblist.txt"})
    fs::copy_file(words / file, served / file);
  write_text(place.root() / "wonderwords/nounlist.txt", "mine\n");
  const std::vector<std::string> get = {"data",
                                        "get",
                                        "wonderwords",
                                        "--root",
                                        place.root().string(),
                                        "--endpoint",
                                        "file://" + (place.path() / "mirror").string()};
  const ProcessResult first = place.run(get);
  CHECK(first.status == 1);
  CHECK_THAT(first.err, ContainsSubstring("move it away"));
  CHECK(read_text(place.root() / "wonderwords/nounlist.txt") == "mine\n");
  fs::remove(place.root() / "wonderwords/nounlist.txt");
  const ProcessResult second = place.run(get);
  INFO(second.err);
  CHECK(second.status == 0);
  CHECK(place.run({"data", "verify", "wonderwords"}).status == 0);
  CHECK(place.run({"data", "get"}).status == 2);
}

TEST_CASE("records made from another content than the tested carry a warning") {
  const Place place;
  write_model_directory(place.path() / "model");
  write_text(place.root() / "wonderwords/nounlist.txt", "stone\nriver\ncloud\n");
  write_text(place.root() / "wonderwords/adjectivelist.txt", "red\nblue\ngreen\n");
  write_text(place.path() / "sweep.yaml",
             "model: model\ntasks: [{name: needle, tokens: 640, samples: 1, words: wonderwords, max_new_tokens: 8}]\n"
             "schemes: [{name: full}]\n");
  const ProcessResult result = place.run({"--threads", "1", "run", "sweep.yaml", "--out", "a"});
  INFO(result.err);
  REQUIRE(result.status == 0);
  CHECK_THAT(result.err, ContainsSubstring("data wonderwords/nounlist.txt: SHA-256"));
  const auto record = nlohmann::json::parse(read_text(place.path() / "a/records.jsonl"));
  CHECK_THAT(record["warnings"].dump(), ContainsSubstring("data wonderwords/adjectivelist.txt: SHA-256"));
}

}  // namespace kvsweep::testing
