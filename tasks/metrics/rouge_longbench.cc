#include "tasks/metrics/rouge_longbench.h"

#include <set>
#include <string>
#include <vector>

#include "harness/core/error.h"
#include "tasks/metrics/lcs.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

// Frames that Python's limit of 1000 leaves to the recursion below LongBench's eval.py, measured with Python 3.11.
constexpr int64_t kRougeSteps = 991;

// One list of words a sentence. A sentence of white space alone is one empty word, as "".split(" ") gives.
std::vector<std::vector<std::string>> sentences_of(std::string_view text) {
  std::vector<std::vector<std::string>> sentences;
  for (const std::string& sentence : split_at(text, '.')) {
    if (sentence.empty()) continue;
    sentences.push_back(python_split(sentence));
    if (sentences.back().empty()) sentences.back().emplace_back();
  }
  return sentences;
}

struct Words {
  std::vector<std::vector<int32_t>> sentences;
  std::set<int32_t> distinct;
};

Words numbered(std::string_view text, Interner& interner) {
  Words words;
  for (const auto& sentence : sentences_of(text)) {
    words.sentences.push_back(interner.ids(sentence));
    words.distinct.insert(words.sentences.back().begin(), words.sentences.back().end());
  }
  return words;
}

double rouge_l(std::string_view output, std::string_view answer, int64_t most_steps) {
  Interner interner;
  const Words hypothesis = numbered(output, interner), reference = numbered(answer, interner);
  if (hypothesis.sentences.empty() || reference.sentences.empty()) return 0;
  std::set<int32_t> common;
  for (const auto& x : reference.sentences) {
    for (const auto& y : hypothesis.sentences) {
      const auto positions = lcs_positions(x, y, LcsTie::kBackInY, most_steps);
      if (!positions) return 0;
      for (const size_t at : *positions) common.insert(x[at]);
    }
  }
  const auto hits = static_cast<double>(common.size());
  const double recall = hits / static_cast<double>(reference.distinct.size());
  const double precision = hits / static_cast<double>(hypothesis.distinct.size());
  return 2.0 * ((precision * recall) / (precision + recall + 1e-8));
}

}  // namespace

double rouge_l_longbench(std::string_view output, std::string_view answer) {
  return rouge_l(output, answer, kRougeSteps);
}

double rouge_l_longbench_zh(std::string_view output, std::string_view answer, const Jieba& jieba) {
  // One frame more: rouge_zh_score calls rouge_score.
  return rouge_l(join(jieba.cut(output), " "), join(jieba.cut(answer), " "), kRougeSteps - 1);
}

}  // namespace kvsweep
