// contract: `kvsweep run --gate` as a person starts it: stops when every verdict is certain, keeps what it has
// measured, and its exit status is the gate's. The model's weights are random, so what a scheme loses is made by the
// task: the answer to each prompt is what full precision says.
#include <fmt/format.h>

#include <algorithm>
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

constexpr int kItems = 240;

std::vector<nlohmann::json> lines_of(const fs::path& file) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(read_text(file));
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// A directory with a tiny model, items that full precision answers, and a sweep of a broken scheme, a harmless one and
// full precision.
class Workplace {
 public:
  Workplace() {
    write_model_directory(path() / "model");
    write_text(path() / "items.yaml",
               "prompt: \"Once {{name}} went for a walk{{|}} and\"\nanswer: \"{{answer}}\"\nmetric: exact_match\n"
               "max_new_tokens: 6\n");
    write_items({});
    write_sweep(
        "sweep.yaml", kItems,
        "[{name: uniform, k_bits: 1, v_bits: 1, group: 16}, {name: uniform, k_bits: 16, v_bits: 16, group: 16}]");
    write_sweep("full.yaml", kItems, "[{name: full}]");
    const ProcessResult asked = run({"run", "full.yaml", "--out", "asked"});
    INFO(asked.err);
    REQUIRE(asked.status == 0);
    std::vector<std::string> answers(kItems);
    for (const nlohmann::json& sample : lines_of(path() / "asked/samples.jsonl"))
      answers[sample["index"].get<size_t>()] = sample["output"].get<std::string>();
    for (std::string& answer : answers)
      // Of spaces and control characters nothing may be left: there full precision is wrong.
      if (std::none_of(answer.begin(), answer.end(), [](char c) { return c > ' '; })) answer.assign(1, '?');
    write_items(answers);
  }
  const fs::path& path() const { return directory_.path(); }
  ProcessResult run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"--threads", "1"});
    return run_program(
        path(), arguments,
        {{"XDG_CACHE_HOME", (path() / "cache").string()}, {"OMP_NUM_THREADS", "1"}, {"KVSWEEP_DATA", path().string()}});
  }
  ProcessResult gated(const std::string& rules, std::vector<std::string> more = {},
                      const std::string& sweep = "sweep.yaml") const {
    write_text(path() / "gates.yaml", rules);
    more.insert(more.begin(), {"run", sweep, "--out", "out", "--gate", "gates.yaml"});
    return run(more);
  }
  size_t stored(const std::string& file) const {
    return fs::exists(path() / "out" / file) ? lines_of(path() / "out" / file).size() : 0;
  }
  void write_sweep(const std::string& file, int samples, const std::string& schemes) const {
    write_text(path() / file,
               fmt::format("model: model\ntasks: [{{name: generate, data: items.jsonl, template: {}, tokens: 64, "
                           "samples: {}}}]\nschemes: {}\n",
                           (path() / "items.yaml").string(), samples, schemes));
  }

 private:
  void write_items(const std::vector<std::string>& answers) const {
    std::string text;
    for (int i = 0; i < kItems; ++i)
      text += nlohmann::json{{"name", fmt::format("number {}", 7 * i)},
                             {"answer", answers.empty() ? "?" : answers[static_cast<size_t>(i)]}}
                  .dump() +
              "\n";
    write_text(path() / "items.jsonl", text);
  }

  TemporaryDirectory directory_;
};

constexpr const char* kBroken = "- {scheme: uniform/k_bits=1 v_bits=1 *, max_drop: 0.1}\n";
constexpr const char* kHarmless = "- {scheme: uniform/k_bits=16 v_bits=16 *, max_drop: 0.1}\n";

}  // namespace

TEST_CASE("a gated run stops when a FAIL is certain, with status 1, and the run that follows measures the rest") {
  const Workplace place;
  const ProcessResult stopped = place.gated(kBroken);
  INFO(stopped.out << stopped.err);
  CHECK(stopped.status == 1);
  CHECK_THAT(stopped.out, ContainsSubstring("1 of 1 verdicts are certain") && ContainsSubstring("FAIL"));
  CHECK_THAT(stopped.err, ContainsSubstring("decided; the same command without it measures the rest"));
  const size_t points = 2 + 1;  // and full precision
  const size_t kept = place.stored("samples.jsonl");
  CHECK(kept > points * kItems / 2);  // what the rest can gain is not known
  CHECK(kept < points * kItems);
  CHECK(place.stored("records.jsonl") == 0);
  const std::string before = read_text(place.path() / "out/samples.jsonl");

  CHECK(place.gated(kBroken).status == 1);  // nothing is measured to say it again
  CHECK(place.stored("samples.jsonl") == kept);
  const ProcessResult rest = place.run({"run", "sweep.yaml", "--out", "out"});
  INFO(rest.err);
  CHECK(rest.status == 0);
  CHECK(read_text(place.path() / "out/samples.jsonl").starts_with(before));
  CHECK(place.stored("samples.jsonl") == points * kItems);
  CHECK(place.stored("records.jsonl") == points - 1);
  CHECK(place.run({"gate", "gates.yaml", "out"}).status == 1);
  // Nothing is left to measure: the directory is judged.
  const ProcessResult judged = place.gated(kHarmless);
  CHECK(judged.status == 0);
  CHECK_THAT(judged.out, ContainsSubstring("PASS"));
}

TEST_CASE("a gated run of a harmless scheme passes with status 0") {
  const Workplace place;
  const ProcessResult passed = place.gated(kHarmless, {"--only", "*k_bits=16*v_bits=16*"});
  INFO(passed.out << passed.err);
  CHECK(passed.status == 0);
  CHECK_THAT(passed.out, ContainsSubstring("PASS"));
  CHECK(place.stored("samples.jsonl") >= 2 * kItems * 9 / 10);  // a PASS needs nearly all
  const ProcessResult ended =
      place.gated("- {scheme: uniform, max_drop: 0.1, pooled: true}\n", {"--only", "*k_bits=16*v_bits=16*"});
  INFO(ended.out << ended.err);
  CHECK(ended.status == 0);  // known at the end only
  CHECK(place.stored("samples.jsonl") == 2 * kItems);
  CHECK(place.stored("records.jsonl") == 1);
}

TEST_CASE("a gated run that cannot tell ends with status 3, one whose rule matches nothing with 1 at once") {
  const Workplace place;
  const ProcessResult few = place.gated(kHarmless, {"--limit", "8"});
  INFO(few.out << few.err);
  CHECK(few.status == 3);
  CHECK_THAT(few.out, ContainsSubstring("8 items, min_items is 30"));
  const ProcessResult nothing = place.gated("- {scheme: kivi, max_drop: 0.1}\n");
  INFO(nothing.out << nothing.err);
  CHECK(nothing.status == 1);
  CHECK_THAT(nothing.out, ContainsSubstring("matches no point"));
  CHECK(place.stored("samples.jsonl") == 0);
}

TEST_CASE("groups that an earlier run has finished are judged with those that a gated run measures") {
  const Workplace place;
  write_text(place.path() / "two.yaml",
             fmt::format("model: model\ntasks: [{{name: generate, data: items.jsonl, template: {0}/items.yaml, "
                         "tokens: [64, 65], samples: {1}}}]\nschemes: [{{name: uniform, k_bits: 1, v_bits: 1, group: "
                         "16}}, {{name: full}}]\n",
                         place.path().string(), kItems));
  REQUIRE(place.run({"run", "two.yaml", "--out", "out", "--only", "*tokens=64*"}).status == 0);
  const ProcessResult result =
      place.gated("- {scheme: [full, uniform], max_drop: 0.1}\n", {"--only", "*tokens=65*| full*"}, "two.yaml");
  INFO(result.out << result.err);
  CHECK(result.status == 1);  // the scheme at 64 tokens
  CHECK_THAT(result.out, ContainsSubstring("FAIL") && ContainsSubstring("uniform"));
}

TEST_CASE("bad input of a gated run ends with status 2 before anything is written") {
  const Workplace place;
  const auto check = [&](const ProcessResult& result, const std::string& message) {
    INFO(result.out << result.err);
    CHECK(result.status == 2);
    CHECK_THAT(result.err, ContainsSubstring(message));
    CHECK_FALSE(fs::exists(place.path() / "out"));
  };
  check(place.gated("- {scheme: uniform, max_drop: 0.1}\n- {scheme: uniform, max_dorp: 0.1}\n"), "gates.yaml:2");
  check(place.gated("- {scheme: uniform, max_drop: 0.1, against: baseline}\n"), "name one with --baseline");
  check(place.gated(kBroken, {"--baseline", "nowhere"}), "nowhere");
  check(place.run({"run", "sweep.yaml", "--out", "out", "--gate", "none.yaml"}), "none.yaml");
  check(place.run({"run", "sweep.yaml", "--gate", "gates.yaml"}), "--out");
  write_model_directory(place.path() / "other", 2);
  write_text(place.path() / "models.yaml",
             "model: [model, other]\ntasks: [{name: perplexity, text: model, tokens: 64, samples: 1}]\n"
             "schemes: [{name: full}]\n");
  check(place.gated(kBroken, {}, "models.yaml"), "a gate can watch sweeps of one model, this one has 2");
}

}  // namespace kvsweep::testing
