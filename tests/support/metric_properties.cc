#include "tests/support/metric_properties.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "tasks/metrics/arithmetic.h"
#include "tasks/metrics/classification.h"
#include "tasks/metrics/code_similarity.h"
#include "tasks/metrics/exact_match.h"
#include "tasks/metrics/gsm8k_answer.h"
#include "tasks/metrics/porter.h"
#include "tasks/metrics/python_text.h"
#include "tasks/metrics/qa_f1.h"
#include "tasks/metrics/repetition.h"
#include "tasks/metrics/retrieval.h"
#include "tasks/metrics/rouge_google.h"
#include "tasks/metrics/rouge_longbench.h"
#include "tasks/metrics/string_match.h"

namespace kvsweep::testing {
namespace {

void require(bool holds, const std::string& property) {
  if (!holds) throw std::logic_error("does not hold: " + property);
}

void unit(double value, const std::string& what) {
  require(value >= 0 && value <= 1, what + " is in [0, 1]");
}

void unit(const Rouge& rouge, const std::string& what) {
  unit(rouge.precision, what + " precision");
  unit(rouge.recall, what + " recall");
  unit(rouge.f, what + " F");
}

}  // namespace

void check_extraction(std::string_view output) {
  for (const Gsm8kRule rule :
       {Gsm8kRule::kStrict, Gsm8kRule::kCotStrict, Gsm8kRule::kLlamaStrict, Gsm8kRule::kFlexible}) {
    const std::string found = gsm8k_extract(output, rule);
    require(!found.empty(), "an extracted answer is not empty");
    require(found == "[invalid]" || output.find(found) != std::string_view::npos, "an extracted answer is in the text");
    require(gsm8k_exact_match(found, found) == 1, "an answer matches itself");
  }
  const std::string original = gsm8k_extract(output, Gsm8kRule::kOpenAi);
  require(original.find(',') == std::string::npos, "OpenAI's answer has no comma");
  const Arithmetic arithmetic = check_arithmetic(output);
  require(0 <= arithmetic.errors && arithmetic.errors <= arithmetic.steps, "no more errors than steps");
  std::vector<int32_t> tokens(output.begin(), output.end());
  for (const int64_t n : {1, 2, 4}) {
    unit(rep_n(tokens, n), "rep-n");
    unit(distinct_n(tokens, n), "distinct-n");
  }
  const int64_t loop = longest_loop(tokens);
  require(loop == 0 || (loop >= 2 && loop <= std::ssize(tokens)), "a loop is a part of the text");
  require(decode_utf8(encode_utf8(decode_utf8(output))) == decode_utf8(output), "text survives being decoded");
  require(python_strip(python_strip(output)) == python_strip(output), "stripping twice is stripping once");
  for (const std::string& token : google_rouge_tokens(output, true)) require(!token.empty(), "a stem is not empty");
}

void check_metrics(std::string_view output, std::string_view answer) {
  const std::string text(answer);
  unit(qa_f1(output, answer), "qa_f1");
  const double same = qa_f1(answer, answer);
  require(same == 0 || same == 1, "qa_f1 of equal texts is 0 or 1");
  unit(rouge_l_longbench(output, answer), "rouge_l_longbench");
  unit(classification_score(output, answer, {text, "a", "ab", text + "b"}), "classification_score");
  unit(retrieval_score(output, "Paragraph 12"), "retrieval_score");
  unit(retrieval_zh_score(output, "段落12"), "retrieval_zh_score");
  unit(count_score(output, answer), "count_score");
  for (const CodeSimilarity form : {CodeSimilarity::kDifflib, CodeSimilarity::kLevenshtein}) {
    unit(code_similarity(output, answer, form), "code_similarity");
    require(fuzz_ratio(answer, answer, form) == 100, "equal texts have ratio 100");
  }
  unit(string_match_all(output, {text, "12"}), "string_match_all");
  require(string_match_part(output, {text, "12"}) >= string_match_all(output, {text, "12"}), "any is no less than all");
  unit(exact_match(output, {text}), "exact_match");
  const GoogleRouge rouge = google_rouge(answer, output, true);
  unit(rouge.rouge1, "rouge1");
  unit(rouge.rouge2, "rouge2");
  unit(rouge.rouge_l, "rougeL");
  unit(rouge.rouge_lsum, "rougeLsum");
  require(rouge.rouge_l.f <= rouge.rouge1.f, "rougeL is no more than rouge1");
  const Extractive copied = extractive(answer, output);
  unit(copied.coverage, "coverage");
  require(copied.density >= copied.coverage, "density is no less than coverage");
}

}  // namespace kvsweep::testing
