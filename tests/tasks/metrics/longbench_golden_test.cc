// golden: LongBench's metrics against the scores of its own code.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "harness/core/error.h"
#include "tasks/metrics/classification.h"
#include "tasks/metrics/code_similarity.h"
#include "tasks/metrics/python_text.h"
#include "tasks/metrics/qa_f1.h"
#include "tasks/metrics/retrieval.h"
#include "tasks/metrics/rouge_longbench.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::WithinAbs;
using Json = nlohmann::json;

namespace {

const Jieba& jieba_or_skip() {
  static const std::unique_ptr<const Jieba> jieba = []() -> std::unique_ptr<const Jieba> {
    try {
      return std::make_unique<Jieba>(find_jieba(DataLocator(testing::data_roots())));
    } catch (const DataError&) {
      return nullptr;
    }
  }();
  if (!jieba) SKIP("no tables of jieba: the Debian package python3-jieba has them");
  return *jieba;
}

std::vector<Json> lines_of(const std::filesystem::path& file) {
  std::vector<Json> lines;
  for (const std::string& line : split_at(testing::read_text(file), '\n'))
    if (!line.empty()) lines.push_back(Json::parse(line));
  return lines;
}

double score(const std::string& metric, const std::string& output, const std::string& answer,
             const std::vector<std::string>& classes, CodeSimilarity form) {
  if (metric == "qa_f1_score") return qa_f1(output, answer);
  if (metric == "qa_f1_zh_score") return qa_f1_zh(output, answer, jieba_or_skip());
  if (metric == "rouge_score") return rouge_l_longbench(output, answer);
  if (metric == "rouge_zh_score") return rouge_l_longbench_zh(output, answer, jieba_or_skip());
  if (metric == "classification_score") return classification_score(output, answer, classes);
  if (metric == "retrieval_score") return retrieval_score(output, answer);
  if (metric == "retrieval_zh_score") return retrieval_zh_score(output, answer);
  if (metric == "count_score") return count_score(output, answer);
  if (metric == "code_sim_score") return code_similarity(output, answer, form);
  FAIL("no metric " << metric);
  return 0;
}

bool chinese(const std::string& metric) {
  return metric == "qa_f1_zh_score" || metric == "rouge_zh_score";
}

void check_vectors(const std::string& pattern, CodeSimilarity form, bool zh) {
  const auto files = testing::golden_files(pattern);
  if (files.empty()) SKIP("no file like " << pattern << " in a golden root");
  for (const auto& file : files) {
    for (const Json& item : lines_of(file)) {
      if (chinese(item["metric"]) != zh) continue;
      INFO(file.string() << "\n" << item.dump());
      const double got = score(item["metric"], item["prediction"], item["ground_truth"],
                               item.value("all_classes", std::vector<std::string>()), form);
      CHECK_THAT(got, WithinAbs(item["score"].get<double>(), 1e-9));
    }
  }
}

// LongBench's eval.py: data set -> metric.
const std::map<std::string, std::string>& metric_of() {
  static const std::map<std::string, std::string> table = {{"narrativeqa", "qa_f1_score"},
                                                           {"qasper", "qa_f1_score"},
                                                           {"multifieldqa_en", "qa_f1_score"},
                                                           {"multifieldqa_zh", "qa_f1_zh_score"},
                                                           {"hotpotqa", "qa_f1_score"},
                                                           {"2wikimqa", "qa_f1_score"},
                                                           {"musique", "qa_f1_score"},
                                                           {"dureader", "rouge_zh_score"},
                                                           {"gov_report", "rouge_score"},
                                                           {"qmsum", "rouge_score"},
                                                           {"multi_news", "rouge_score"},
                                                           {"vcsum", "rouge_zh_score"},
                                                           {"trec", "classification_score"},
                                                           {"triviaqa", "qa_f1_score"},
                                                           {"samsum", "rouge_score"},
                                                           {"lsht", "classification_score"},
                                                           {"passage_retrieval_en", "retrieval_score"},
                                                           {"passage_count", "count_score"},
                                                           {"passage_retrieval_zh", "retrieval_zh_score"},
                                                           {"lcc", "code_sim_score"},
                                                           {"repobench-p", "code_sim_score"}};
  return table;
}

bool first_line_only(const std::string& dataset) {
  return dataset == "trec" || dataset == "triviaqa" || dataset == "samsum" || dataset == "lsht";
}

// eval.py's score of one record: the best over its answers.
double record_score(const std::string& dataset, const Json& record, CodeSimilarity form) {
  std::string output = record["prediction"];
  if (first_line_only(dataset)) {
    output.erase(0, std::min(output.find_first_not_of('\n'), output.size()));
    output = split_at(output, '\n')[0];
  }
  const Json& gold = record["gold"];
  const auto answers = (gold.contains("answers") ? gold["answers"] : gold).get<std::vector<std::string>>();
  const auto classes =
      gold.contains("all_classes") ? gold["all_classes"].get<std::vector<std::string>>() : std::vector<std::string>();
  double best = 0;
  for (const std::string& answer : answers)
    best = std::max(best, score(metric_of().at(dataset), output, answer, classes, form));
  return best;
}

}  // namespace

TEST_CASE("LongBench's metrics give its scores", "[golden]") {
  check_vectors("(.*/)?longbench_metrics[^/]*[.]jsonl", CodeSimilarity::kDifflib, false);
}

TEST_CASE("LongBench's Chinese metrics give its scores", "[golden]") {
  jieba_or_skip();
  check_vectors("(.*/)?longbench_metrics[^/]*[.]jsonl", CodeSimilarity::kDifflib, true);
}

TEST_CASE("LongBench's code similarity with python-Levenshtein gives its scores", "[golden]") {
  check_vectors("(.*/)?longbench_code_sim_levenshtein[^/]*[.]jsonl", CodeSimilarity::kLevenshtein, false);
}

TEST_CASE("LongBench's scores of a model's real outputs, record by record and as means", "[golden]") {
  const auto files = testing::golden_files("(.*/)?minilongbench_scores[^/]*[.]jsonl");
  if (files.empty()) SKIP("no minilongbench_scores*.jsonl in a golden root");
  std::filesystem::path folder;
  for (const auto& root : testing::data_roots())
    if (std::filesystem::exists(root / "minilongbench")) folder = root / "minilongbench";
  if (folder.empty()) SKIP("no minilongbench in a data root");
  jieba_or_skip();
  for (const auto& file : files) {
    const bool levenshtein = file.filename().string().find("levenshtein") != std::string::npos;
    const CodeSimilarity form = levenshtein ? CodeSimilarity::kLevenshtein : CodeSimilarity::kDifflib;
    std::map<std::string, Json> data;
    std::map<std::string, std::vector<double>> scores;
    for (const Json& item : lines_of(file)) {
      if (item.contains("averages")) {
        for (const auto& [dataset, mean] : item["averages"].items()) {
          INFO(dataset);
          double sum = 0;
          for (const double one : scores[dataset]) sum += one;
          CHECK(std::round(10000 * sum / static_cast<double>(scores[dataset].size())) / 100 == mean.get<double>());
        }
        continue;
      }
      INFO(item.dump());
      const std::string dataset = item["dataset"];
      if (!data.contains(dataset))
        data[dataset] = Json::parse(testing::read_text(folder / ("MiniLongBench_" + dataset + ".json")));
      scores[dataset].push_back(record_score(dataset, data[dataset].at(item["idx"].get<std::string>()), form));
      CHECK_THAT(scores[dataset].back(), WithinAbs(item["score"].get<double>(), 1e-9));
    }
  }
}

}  // namespace kvsweep
