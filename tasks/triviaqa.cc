#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "tasks/data/few_shot.h"
#include "tasks/data/jsonl.h"
#include "tasks/metrics/exact_match.h"

namespace kvsweep {
namespace {

constexpr const char* kFile = "triviaqa_1k/test.jsonl";
constexpr int64_t kShotsAtMost = 20;  // records that are kept for examples: what is asked does not depend on `shots`

struct Record {
  std::string question;
  std::vector<std::string> aliases;
};

// The file has some questions as fields of a CSV file, quotes and all.
std::string unquoted(const std::string& text) {
  if (text.size() < 2 || text.front() != '"' || text.back() != '"' || text.find("\"\"") == std::string::npos)
    return text;
  std::string out;
  for (size_t at = 1; at + 1 < text.size(); ++at) {
    out += text[at];
    if (text[at] == '"' && text[at + 1] == '"' && at + 2 < text.size()) ++at;
  }
  return out;
}

// lm-evaluation-harness, lm_eval/tasks/triviaqa/default.yaml. The question's own mark makes two of them.
std::string question_text(const Record& record) {
  return fmt::format("Question: {}?\nAnswer:", record.question);
}

class TriviaQaTask final : public Task {
 public:
  TriviaQaTask(int64_t tokens, int64_t samples, int64_t shots, int64_t max_new_tokens)
      : tokens_(tokens), samples_(samples), shots_(shots), max_new_tokens_(max_new_tokens) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override { return "knowledge"; }
  std::vector<MetricSpec> metrics() const override {
    return {{"exact_match", Aggregate::kMean, true, "exact match"},
            {"unfinished", Aggregate::kMean, false, "unfinished", "never stops"}};
  }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override {
    return {{"exact_match", exact_match(output.text, sample.answers)},
            {"unfinished", std::ssize(output.tokens) >= sample.max_new_tokens ? 1 : 0}};
  }
  int64_t tokens() const override { return tokens_; }
  int64_t sample_count() const override { return samples_; }
  int64_t query_tokens() const override { return std::min<int64_t>(tokens_ - 1, 16); }
  int64_t generated_tokens() const override { return max_new_tokens_; }
  std::vector<std::string> data() const override { return {kFile}; }

 private:
  int64_t tokens_, samples_, shots_, max_new_tokens_;
};

std::vector<Sample> TriviaQaTask::samples(const TaskContext& context) const {
  const std::filesystem::path file = context.data.find(kFile);
  std::vector<Record> records;
  for (const JsonRecord& record : read_jsonl(file))
    records.push_back({unquoted(record.filled_text("question")), record.filled_texts("golden_answers")});
  if (std::ssize(records) < samples_ + kShotsAtMost)
    throw ConfigError(fmt::format("triviaqa.samples = {}: {} has {} questions, and the first {} are for examples",
                                  samples_, file.string(), records.size(), kShotsAtMost));
  std::string shared;
  for (int64_t i = 0; i < shots_; ++i) {
    const Record& shot = records[static_cast<size_t>(i)];
    shared += fmt::format("{} {}\n\n", question_text(shot), shot.aliases.front());
  }
  std::vector<Sample> samples;
  for (int64_t i = 0; i < samples_; ++i) {
    const Record& record = records[static_cast<size_t>(kShotsAtMost + i)];
    Sample sample;
    sample.id = fmt::format("q{:04}", kShotsAtMost + i);
    sample.answers = record.aliases;
    sample.max_new_tokens = max_new_tokens_;
    sample.stop = {"\n", ".", ","};
    set_prompt(sample, context.tokenizer, last_line_parts(shared + question_text(record)), tokens_, "triviaqa.tokens");
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::unique_ptr<Task> make_triviaqa(Params& params) {
  const int64_t tokens = params.integer("tokens", std::nullopt, 64, 1 << 20,
                                        "tokens of a prompt at most; longer ones lose their beginning, and are tagged");
  const int64_t samples = params.integer("samples", 100, 1, 100000, "questions, from the first behind the examples");
  const int64_t shots = params.integer("shots", 5, 0, kShotsAtMost, "examples before the question");
  const int64_t max_new_tokens = params.integer("max_new_tokens", 32, 1, 4096, "tokens generated at most");
  params.finish();
  return std::make_unique<TriviaQaTask>(tokens, samples, shots, max_new_tokens);
}

}  // namespace

TaskEntry triviaqa_entry() {
  return {"triviaqa", 1, "trivia questions without a text to look them up in (TriviaQA), by exact match of any alias",
          make_triviaqa};
}

}  // namespace kvsweep
