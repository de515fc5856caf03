// contract: the program as a person starts it: resume after kill -9, SIGINT, exit statuses, messages for bad input.
#include <signal.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <thread>

#include "harness/core/random.h"
#include "tests/support/golden.h"
#include "tests/support/process.h"
#include "tests/support/torch/model_directory.h"

namespace kvsweep::testing {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;

constexpr const char* kSweep = R"(model: model
tasks:
  - {name: needle, tokens: 640, samples: 4, depths: 2, max_new_tokens: 8}
  - {name: perplexity, text: model, tokens: 96, samples: 3}
schemes:
  - {name: full}
  - {name: uniform, k_bits: [2, 4], v_bits: [2, 8], group: 16}
)";

// A directory with a tiny model and a sweep of 10 points in 2 groups.
class Workplace {
 public:
  Workplace() {
    write_model_directory(path() / "model");
    write_text(path() / "sweep.yaml", kSweep);
  }
  const fs::path& path() const { return directory_.path(); }
  std::map<std::string, std::string> environment() const {
    return {{"XDG_CACHE_HOME", (path() / "cache").string()}, {"OMP_NUM_THREADS", "1"}};
  }
  ProcessResult run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"--threads", "1"});
    return run_program(path(), arguments, environment());
  }

 private:
  TemporaryDirectory directory_;
};

// Records by point, without what may differ between two runs: times and the run's own name.
std::map<std::string, nlohmann::json> comparable(const fs::path& file, const char* key) {
  std::map<std::string, nlohmann::json> lines;
  std::istringstream in(read_text(file));
  for (std::string text; std::getline(in, text);) {
    nlohmann::json line = nlohmann::json::parse(text);
    for (const char* timing : {"prefill_ms", "compress_ms", "decode_ms_per_token", "path", "time"}) line.erase(timing);
    if (line.contains("env")) {
      line["env"].erase("started_at");
      line["env"].erase("command");
    }
    std::string id = line[key].get<std::string>();
    if (line.contains("sample_id")) id += "/" + line["sample_id"].get<std::string>();
    lines[id] = line;
  }
  return lines;
}

}  // namespace

TEST_CASE("a run killed at 20 random moments ends with the records of an undisturbed run") {
  const Workplace place;
  const auto begin = std::chrono::steady_clock::now();
  const ProcessResult undisturbed = place.run({"run", "sweep.yaml", "--out", "a"});
  INFO(undisturbed.err);
  REQUIRE(undisturbed.status == 0);
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
  fs::remove_all(place.path() / "cache");  // so that kills fall into the sampling of texts too
  Rng rng(20261122);
  for (int i = 0; i < 20; ++i) {
    Process process(place.path(), {"--threads", "1", "run", "sweep.yaml", "--out", "b"}, place.environment());
    std::this_thread::sleep_for(whole * rng.uniform());
    process.signal(SIGKILL);
    process.wait();
  }
  const ProcessResult last = place.run({"run", "sweep.yaml", "--out", "b"});
  INFO(last.err);
  REQUIRE(last.status == 0);
  const auto expected = comparable(place.path() / "a/records.jsonl", "id");
  CHECK(expected.size() == 10);
  CHECK(comparable(place.path() / "b/records.jsonl", "id") == expected);
  CHECK(comparable(place.path() / "b/samples.jsonl", "point_id") ==
        comparable(place.path() / "a/samples.jsonl", "point_id"));
}

TEST_CASE("a finished sweep runs nothing again") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a"}).status == 0);
  const std::string records = read_text(place.path() / "a/records.jsonl");
  const std::string samples = read_text(place.path() / "a/samples.jsonl");
  const ProcessResult again = place.run({"run", "sweep.yaml", "--out", "a"});
  CHECK(again.status == 0);
  CHECK_THAT(again.err, ContainsSubstring("0 to run"));
  CHECK(read_text(place.path() / "a/records.jsonl") == records);
  CHECK(read_text(place.path() / "a/samples.jsonl") == samples);
}

TEST_CASE("a sweep run with a limit is completed by a run without one") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a", "--limit", "1"}).status == 0);
  for (const auto& [id, record] : comparable(place.path() / "a/records.jsonl", "id"))
    CHECK(record["n"].get<int>() == 1);
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a"}).status == 0);
  for (const auto& [id, record] : comparable(place.path() / "a/records.jsonl", "id"))
    CHECK(record["n"].get<int>() >= 3);
}

TEST_CASE("SIGINT ends after the running step with status 130 and nothing torn") {
  const Workplace place;
  write_text(place.path() / "long.yaml",
             "model: model\ntasks: [{name: needle, tokens: 1024, samples: 400, depths: 2, max_new_tokens: 16}]\n"
             "schemes: [{name: uniform, k_bits: 2, group: 16}]\n");
  Process process(place.path(), {"--threads", "1", "run", "long.yaml", "--out", "a"}, place.environment());
  const fs::path samples = place.path() / "a/samples.jsonl";
  while (process.running() && !(fs::exists(samples) && fs::file_size(samples) > 0))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  process.signal(SIGINT);
  const ProcessResult result = process.wait();
  CHECK(result.status == 130);
  CHECK_THAT(result.err, ContainsSubstring("interrupted"));
  const std::string text = read_text(samples);
  CHECK(text.ends_with("\n"));
  CHECK(comparable(samples, "point_id").size() >= 2);
}

TEST_CASE("memory, reuse and batches of one row change times only") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a"}).status == 0);
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "b", "--memory", "9MiB"}).status == 0);
  CHECK(comparable(place.path() / "b/records.jsonl", "id") == comparable(place.path() / "a/records.jsonl", "id"));
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "c", "--alone"}).status == 0);
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "d", "--no-greedy-reuse"}).status == 0);
  const auto alone = comparable(place.path() / "c/records.jsonl", "id");
  const auto decoded = comparable(place.path() / "d/records.jsonl", "id");
  CHECK(alone == decoded);  // one row a batch or all: the same bits
  CHECK(alone.size() == 10);
  const ProcessResult small = place.run({"run", "sweep.yaml", "--out", "e", "--memory", "2MiB"});
  CHECK(small.status == 2);
  CHECK_THAT(small.err, ContainsSubstring("--memory 2.0 MiB: one row of needle needs"));
  const std::regex smallest(R"(the smallest that works is (\d+) MiB)");
  std::smatch found;
  REQUIRE(std::regex_search(small.err, found, smallest));
  CHECK(place.run({"run", "sweep.yaml", "--out", "e", "--memory", found[1].str() + "MiB"}).status == 0);
}

TEST_CASE("a point that fails is a record, the others go on, the status tells") {
  const Workplace place;
  write_model_directory(place.path() / "model", 1, "model.layers.1.self_attn.k_proj.weight");
  write_text(place.path() / "sweep.yaml",
             "model: model\ntasks: [{name: needle, tokens: 640, samples: 2, depths: 2, max_new_tokens: 8}]\n"
             "schemes: [{name: full}, {name: uniform, group: 16}]\n");  // codecs refuse the NaN keys of layer 1
  const ProcessResult result = place.run({"run", "sweep.yaml", "--out", "a"});
  INFO(result.err);
  CHECK(result.status == 1);
  int failed = 0, ok = 0;
  for (const auto& [id, record] : comparable(place.path() / "a/records.jsonl", "id")) {
    failed += record["status"].get<std::string>() == "failed" && !record["error"].get<std::string>().empty();
    ok += record["status"].get<std::string>() == "ok" && record["n"].get<int>() == 2;
    CHECK_THAT(record["warnings"].dump(), ContainsSubstring("model.layers.1.self_attn.k_proj.weight"));
  }
  CHECK(failed == 1);
  CHECK(ok == 1);
  CHECK_THAT(place.run({"report", "a"}).out, ContainsSubstring("failed"));
}

TEST_CASE("bad input ends with status 2, names the place and writes nothing") {
  const Workplace place;
  const auto sweep_with = [&](const std::string& line) {
    write_text(place.path() / "bad.yaml",
               "model: model\ntasks: [{name: perplexity, text: model, tokens: 64, samples: 1}]\n" + line);
    return place.run({"run", "bad.yaml", "--out", "bad"});
  };
  const auto check = [&](const ProcessResult& result, const std::string& message) {
    INFO(result.err);
    CHECK(result.status == 2);
    CHECK_THAT(result.err, ContainsSubstring(message));
    CHECK_FALSE(fs::exists(place.path() / "bad"));
  };
  check(sweep_with("schemes: [{name: uniform, k_bitz: 4}]\n"), "bad.yaml:3: uniform.k_bitz");
  check(sweep_with("schemes: [{name: uniform, k_bits: 9}]\n"),
        "bad.yaml:3: uniform.k_bits = 9: 1 to 8 bits, or 16: exact");
  check(sweep_with("schemes: [{name: uniform, group: 5}]\n"),
        "uniform.k_group = 5 does not divide the model's head dim 16");
  check(sweep_with("schemes: [{name: unifrom}]\n"), "did you mean 'uniform'?");
  check(sweep_with("schemes: [{name: full}]\nview: as_decode\n"), "as_decoded");
  check(sweep_with("schemes: [{name: full}, {name: full}]\n"), "bad.yaml:3");
  check(place.run({"run", "nowhere.yaml", "--out", "bad"}), "nowhere.yaml");
  check(place.run({"run", "sweep.yaml", "--out", "bad", "--only", "nothing*"}), "matches none");
  write_text(place.path() / "bad.yaml",
             "model: nowhere\ntasks: [{name: perplexity, text: model, tokens: 64}]\nschemes: [{name: full}]\n");
  check(place.run({"run", "bad.yaml", "--out", "bad"}), "nowhere");
  write_text(place.path() / "bad.yaml",
             "model: model\ntasks: [{name: perplexity, text: model, tokens: 4096}]\nschemes: [{name: full}]\n");
  check(place.run({"run", "bad.yaml", "--out", "bad"}), "4096");
  write_text(place.path() / "bad.yaml",
             "model: model\ntasks: [{name: perplexity, text: no/such/file, tokens: 64}]\nschemes: [{name: full}]\n");
  check(place.run({"run", "bad.yaml", "--out", "bad"}), "no/such/file");
  CHECK(place.run({"run"}).status == 2);
  CHECK(place.run({"nonsense"}).status == 2);
}

TEST_CASE("a results directory of another sweep is refused and left alone") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a", "--limit", "1"}).status == 0);
  const std::string records = read_text(place.path() / "a/records.jsonl");
  write_text(place.path() / "other.yaml",
             "model: model\ntasks: [{name: perplexity, text: model, tokens: 64}]\nschemes: [{name: full}]\n");
  const ProcessResult result = place.run({"run", "other.yaml", "--out", "a"});
  CHECK(result.status == 2);
  CHECK_THAT(result.err, ContainsSubstring("another sweep"));
  CHECK(read_text(place.path() / "a/records.jsonl") == records);
}

TEST_CASE("other weights under the same name are refused") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a", "--limit", "1"}).status == 0);
  write_model_directory(place.path() / "model", 2);
  const ProcessResult result = place.run({"run", "sweep.yaml", "--out", "a"});
  CHECK(result.status == 2);
  CHECK_THAT(result.err, ContainsSubstring("weights"));
}

TEST_CASE("a full disk is an error that names the file, and the same command goes on when there is room") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a"}).status == 0);
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "b", "--limit", "1"}).status == 0);
  const auto bytes = static_cast<int64_t>(fs::file_size(place.path() / "b/samples.jsonl"));
  Process full(place.path(), {"--threads", "1", "run", "sweep.yaml", "--out", "b"}, place.environment(), bytes + 1000);
  const ProcessResult result = full.wait();
  CHECK(result.status == 2);
  CHECK_THAT(result.err, ContainsSubstring("samples.jsonl: cannot be written"));
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "b"}).status == 0);
  CHECK(comparable(place.path() / "b/records.jsonl", "id") == comparable(place.path() / "a/records.jsonl", "id"));
}

TEST_CASE("two shards that run at once in one directory merge into the records of a run without shards") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a"}).status == 0);
  const auto shard = [&](const std::string& which) {
    return std::vector<std::string>{"--threads", "1", "run", "sweep.yaml", "--out", "b", "--shard", which};
  };
  {
    Process one(place.path(), shard("1/2"), place.environment());
    Process two(place.path(), shard("2/2"), place.environment());
    const ProcessResult first = one.wait(), second = two.wait();
    INFO(first.err << second.err);
    REQUIRE(first.status == 0);
    REQUIRE(second.status == 0);
    CHECK_THAT(first.err, ContainsSubstring("shard 1/2 is done, 0 points failed"));
  }
  CHECK_FALSE(fs::exists(place.path() / "b/records.jsonl"));
  for (const char* file : {"b/samples-1-of-2.jsonl", "b/samples-2-of-2.jsonl"})
    CHECK(fs::file_size(place.path() / file) > 0);
  const ProcessResult merged = place.run({"merge", "b"});
  INFO(merged.out << merged.err);
  CHECK(merged.status == 0);
  CHECK_THAT(merged.out, ContainsSubstring("0 duplicates; 10 records written, 0 failed, 0 points incomplete"));
  const auto expected = comparable(place.path() / "a/records.jsonl", "id");
  CHECK(comparable(place.path() / "b/records.jsonl", "id") == expected);
  CHECK(place.run({"report", "b"}).status == 0);
  // Not in place: a directory that a run without shards goes on with, here with nothing to do.
  CHECK(place.run({"merge", "b", "--out", "c"}).status == 0);
  CHECK(comparable(place.path() / "c/records.jsonl", "id") == expected);
  CHECK(comparable(place.path() / "c/samples.jsonl", "point_id") ==
        comparable(place.path() / "a/samples.jsonl", "point_id"));
  CHECK_THAT(place.run({"run", "sweep.yaml", "--out", "c"}).err, ContainsSubstring(" 0 to run"));
  CHECK_THAT(place.run({"run", "sweep.yaml", "--out", "b", "--shard", "1/3"}).err, ContainsSubstring(" 0 to run"));
}

TEST_CASE("shards in directories of their own, one killed again and again, merge into the same records") {
  const Workplace place;
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a"}).status == 0);
  const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
  Rng rng(20261126);
  for (int i = 0; i < 8; ++i) {
    Process process(place.path(), {"--threads", "1", "run", "sweep.yaml", "--out", "b", "--shard", "1/2"},
                    place.environment());
    std::this_thread::sleep_for(whole * rng.uniform());
    process.signal(SIGKILL);
    process.wait();
  }
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "b", "--shard", "1/2"}).status == 0);
  const ProcessResult early = place.run({"merge", "b"});
  CHECK(early.status == 1);
  CHECK_THAT(early.out, ContainsSubstring("incomplete: ") && ContainsSubstring("not finished: shard 2/2"));
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "c", "--shard", "2/2"}).status == 0);
  CHECK(place.run({"merge", "b", "c"}).status == 2);
  REQUIRE(place.run({"merge", "c", "b", "--out", "d"}).status == 0);
  CHECK(comparable(place.path() / "d/records.jsonl", "id") == comparable(place.path() / "a/records.jsonl", "id"));
}

TEST_CASE("a shard that does not fit is refused with status 2") {
  const Workplace place;
  for (const char* bad : {"0/2", "3/2", "2", "x/y"}) {
    const ProcessResult result = place.run({"run", "sweep.yaml", "--out", "a", "--shard", bad});
    CHECK(result.status == 2);
    CHECK_THAT(result.err, ContainsSubstring("--shard '" + std::string(bad) + "'"));
    CHECK_FALSE(fs::exists(place.path() / "a"));
  }
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a", "--limit", "1"}).status == 0);
  const ProcessResult mixed = place.run({"run", "sweep.yaml", "--out", "a", "--shard", "1/2"});
  CHECK(mixed.status == 2);
  CHECK_THAT(mixed.err, ContainsSubstring("holds a run without shards"));
  CHECK(place.run({"merge", "a"}).status == 2);
}

TEST_CASE("a point that fails in shards is a failed record of the merged sweep") {
  const Workplace place;
  write_model_directory(place.path() / "model", 1, "model.layers.1.self_attn.k_proj.weight");
  write_text(place.path() / "sweep.yaml",
             "model: model\ntasks: [{name: needle, tokens: 640, samples: 4, depths: 2, max_new_tokens: 8}]\n"
             "schemes: [{name: full}, {name: uniform, group: 16}]\n");  // codecs refuse the NaN keys of layer 1
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a"}).status == 1);
  for (const char* shard : {"1/2", "2/2"}) {
    const ProcessResult result = place.run({"run", "sweep.yaml", "--out", "b", "--shard", shard});
    INFO(result.err);
    CHECK(result.status == 1);
  }
  const ProcessResult merged = place.run({"merge", "b"});
  CHECK(merged.status == 1);
  CHECK_THAT(merged.out, ContainsSubstring("2 records written, 1 failed, 0 points incomplete"));
  // A point fails on the first of its samples that comes up, and that is another one in a shard.
  auto sharded = comparable(place.path() / "b/records.jsonl", "id");
  auto whole = comparable(place.path() / "a/records.jsonl", "id");
  for (auto* records : {&sharded, &whole})
    for (auto& [id, record] : *records)
      if (record["status"] == "failed") {
        CHECK_THAT(record["error"].get<std::string>(), ContainsSubstring("NaN or infinity in"));
        record.erase("error");
      }
  CHECK(sharded == whole);
}

TEST_CASE("a sweep becomes records and its records the stored tables", "[golden]") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a"}).status == 0);
  // Measured values differ between machines: a decimal becomes '#'. What was run, and how the table is laid out, does
  // not.
  const std::string report = place.run({"report", "a", "--format", "markdown"}).out;
  std::string masked = std::regex_replace(report, std::regex("weights [0-9a-f]{8}"), "weights #");
  masked = std::regex_replace(masked, std::regex("[+-]?[0-9]+\\.[0-9]+(e-?[0-9]+)?"), "#");
  masked = std::regex_replace(std::regex_replace(masked, std::regex(" +"), " "), std::regex("-{3,}"), "---");
  const fs::path golden = fs::path(KVSWEEP_SOURCE_DIR) / "tests/golden/run/sweep_tables.md";
  if (std::getenv("KVSWEEP_WRITE_GOLDEN") != nullptr) {
    fs::create_directories(golden.parent_path());
    write_text(golden, masked);
    SKIP("wrote " << golden.string());
  }
  CHECK(masked == read_text(golden));
}

TEST_CASE("tables are coloured on a terminal only, and not where NO_COLOR is set") {
  const TemporaryDirectory place;
  const std::string report =
      std::string(KVSWEEP_PROGRAM) + " report '" + KVSWEEP_SOURCE_DIR + "/tests/golden/report/mixed' --table grid";
  // script(1) gives the program a terminal.
  if (std::system("command -v script >/dev/null 2>&1") != 0) SKIP("script is not installed");
  const auto printed = [&](const std::string& before, const std::string& command) {
    const std::string out = (place.path() / "out").string();
    CHECK(std::system((before + command + " >'" + out + "' </dev/null").c_str()) == 0);
    return read_text(out);
  };
  const std::string on_terminal = "script -qec \"" + report + "\" /dev/null";
  CHECK_THAT(printed("unset NO_COLOR; ", on_terminal), ContainsSubstring("\x1b["));
  CHECK(printed("NO_COLOR=1 ", on_terminal).find('\x1b') == std::string::npos);
  CHECK(printed("unset NO_COLOR; ", report).find('\x1b') == std::string::npos);
}

TEST_CASE("a dry run prints the plan and writes nothing") {
  const Workplace place;
  const ProcessResult result = place.run({"run", "sweep.yaml", "--out", "a", "--dry-run"});
  CHECK(result.status == 0);
  CHECK_THAT(result.out, ContainsSubstring("5 points x 4 samples"));
  CHECK_FALSE(fs::exists(place.path() / "a"));
}

TEST_CASE("a run with --only takes the points whose label matches") {
  const Workplace place;
  REQUIRE(place.run({"run", "sweep.yaml", "--out", "a", "--only", "*k_bits=2 v_bits=8*"}).status == 0);
  CHECK(comparable(place.path() / "a/records.jsonl", "id").size() == 2);
}

TEST_CASE("a person can time the schemes of a sweep") {
  const Workplace place;
  const auto bench = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "bench");
    arguments.insert(arguments.end(), {"sweep.yaml", "--repeats", "1"});
    return place.run(arguments);
  };
  const auto check = [&](const ProcessResult& result, const std::vector<std::string>& texts) {
    INFO(result.err);
    CHECK(result.status == 0);
    for (const std::string& text : texts) CHECK_THAT(result.out, ContainsSubstring(text));
  };
  check(bench({"encode", "--tokens", "64,128"}), {"encode: 64 tokens", "encode: 128 tokens", "transient MiB"});
  check(bench({"decode", "--tokens", "64"}), {"ns/token/head", "path", "k_bits=4 v_bits=8"});
  check(bench({"itl", "--tokens", "32,64,128", "--format", "csv"}),
        {"# itl: ms = intercept", "scheme,tokens,itl ms,itl quartiles", "full,128,"});
  check(bench({"factorial", "--tokens", "32,128", "--group", "16"}), {"cK ns/token/bit", "attention"});
  check(bench({"concurrency", "--tokens", "64", "--budget", "64KiB", "--max-rows", "2"}),
        {"sequences of 64 tokens in 64.0 KiB (caches alone, weights excluded)", "2 (capped)"});
  const auto refused = [&](const ProcessResult& result, const std::string& message) {
    CHECK(result.status == 2);
    CHECK_THAT(result.err, ContainsSubstring(message));
  };
  refused(bench({"decode", "--tokens", "9999"}), "--tokens 9999: the model allows 2048");
  refused(bench({"itl", "--tokens", "64,64"}), "two lengths at least");
  refused(bench({"factorial", "--tokens", "32,64", "--group", "12"}), "--group 12");
  refused(bench({"concurrency", "--budget", "lots"}), "--budget");
  refused(place.run({"bench"}), "sweep");
  refused(place.run({"bench", "itl"}), "sweep");
  refused(place.run({"bench", "itl", "sweep.yaml", "--format", "xml"}), "terminal, markdown, csv");
}

TEST_CASE("a person can look inside a model") {
  const Workplace place;
  CHECK_THAT(place.run({"model", "info", "model"}).out, ContainsSubstring("2 key-value heads"));
  CHECK_THAT(place.run({"model", "tokenize", "model", "hi"}).out, ContainsSubstring("104"));
  CHECK_THAT(place.run({"model", "logits", "model", "hi", "--top", "3"}).out, ContainsSubstring("probability"));
  CHECK(place.run({"model", "generate", "model", "hi", "--tokens", "5"}).status == 0);
  CHECK_THAT(place.run({"list", "schemes"}).out, ContainsSubstring("k_bits"));
  CHECK_THAT(place.run({"list", "tasks"}).out, ContainsSubstring("needle"));
}

}  // namespace kvsweep::testing
