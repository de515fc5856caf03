// golden: GSM8K's and TriviaQA's answers and Google's ROUGE against the scores of their authors' code.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tasks/metrics/exact_match.h"
#include "tasks/metrics/gsm8k_answer.h"
#include "tasks/metrics/python_text.h"
#include "tasks/metrics/rouge_google.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::WithinAbs;
using Json = nlohmann::json;

namespace {

std::vector<std::filesystem::path> files_or_skip(const std::string& pattern) {
  auto files = testing::golden_files(pattern);
  if (files.empty()) SKIP("no file like " << pattern << " in a golden root");
  return files;
}

void check_rouge(const Rouge& got, const Json& wanted, double tolerance) {
  CHECK_THAT(got.precision, WithinAbs(wanted[0].get<double>(), tolerance));
  CHECK_THAT(got.recall, WithinAbs(wanted[1].get<double>(), tolerance));
  CHECK_THAT(got.f, WithinAbs(wanted[2].get<double>(), tolerance));
}

// "<t> A . </t> <t> B . </t>" as one sentence a line.
std::string summary_lines(std::string line) {
  for (const std::string mark : {"</t>", "<t>"})
    for (size_t at = line.find(mark); at != std::string::npos; at = line.find(mark, at))
      line.replace(at, mark.size(), 1, '\n');
  std::string out;
  for (const std::string& part : split_at(line, '\n')) {
    const std::string sentence = python_strip(part);
    if (sentence.empty()) continue;
    if (!out.empty()) out += '\n';
    out += sentence;
  }
  return out;
}

}  // namespace

TEST_CASE("GSM8K's answers are extracted and compared as lm-eval and OpenAI do", "[golden]") {
  for (const auto& file : files_or_skip("(.*/)?gsm8k_extract[^/]*[.]json")) {
    for (const Json& item : Json::parse(testing::read_text(file))) {
      INFO(item.dump());
      const std::string text = item["response"], gold = item["target"];
      const std::pair<Gsm8kRule, std::string> rules[] = {{Gsm8kRule::kStrict, "strict"},
                                                         {Gsm8kRule::kFlexible, "flexible"},
                                                         {Gsm8kRule::kCotStrict, "cot_strict"},
                                                         {Gsm8kRule::kLlamaStrict, "llama_strict"}};
      for (const auto& [rule, name] : rules) {
        CHECK(gsm8k_extract(text, rule) == item[name].get<std::string>());
        CHECK(gsm8k_exact_match(gsm8k_extract(text, rule), gold) == item[name + "_em"].get<double>());
      }
      CHECK(gsm8k_extract(text, Gsm8kRule::kOpenAi) == item["openai"].get<std::string>());
      CHECK(gsm8k_openai_correct(text, gold) == item["openai_correct"].get<double>());
    }
  }
}

TEST_CASE("TriviaQA's exact match is lm-eval's", "[golden]") {
  for (const auto& file : files_or_skip("(.*/)?triviaqa_em[^/]*[.]json")) {
    for (const Json& item : Json::parse(testing::read_text(file))) {
      INFO(item.dump());
      CHECK(exact_match(item["response"].get<std::string>(), item["aliases"]) == item["em"].get<double>());
    }
  }
}

TEST_CASE("ROUGE is Google's, with and without stems", "[golden]") {
  for (const auto& file : files_or_skip("(.*/)?google_rouge[^/]*[.]json")) {
    for (const Json& item : Json::parse(testing::read_text(file))) {
      for (const std::string form : {"nostem", "stem"}) {
        INFO(form << " " << item.dump());
        const GoogleRouge got =
            google_rouge(item["target"].get<std::string>(), item["prediction"].get<std::string>(), form == "stem");
        // The vectors are rounded to ten decimals.
        check_rouge(got.rouge1, item[form]["rouge1"], 1e-9);
        check_rouge(got.rouge2, item[form]["rouge2"], 1e-9);
        check_rouge(got.rouge_l, item[form]["rougeL"], 1e-9);
        check_rouge(got.rouge_lsum, item[form]["rougeLsum"], 1e-9);
      }
    }
  }
}

TEST_CASE("ROUGE of four systems' summaries of CNN/DailyMail is Google's", "[golden]") {
  const auto files = files_or_skip("(.*/)?cnndm_(.*_google_rouge_stem[.]jsonl|google_rouge_means[^/]*[.]json)");
  std::filesystem::path folder;
  for (const auto& root : testing::data_roots())
    if (std::filesystem::exists(root / "cnn_dailymail_100")) folder = root / "cnn_dailymail_100";
  if (folder.empty()) SKIP("no cnn_dailymail_100 in a data root");
  const auto lines = [&](const std::string& name) {
    auto all = split_at(testing::read_text(folder / name), '\n');
    if (all.back().empty()) all.pop_back();
    return all;
  };
  const auto references = lines("references.txt");
  const auto scores_of = [&](const std::string& system) {
    const auto outputs = lines(system + ".summary");
    REQUIRE(outputs.size() == references.size());
    std::vector<std::map<std::string, double>> scores;
    for (size_t i = 0; i < outputs.size(); ++i) {
      const GoogleRouge one = google_rouge(summary_lines(references[i]), summary_lines(outputs[i]), true);
      scores.push_back({{"rouge1", one.rouge1.f},
                        {"rouge2", one.rouge2.f},
                        {"rougeL", one.rouge_l.f},
                        {"rougeLsum", one.rouge_lsum.f}});
    }
    return scores;
  };
  for (const auto& file : files) {
    INFO(file.string());
    const std::string name = file.filename().string();
    if (name.ends_with(".jsonl")) {
      const auto scores = scores_of(name.substr(6, name.size() - 6 - std::string("_google_rouge_stem.jsonl").size()));
      size_t i = 0;
      for (const std::string& line : split_at(testing::read_text(file), '\n')) {
        if (line.empty()) continue;
        INFO(i);
        const Json wanted = Json::parse(line);
        for (const auto& [metric, value] : wanted.items()) {
          INFO(metric);
          CHECK_THAT(scores.at(i).at(metric), WithinAbs(value.get<double>(), 5.1e-9));  // rounded to eight decimals
        }
        ++i;
      }
      CHECK(i == scores.size());
    } else {
      const Json systems = Json::parse(testing::read_text(file));
      for (const auto& [system, means] : systems.items()) {
        const auto scores = scores_of(system);
        for (const auto& [metric, value] : means.items()) {
          INFO(system << " " << metric);
          double sum = 0;
          for (const auto& one : scores) sum += one.at(metric);
          CHECK_THAT(100 * sum / static_cast<double>(scores.size()), WithinAbs(value.get<double>(), 5.1e-5));
        }
      }
    }
  }
}

}  // namespace kvsweep
