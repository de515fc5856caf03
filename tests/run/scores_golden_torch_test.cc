// golden: tasks on a real model at full precision against transformers in float32: the same log-likelihoods and texts.
#include <c10/core/InferenceMode.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/core/hash.h"
#include "harness/run/reference.h"
#include "models/load_model.h"
#include "tests/support/golden.h"
#include "tests/support/tasks.h"
#include "tests/support/torch/evaluate.h"

namespace kvsweep::testing {
namespace {

using Json = nlohmann::json;

// Lines of every file of golden scores of a kind, or the running test is skipped.
std::vector<Json> golden_scores_or_skip(const std::string& file) {
  std::vector<Json> lines;
  for (const auto& path : golden_files("scores/" + file + "[^/]*[.]jsonl"))
    for (const std::string& line : lines_of(path)) lines.push_back(Json::parse(line));
  if (lines.empty()) SKIP("no scores/" << file << "*.jsonl in the golden roots");
  return lines;
}

const LoadedModel& smollm2() {
  static const LoadedModel model = [] {
    ModelSpec spec;
    spec.name = "smollm2-135m";
    spec.path = smollm2_or_skip();
    return load_model(spec);
  }();
  return model;
}

std::string prompt_hash(const Sample& sample) {
  const Tokenizer& tokenizer = *smollm2().tokenizer;
  return sha256_hex(tokenizer.decode(sample.context, false) + tokenizer.decode(sample.query, false));
}

std::map<std::string, Sample> samples_by_prompt(const std::string& task, const std::string& data,
                                                const std::map<std::string, std::string>& values) {
  const DataLocator locator = data_or_skip(data);
  std::map<std::string, Sample> samples;
  for (Sample& sample : make_task(task, values)->samples({*smollm2().tokenizer, locator, nullptr, 17}))
    samples.emplace(prompt_hash(sample), sample);
  return samples;
}

// Of each group of lines only the first `per_group`.
std::vector<Json> first_of_each(const std::vector<Json>& lines, const char* key, size_t per_group) {
  std::map<std::string, size_t> seen;
  std::vector<Json> out;
  for (const Json& line : lines)
    if (seen[line.contains(key) ? line[key].get<std::string>() : ""]++ < per_group) out.push_back(line);
  return out;
}

std::vector<Output> full_precision(const std::vector<Sample>& samples) {
  static const Reference reference = find_reference();
  const Engine engine(*smollm2().llama, *smollm2().tokenizer, *reference.scheme);
  std::vector<Output> outputs;
  for (auto& rows : evaluate_all(engine, samples, {}, {})) outputs.push_back(std::move(rows[0].output));
  return outputs;
}

void check_mmlu(size_t per_subject) {
  const c10::InferenceMode no_autograd;
  const std::vector<Json> lines = first_of_each(golden_scores_or_skip("mmlu"), "subject", per_subject);
  std::string subjects;
  for (const Json& line : lines) {
    const auto name = line["subject"].get<std::string>();
    if (subjects.find(name) == std::string::npos) subjects += (subjects.empty() ? "" : ",") + name;
  }
  const auto known = samples_by_prompt("mmlu", "mmlu", {{"tokens", "4096"}, {"subjects", subjects}});
  std::vector<Sample> samples;
  for (const Json& line : lines) {
    INFO(line["subject"] << " " << line["index"]);
    REQUIRE(known.contains(line["prompt_sha256"]));
    samples.push_back(known.at(line["prompt_sha256"]));
  }
  const std::vector<Output> outputs = full_precision(samples);
  for (size_t i = 0; i < lines.size(); ++i) {
    INFO(lines[i]["subject"] << " " << lines[i]["index"]);
    const auto expected = lines[i]["loglik"].get<std::vector<double>>();
    REQUIRE(outputs[i].choices.size() == expected.size());
    std::vector<double> sorted = expected;
    std::sort(sorted.rbegin(), sorted.rend());
    size_t best = 0;
    for (size_t choice = 0; choice < expected.size(); ++choice) {
      CHECK(samples[i].choices[choice] == std::vector<int32_t>{lines[i]["choice_ids"][choice].get<int32_t>()});
      CHECK(std::abs(outputs[i].choices[choice].log_likelihood - expected[choice]) < 2e-3);
      if (outputs[i].choices[choice].log_likelihood > outputs[i].choices[best].log_likelihood) best = choice;
    }
    if (sorted[0] - sorted[1] > 4e-3) CHECK(std::string(1, "ABCD"[best]) == lines[i]["pred"].get<std::string>());
  }
}

void check_gsm8k(size_t count) {
  const c10::InferenceMode no_autograd;
  const std::vector<Json> lines = first_of_each(golden_scores_or_skip("gsm8k_cot"), "task", count);
  const auto known = samples_by_prompt(
      "gsm8k", "gsm8k", {{"tokens", "4096"}, {"format", "cot"}, {"samples", "100"}, {"max_new_tokens", "160"}});
  std::vector<Sample> samples;
  for (const Json& line : lines) {
    INFO("question " << line["index"]);
    REQUIRE(known.contains(line["prompt_sha256"]));
    samples.push_back(known.at(line["prompt_sha256"]));
  }
  const std::vector<Output> outputs = full_precision(samples);
  for (size_t i = 0; i < lines.size(); ++i) {
    INFO("question " << lines[i]["index"]);
    const auto expected = lines[i]["generated_ids"].get<std::vector<int32_t>>();
    const auto margins = lines[i]["top2_margin"].get<std::vector<double>>();
    size_t certain = 0;  // tokens before the first that another correct program may choose otherwise
    while (certain < expected.size() && margins[certain] > 1e-3) ++certain;
    const std::vector<int32_t>& made = outputs[i].tokens;
    const size_t compared = std::min(certain, made.size());
    CHECK(std::vector<int32_t>(made.begin(), made.begin() + static_cast<std::ptrdiff_t>(compared)) ==
          std::vector<int32_t>(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(compared)));
    CHECK(compared > 5);
    if (certain == expected.size()) CHECK(made.size() + 1 >= expected.size());  // an end token is not part of ours
  }
}

}  // namespace

TEST_CASE("MMLU's log-likelihoods on SmolLM2 are those of transformers, two questions a subject", "[golden]") {
  check_mmlu(2);
}

TEST_CASE("MMLU's log-likelihoods on SmolLM2 are those of transformers, every stored question", "[golden][slow]") {
  check_mmlu(1000);
}

TEST_CASE("GSM8K's greedy texts on SmolLM2 are those of transformers, two questions", "[golden]") {
  check_gsm8k(2);
}

TEST_CASE("GSM8K's greedy texts on SmolLM2 are those of transformers, every stored question", "[golden][slow]") {
  check_gsm8k(1000);
}

}  // namespace kvsweep::testing
