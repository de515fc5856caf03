#include <fmt/format.h>

#include <algorithm>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "tasks/data/items.h"
#include "tasks/metrics/qa_f1.h"
#include "tasks/metrics/rouge_google.h"

namespace kvsweep {
namespace {

class GenerateTask final : public Task {
 public:
  GenerateTask(ItemSettings settings, int64_t max_new_tokens)
      : s_(std::move(settings)), max_new_tokens_(max_new_tokens) {}

  std::vector<Sample> samples(const TaskContext& context) const override {
    const auto target = [&](const JsonRecord& record) { return s_.items.references(record).front(); };
    return item_samples("generate", s_, context, target, [&](Sample& sample, const JsonRecord& record, PromptParts&) {
      sample.answers = s_.items.references(record);
      sample.max_new_tokens = max_new_tokens_;
      sample.stop = s_.items.stop;
    });
  }
  std::string kind() const override { return s_.items.task_kind; }
  std::vector<MetricSpec> metrics() const override {
    std::vector<MetricSpec> specs;
    for (const std::string& name : s_.items.metrics) specs.push_back({name, Aggregate::kMean, true, name});
    if (s_.items.extract) specs.push_back({"extracted", Aggregate::kMean, true, "extracted"});
    return specs;
  }
  std::vector<std::string> breakdown() const override {
    return s_.items.group.empty() ? std::vector<std::string>{} : std::vector<std::string>{"group"};
  }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override {
    std::map<std::string, double> scores;
    std::optional<std::string> text = output.text;
    if (s_.items.extract) {
      text = s_.items.extract->find(output.text);
      scores["extracted"] = text ? 1 : 0;
    }
    for (const std::string& metric : s_.items.metrics) {
      scores[metric] = 0;
      if (!text) continue;
      for (const std::string& answer : sample.answers)
        scores[metric] = std::max(scores[metric], compare(metric, *text, answer));
    }
    return scores;
  }
  int64_t tokens() const override { return s_.tokens; }
  int64_t sample_count() const override { return s_.samples; }
  int64_t query_tokens() const override { return s_.items.prompt.has_border() ? s_.tokens : 1; }
  int64_t generated_tokens() const override { return max_new_tokens_; }
  std::vector<std::string> data() const override { return item_data(s_); }

 private:
  double compare(const std::string& metric, const std::string& text, const std::string& answer) const {
    if (metric == "f1") return qa_f1(text, answer);
    if (metric.starts_with("rouge")) {
      const GoogleRouge rouge = google_rouge(answer, text, true);
      return metric == "rouge1"   ? rouge.rouge1.f
             : metric == "rouge2" ? rouge.rouge2.f
             : metric == "rougeL" ? rouge.rouge_l.f
                                  : rouge.rouge_lsum.f;
    }
    const std::string made = s_.items.normalized(text), wanted = s_.items.normalized(answer);
    if (metric == "contains") return made.find(wanted) != std::string::npos ? 1 : 0;
    return made == wanted ? 1 : 0;
  }

  ItemSettings s_;
  int64_t max_new_tokens_;
};

std::unique_ptr<Task> make_generate(Params& params) {
  ItemSettings settings = read_item_settings(params, ItemTemplate::Kind::kGenerate);
  const int64_t max_new_tokens =
      params.integer("max_new_tokens", std::max<int64_t>(1, settings.items.max_new_tokens), 1, 4096,
                     "tokens generated as the answer; the template's when left out");
  params.finish();
  return std::make_unique<GenerateTask>(std::move(settings), max_new_tokens);
}

}  // namespace

TaskEntry generate_entry() {
  return {"generate", 1, "generated answers to the records of a JSONL file, by a template", make_generate};
}

}  // namespace kvsweep
