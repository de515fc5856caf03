// contract: results are the same whatever the order and the files of their lines, columns hold what the lines say, and
// what is damaged or contradictory is told with its place.
#include "harness/report/analysis/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <sstream>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/report/analysis/natural_order.h"
#include "harness/report/analysis/sample_line.h"
#include "harness/report/baseline.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::full_precision;
using testing::read_text;
using testing::ResultsWorld;
using testing::TemporaryDirectory;
using testing::write_text;
namespace fs = std::filesystem;

namespace {

ResultsWorld small_world() {
  return ResultsWorld({{.points = {full_precision(), {4, 4}, {2, 2, "uniform", [](int64_t i) { return i % 3 == 0; }}}},
                       {.task = "copy", .tokens = "1024", .items = 7, .points = {full_precision(), {4, 4}}}});
}

std::vector<std::string> lines_of(const fs::path& file) {
  std::istringstream in(read_text(file));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

void write_lines(const fs::path& file, const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + '\n';
  write_text(file, text);
}

// Everything that results hold, places of lines apart.
std::string shown(const Results& results) {
  std::string out;
  for (const Record& record : results.records()) {
    out += to_json_line(record) + '\n';
    const PointSamples* samples = results.samples(record.id);
    if (samples == nullptr) continue;
    for (size_t i = 0; i < samples->size(); ++i) {
      const Item& item = results.items()[samples->item[i]];
      out += fmt::format("{} {}", item.sample_id, item.prompt_hash);
      for (const auto& [tag, value] : item.tags) out += fmt::format(" {}={}", tag, value);
      for (size_t m = 0; m < samples->metrics.size(); ++m)
        out += fmt::format(" {}={}", samples->metrics[m], samples->scores[m][i]);
      out += fmt::format(" {} {} {} {} {}\n", samples->kl[i], samples->kl_max[i], samples->positions[i],
                         samples->first_divergence[i], results.read_sample(samples->line[i]).output);
    }
  }
  return out;
}

std::string with_padding(const std::string& line) {
  return line + std::string(SampleLineReader::kPadding, ' ');
}

}  // namespace

TEST_CASE("numbers within names sort as numbers") {
  CHECK(natural_compare("tokens=512", "tokens=1024") < 0);
  CHECK(natural_compare("r9", "r10") < 0);
  CHECK(natural_compare("a", "a1") < 0);
  CHECK(natural_compare("1.5", "1.25") < 0);  // runs of digits, not decimals
  CHECK(natural_compare("007", "7") == 0);
  CHECK(natural_compare("b2", "a10") > 0);
}

TEST_CASE("the fast reader of sample lines says what the strict one says") {
  Rng rng(11);
  SampleLineReader reader;
  for (int round = 0; round < 300; ++round) {
    SampleRecord sample = testing::example_sample("p\xc3\xa9\"\\", round);
    sample.output.assign(rng.below(40), '"');
    sample.tags["quote\"d"] = "va\nlue\xe2\x82\xac";
    sample.scores = {{"f1", rng.uniform()}, {"nan", std::nan("")}, {"inf", -INFINITY}};
    sample.kl.resize(rng.below(5));
    for (float& kl : sample.kl) kl = static_cast<float>(rng.uniform());
    if (round % 7 == 0 && !sample.kl.empty()) sample.kl[0] = NAN;
    if (round % 3 == 0) sample.attention.reset();
    const std::string line = to_json_line(sample), padded = with_padding(line);
    const SampleLine* read = reader.read({padded.data(), line.size()});
    REQUIRE(read != nullptr);
    const SampleRecord strict = sample_from_json(line, "here");
    CHECK(read->point_id == strict.point_id);
    CHECK(read->sample_id == strict.sample_id);
    CHECK(read->prompt_hash == strict.prompt_hash);
    CHECK(read->index == strict.index);
    CHECK(read->context_tokens == strict.context_tokens);
    CHECK(read->generated == std::ssize(strict.output_tokens));
    CHECK(read->positions == std::ssize(strict.kl));
    CHECK(read->top1_flips == strict.top1_flips);
    CHECK(read->first_divergence == strict.first_divergence);
    REQUIRE(read->tags.size() == strict.tags.size());
    for (const auto& [name, value] : read->tags) CHECK(strict.tags.at(std::string(name)) == value);
    REQUIRE(read->scores.size() == strict.scores.size());
    CHECK(read->scores[0].second == strict.scores.at("f1"));
    CHECK(std::isnan(strict.scores.at("nan")));
    for (const auto& [name, value] : read->scores) {
      const double expected = strict.scores.at(std::string(name));
      CHECK(((std::isnan(value) && std::isnan(expected)) || value == expected));
    }
    double sum = 0;
    for (const float kl : strict.kl) sum += kl;
    const double mean = sum / static_cast<double>(strict.kl.size());
    CHECK(((std::isnan(read->kl) && std::isnan(mean)) || read->kl == mean));
    if (strict.attention)
      CHECK(read->oldest == strict.attention->oldest);
    else
      CHECK(std::isnan(read->oldest));
  }
}

TEST_CASE("the fast reader refuses every line that is cut") {
  SampleLineReader reader;
  const std::string line = to_json_line(testing::example_sample("p", 0));
  for (size_t n = 0; n < line.size(); ++n) {
    const std::string padded = with_padding(line.substr(0, n));
    CHECK(reader.read({padded.data(), n}) == nullptr);
  }
  const std::string longer = with_padding(line + "}");
  CHECK(reader.read({longer.data(), line.size() + 1}) == nullptr);
}

TEST_CASE("order of lines, files of shards and threads do not show") {
  const ResultsWorld world = small_world();
  const std::string expected = shown(read_results(world.path(), 1));
  CHECK(expected.find("s39") != std::string::npos);
  std::vector<std::string> records = lines_of(world.records_file()), samples = lines_of(world.samples_file());
  Rng rng(3);
  rng.shuffle(records);
  rng.shuffle(samples);
  write_lines(world.records_file(), records);
  const int threads = GENERATE(1, 2, 5);
  if (GENERATE(false, true)) {
    write_lines(world.path() / "samples-1-of-2.jsonl", {samples.begin(), samples.begin() + 50});
    write_lines(world.path() / "samples-2-of-2.jsonl", {samples.begin() + 50, samples.end()});
    fs::remove(world.samples_file());
  } else {
    write_lines(world.samples_file(), samples);
  }
  CHECK(shown(read_results(world.path(), threads)) == expected);
}

TEST_CASE("records come by task, full precision first, numbers as numbers") {
  const ResultsWorld world = small_world();
  std::string order;
  const Results results = read_results(world.path());
  for (const Record& record : results.records())
    order += fmt::format("{}{} ", record.point.task, record.nominal_k_bits);
  CHECK(order == "copy16 copy4 needle16 needle2 needle4 ");
}

TEST_CASE("lines longer than a block are read") {
  const ResultsWorld world = small_world();
  SampleRecord sample = world.samples().front();
  sample.sample_id = "long";
  sample.index = 100;
  sample.output.assign(9 << 20, 'x');
  write_text(world.samples_file(), read_text(world.samples_file()) + to_json_line(sample) + '\n');
  const Results results = read_results(world.path(), 2);
  const PointSamples& samples = *results.samples(sample.point_id);
  CHECK(samples.size() == 41);
  CHECK(results.read_sample(samples.line.back()).output.size() == sample.output.size());
}

TEST_CASE("a torn last line is left out, a damaged one is told with its place") {
  const ResultsWorld world = small_world();
  const std::string expected = shown(read_results(world.path()));
  std::vector<std::string> lines = lines_of(world.samples_file());
  write_text(world.samples_file(), read_text(world.samples_file()) + lines[0].substr(0, 100));
  CHECK(shown(read_results(world.path())) == expected);
  lines[7] = lines[7].substr(0, lines[7].size() / 2);
  write_lines(world.samples_file(), lines);
  CHECK_THROWS_MATCHES(read_results(world.path()), DataError, MessageMatches(ContainsSubstring("samples.jsonl:8: ")));
  lines[7] = R"({"point_id":"p"})";
  write_lines(world.samples_file(), lines);
  CHECK_THROWS_MATCHES(read_results(world.path()), DataError,
                       MessageMatches(ContainsSubstring("samples.jsonl:8: sample_id is missing")));
}

TEST_CASE("a sample twice counts once, with other scores it is an error that names both places") {
  const ResultsWorld world = small_world();
  const std::string expected = shown(read_results(world.path()));
  std::vector<std::string> lines = lines_of(world.samples_file());
  lines.push_back(lines[3]);
  write_lines(world.samples_file(), lines);
  CHECK(shown(read_results(world.path())) == expected);
  SampleRecord other = world.samples()[3];
  other.scores["exact_match"] = 0.5;
  lines.back() = to_json_line(other);
  write_lines(world.samples_file(), lines);
  CHECK_THROWS_MATCHES(
      read_results(world.path()), DataError,
      MessageMatches(ContainsSubstring("samples.jsonl:4 and ") && ContainsSubstring("sample s3 of point")));
}

TEST_CASE("samples of one point have the same scores") {
  const ResultsWorld world = small_world();
  std::vector<std::string> lines = lines_of(world.samples_file());
  SampleRecord other = world.samples()[3];
  other.scores = {{"f1", 1}};
  lines[3] = to_json_line(other);
  write_lines(world.samples_file(), lines);
  CHECK_THROWS_MATCHES(read_results(world.path()), DataError, MessageMatches(ContainsSubstring("samples.jsonl:4: ")));
}

TEST_CASE("a baseline holds what comparisons need of a directory") {
  const ResultsWorld world = small_world();
  const TemporaryDirectory root;
  const fs::path file = root.path() / "baseline.jsonl";
  write_baseline(file, world.records(), world.samples());
  const Results results = read_results(file), original = read_results(world.path());
  REQUIRE(results.records().size() == original.records().size());
  for (const Record& record : original.records()) {
    const PointSamples &a = *results.samples(record.id), &b = *original.samples(record.id);
    CHECK(a.scores == b.scores);
    CHECK(results.items()[a.item[0]].prompt_hash == original.items()[b.item[0]].prompt_hash);
  }
  const std::string text = read_text(file);
  CHECK(text.find("the answer") == std::string::npos);
  const auto refused = [&](const std::string& changed, const std::string& message) {
    write_text(file, changed);
    CHECK_THROWS_MATCHES(read_results(file), DataError, MessageMatches(ContainsSubstring(message)));
  };
  refused("{}\n", "neither a results directory nor a baseline");
  refused("{\"kvsweep_baseline\":9}\n", "is a form of baseline that this program does not know");
  refused(text.substr(0, text.size() - 1), "torn");
  const size_t first = text.find('\n') + 1, second = text.find('\n', first) + 1;
  refused(text.substr(0, second) + text.substr(first), "is here twice");
  CHECK_THROWS_MATCHES(read_results(root.path() / "none"), DataError,
                       MessageMatches(ContainsSubstring("no such results directory or baseline")));
}

}  // namespace kvsweep
