// golden and contract: stored results make the stored analysis, which scripts/figures.py draws; what is exported reads
// back as the numbers that were recorded, in whatever order the lines lay; points without results are there with their
// reason.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/core/error.h"
#include "harness/report/analysis/analysis_json.h"
#include "harness/report/export/figures.h"
#include "harness/report/export/lm_eval.h"
#include "harness/report/export/long_csv.h"
#include "harness/report/export/names.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
using testing::full_precision;
using testing::read_text;
using testing::ResultsWorld;
using testing::TemporaryDirectory;
using testing::write_text;
namespace fs = std::filesystem;

namespace {

// Cells of RFC 4180, "\n" line ends.
std::vector<std::vector<std::string>> csv_cells(const std::string& text) {
  std::vector<std::vector<std::string>> rows(1, {""});
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '"' && i + 1 < text.size() && text[i + 1] == '"')
      rows.back().back() += text[++i];
    else if (c == '"')
      quoted = !quoted;
    else if (!quoted && c == ',')
      rows.back().emplace_back();
    else if (!quoted && c == '\n')
      rows.push_back({""});
    else
      rows.back().back() += c;
  }
  rows.pop_back();
  return rows;
}

// Adds the places at which two differ. Numbers may differ in their last digits: mathematical libraries do.
void compare(const json& stored, const json& made, const std::string& place, std::vector<std::string>& differ) {
  if (stored.is_number() && made.is_number()) {
    const double a = stored.get<double>(), b = made.get<double>();
    if (std::abs(a - b) > 1e-9 * std::max(std::abs(a), 1e-3)) differ.push_back(place);
  } else if (stored.is_object() && made.is_object()) {
    for (const auto& [key, value] : stored.items())
      if (made.contains(key))
        compare(value, made[key], place + "/" + key, differ);
      else
        differ.push_back(place + "/" + key + " is missing");
    for (const auto& [key, value] : made.items())
      if (!stored.contains(key)) differ.push_back(place + "/" + key + " is new");
  } else if (stored.is_array() && made.is_array() && stored.size() == made.size()) {
    for (size_t i = 0; i < stored.size(); ++i) compare(stored[i], made[i], place + "/" + std::to_string(i), differ);
  } else if (stored != made) {
    differ.push_back(place);
  }
}

class LongTable {
 public:
  explicit LongTable(const fs::path& path) {
    std::ostringstream out;
    count = write_long_csv(read_results(path), out);
    text = out.str();
    rows = csv_cells(text);
    header = rows.front();
    rows.erase(rows.begin());
  }
  const std::string& cell(size_t row, const std::string& column) const {
    const auto at = std::find(header.begin(), header.end(), column);
    REQUIRE(at != header.end());
    return rows[row][static_cast<size_t>(at - header.begin())];
  }
  std::string text;
  int64_t count = 0;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};

std::vector<testing::WorldGroup> two_tasks() {
  return {{.items = 6,
           .points = {full_precision(),
                      {4, 2, "uniform", [](int64_t i) { return 1.0 / (3.0 + static_cast<double>(i)); }},
                      {2, 2, "uniform", [](int64_t) { return 0.0; }, "failed"}},
           .tags =
               [](int64_t i) {
                 return std::map<std::string, std::string>{{"depth", std::to_string(i % 2)}, {"text", "a, \"b\"\nc"}};
               }},
          {.task = "perplexity",
           .metric = "nll",
           .kind = "language_modeling",
           .items = 4,
           .exponential = true,
           .higher_is_better = false,
           .points = {
               full_precision([](int64_t) { return 2.0; }),
               {4, 2, "uniform", [](int64_t i) { return i == 3 ? std::numeric_limits<double>::quiet_NaN() : 2.25; }}}}};
}

fs::path only_file(const fs::path& folder, const std::string& prefix) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path());
  REQUIRE(found.size() == 1);
  return found.front();
}

std::vector<json> json_lines(const fs::path& path) {
  std::vector<json> lines;
  std::istringstream in(read_text(path));
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

}  // namespace

TEST_CASE("stored results make the stored analysis", "[golden]") {
  // `kvsweep export FOLDER --format analysis`, without the folder's name.
  const auto files = testing::golden_files("report/[^/]*/analysis[.]json");
  REQUIRE_FALSE(files.empty());
  for (const fs::path& file : files) {
    INFO(file.string());
    json made = json::parse(analysis_json(analyse(read_results(file.parent_path())), {.kl_buckets = kFigureBuckets}));
    made["path"] = "results";
    std::vector<std::string> differ;
    compare(json::parse(read_text(file)), made, "", differ);
    CHECK(differ == std::vector<std::string>{});
  }
}

TEST_CASE("the long form has a row a sample and metric, and numbers read back as the same numbers") {
  const ResultsWorld world(two_tasks());
  const LongTable table(world.path());
  CHECK(table.count == 6 + 6 + 1 + 4 + 4);  // full, uniform 4/2, one failed; full, uniform 4/2
  REQUIRE(std::ssize(table.rows) == table.count);
  std::map<std::pair<std::string, std::string>, double> recorded;
  for (const SampleRecord& sample : world.samples())
    recorded[{sample.point_id, sample.sample_id}] = sample.scores.begin()->second;
  for (size_t i = 0; i < table.rows.size(); ++i) {
    REQUIRE(table.rows[i].size() == table.header.size());
    if (table.cell(i, "sample_id").empty()) continue;
    const double wanted = recorded.at({table.cell(i, "point_id"), table.cell(i, "sample_id")});
    const double value = std::stod(table.cell(i, "value"));
    CHECK((value == wanted || (std::isnan(value) && std::isnan(wanted))));
    CHECK(table.cell(i, "prompt_hash").starts_with(table.cell(i, "task")));
    if (table.cell(i, "scheme") == "uniform") CHECK(std::stof(table.cell(i, "kl")) == 0.0625f);  // 1 / 2^4
    if (table.cell(i, "task") == "needle") CHECK_THAT(table.cell(i, "tags"), ContainsSubstring("text=a, \"b\"\nc"));
    CHECK(table.cell(i, "higher_is_better") == (table.cell(i, "metric") == "nll" ? "False" : "True"));
  }
}

TEST_CASE("a point without samples is a row of the long form that says why") {
  const ResultsWorld world(two_tasks());
  const LongTable table(world.path());
  std::vector<std::string> gaps;
  for (size_t i = 0; i < table.rows.size(); ++i)
    if (table.cell(i, "sample_id").empty()) {
      gaps.push_back(table.cell(i, "status") + ": " + table.cell(i, "gap"));
      CHECK(table.cell(i, "value").empty());
      CHECK(table.cell(i, "effective_bits").empty());
    }
  CHECK(gaps == std::vector<std::string>{"failed: out of memory"});
}

TEST_CASE("exports do not depend on the order of lines") {
  const ResultsWorld world(two_tasks());
  const std::string before = LongTable(world.path()).text;
  const TemporaryDirectory out;
  write_lm_eval(read_results(world.path()), out.path() / "a");
  for (const fs::path& file : {world.records_file(), world.samples_file()}) {
    std::vector<std::string> lines;
    std::istringstream in(read_text(file));
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    std::string reversed;
    for (auto line = lines.rbegin(); line != lines.rend(); ++line) reversed += *line + "\n";
    write_text(file, reversed);
  }
  CHECK(LongTable(world.path()).text == before);
  write_lm_eval(read_results(world.path()), out.path() / "b");
  int64_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(out.path() / "a")) {
    if (!entry.is_regular_file()) continue;
    ++files;
    CHECK(read_text(entry.path()) == read_text(out.path() / "b" / fs::relative(entry.path(), out.path() / "a")));
  }
  CHECK(files == 3 + 2 + 2);  // results of three configurations, samples of two tasks for each that was measured
}

TEST_CASE("lm-eval: a folder a configuration, with means, standard errors and every sample") {
  const ResultsWorld world(two_tasks());
  const TemporaryDirectory out;
  const LmEvalExport counts = write_lm_eval(read_results(world.path()), out.path());
  CHECK(counts.folders == 3);
  CHECK(counts.tasks == 4);
  CHECK(counts.samples == 2 * 6 + 2 * 4);
  REQUIRE(counts.gaps.size() == 1);
  CHECK_THAT(counts.gaps.front(), ContainsSubstring("k_bits=2") && ContainsSubstring("failed: out of memory"));

  const fs::path folder = out.path() / "smollm2-135m__uniform_k_bits=4";
  const json all = json::parse(read_text(folder / "results_2026-11-22T10-00-00.json"));
  const json& needle = all["results"]["needle_512"];
  const Record& record = *std::find_if(world.records().begin(), world.records().end(), [](const Record& r) {
    return r.point.task == "needle" && r.point.scheme == "uniform" && r.status == "ok";
  });
  CHECK(needle["exact_match,none"] == record.metrics.at("exact_match").mean);
  CHECK(needle["exact_match_stderr,none"] == record.metrics.at("exact_match").standard_error);
  CHECK(needle["sample_len"] == 6);
  CHECK(all["n-samples"]["needle_512"] == json{{"original", 6}, {"effective", 6}});
  CHECK(all["versions"]["needle_512"] == 2);
  CHECK(all["n-shot"]["needle_512"] == 0);
  CHECK(all["higher_is_better"]["perplexity_512"] == json{{"nll", false}});
  CHECK(all["results"]["perplexity_512"]["nll,none"].is_null());  // one sample is not a number
  CHECK(all["config"]["model_args"]["v_bits"] == "2");
  CHECK(all["results"]["perplexity_512"]["nll_stderr,none"] == "N/A");
  CHECK(all["configs"]["needle_512"]["output_type"] == "generate_until");
  CHECK(all["configs"]["needle_512"]["metadata"]["view"] == "exact");
  CHECK(all["configs"]["needle_512"]["metadata"]["effective_bits"] == record.effective_bits);
  CHECK(all["git_hash"] == "0123abcd");
  CHECK(all["date"] == 1795341600.0);  // 2026-11-22T10:00:00Z
  for (const char* key : {"group_subtasks", "task_hashes", "model_name", "model_source", "model_name_sanitized"})
    CHECK(all.contains(key));

  const std::vector<json> samples = json_lines(only_file(folder, "samples_needle_512_"));
  REQUIRE(samples.size() == 6);
  for (size_t i = 0; i < samples.size(); ++i) {
    CHECK(samples[i]["doc_id"] == i);
    CHECK(samples[i]["doc"]["sample_id"] == "s" + std::to_string(i));
    CHECK(samples[i]["exact_match"] == 1.0 / (3.0 + static_cast<double>(i)));
    CHECK(samples[i]["filtered_resps"] == json{"the answer is 4"});
    CHECK(samples[i]["resps"] == json::array({json{"the answer is 4"}}));
    CHECK(samples[i]["metrics"] == json{"exact_match"});
    CHECK(samples[i]["filter"] == "none");
    CHECK(samples[i]["arguments"]["gen_args_0"]["arg_0"] == "");
    for (const char* key : {"target", "doc_hash", "prompt_hash", "target_hash"}) CHECK(samples[i].contains(key));
  }
  const json failed = json::parse(read_text(only_file(out.path() / "smollm2-135m__uniform_k_bits=2", "results_")));
  CHECK(failed["results"].empty());
  CHECK(failed["configs"].empty());
  CHECK(failed["kvsweep_failed"]["needle_512"]["metadata"]["error"] == "out of memory");
}

TEST_CASE("file names say what differs and are never the same") {
  const std::string longest(300, 'x');
  const std::vector<std::string> names = file_names({{"uniform", {{"k", "4"}, {"v", "2"}, {"group", "64"}}},
                                                     {"uniform", {{"k", "4"}, {"v", "4"}, {"group", "64"}}},
                                                     {"kivi", {{"k", "2"}}},
                                                     {"odd", {{"k", "a/b"}}},
                                                     {"odd", {{"k", "a b"}}},
                                                     {"long", {{"k", longest}}},
                                                     {"long", {{"k", longest + "y"}}}});
  CHECK(names[0] == "uniform_v=2");
  CHECK(names[1] == "uniform_v=4");
  CHECK(names[2] == "kivi");
  CHECK(names[3].starts_with("odd_k=a_b_"));
  CHECK(names[3] != names[4]);
  CHECK(names[5].size() == 120);
  CHECK(names[5] != names[6]);
}

TEST_CASE("figures need the source folder and its Python environment, and say how to get them") {
  const TemporaryDirectory source;
  CHECK_THROWS_MATCHES(figure_command(source.path(), "$KVSWEEP_SOURCE"), ConfigError,
                       MessageMatches(ContainsSubstring("scripts/figures.py is not there ($KVSWEEP_SOURCE is")));
  fs::create_directories(source.path() / "scripts");
  write_text(source.path() / "scripts/figures.py", "");
  CHECK_THROWS_MATCHES(figure_command(source.path(), "$KVSWEEP_SOURCE"), ConfigError,
                       MessageMatches(ContainsSubstring("run " + (source.path() / "scripts/bootstrap.sh").string())));
  CHECK(run_and_wait({"/bin/sh", "-c", "exit 7"}) == 7);
  CHECK(run_and_wait({"/bin/sh", "-c", "kill -9 $$"}) == 128 + 9);
  CHECK_THROWS_AS(run_and_wait({(source.path() / "nothing").string()}), ConfigError);
}

}  // namespace kvsweep
