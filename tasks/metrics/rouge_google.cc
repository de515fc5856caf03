#include "tasks/metrics/rouge_google.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "tasks/metrics/lcs.h"
#include "tasks/metrics/porter.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

Rouge rouge(int64_t hits, int64_t predicted, int64_t wanted) {
  if (predicted == 0 || wanted == 0) return {};
  Rouge score;
  score.precision = static_cast<double>(hits) / static_cast<double>(predicted);
  score.recall = static_cast<double>(hits) / static_cast<double>(wanted);
  const double sum = score.precision + score.recall;
  score.f = sum > 0 ? 2 * score.precision * score.recall / sum : 0;
  return score;
}

Rouge ngram_rouge(const std::vector<int32_t>& target, const std::vector<int32_t>& prediction, size_t n) {
  const auto counted = [n](const std::vector<int32_t>& tokens) {
    std::map<std::pair<int32_t, int32_t>, int64_t> counts;
    for (size_t i = 0; i + n <= tokens.size(); ++i) ++counts[{tokens[i], n == 2 ? tokens[i + 1] : 0}];
    return counts;
  };
  const auto total = [n](const auto& tokens) {
    return std::max<int64_t>(0, std::ssize(tokens) - static_cast<int64_t>(n) + 1);
  };
  const auto wanted = counted(target);
  auto predicted = counted(prediction);
  int64_t hits = 0;
  for (const auto& [ngram, count] : wanted) hits += std::min(count, predicted[ngram]);
  return rouge(hits, total(prediction), total(target));
}

std::vector<std::vector<int32_t>> lines_of(std::string_view text, bool stem, Interner& interner) {
  std::vector<std::vector<int32_t>> lines;
  for (const std::string& line : split_at(text, '\n')) lines.push_back(interner.ids(google_rouge_tokens(line, stem)));
  return lines;
}

Rouge summary_rouge(const std::vector<std::vector<int32_t>>& target,
                    const std::vector<std::vector<int32_t>>& prediction) {
  const auto counted = [](const auto& sentences, int64_t& total) {
    std::map<int32_t, int64_t> counts;
    for (const auto& sentence : sentences)
      for (const int32_t token : sentence) ++counts[token], ++total;
    return counts;
  };
  int64_t wanted = 0, predicted = 0, hits = 0;
  auto left_in_target = counted(target, wanted);
  auto left_in_prediction = counted(prediction, predicted);
  for (const auto& sentence : target) {
    std::set<size_t> positions;
    for (const auto& other : prediction) {
      const auto found = lcs_positions(sentence, other, LcsTie::kBackInX, std::numeric_limits<int64_t>::max());
      positions.insert(found->begin(), found->end());
    }
    for (const size_t at : positions) {
      int64_t &a = left_in_target[sentence[at]], &b = left_in_prediction[sentence[at]];
      if (a == 0 || b == 0) continue;
      --a, --b, ++hits;
    }
  }
  return rouge(hits, predicted, wanted);
}

}  // namespace

std::vector<std::string> google_rouge_tokens(std::string_view text, bool stem) {
  // Lower case first: the Kelvin sign and a dotted capital I become ASCII letters.
  const std::string lower = python_lower(text);
  std::vector<std::string> tokens;
  const auto is_token = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  for (auto at = lower.begin(); at != lower.end();) {
    const auto start = std::find_if(at, lower.end(), is_token);
    at = std::find_if_not(start, lower.end(), is_token);
    if (start == at) continue;
    tokens.emplace_back(start, at);
    if (stem && tokens.back().size() > 3) tokens.back() = porter_stem(tokens.back());
  }
  return tokens;
}

GoogleRouge google_rouge(std::string_view target, std::string_view prediction, bool stem) {
  Interner interner;
  const std::vector<int32_t> wanted = interner.ids(google_rouge_tokens(target, stem)),
                             predicted = interner.ids(google_rouge_tokens(prediction, stem));
  return {ngram_rouge(wanted, predicted, 1), ngram_rouge(wanted, predicted, 2),
          rouge(lcs_length(wanted, predicted), std::ssize(predicted), std::ssize(wanted)),
          summary_rouge(lines_of(target, stem, interner), lines_of(prediction, stem, interner))};
}

}  // namespace kvsweep
