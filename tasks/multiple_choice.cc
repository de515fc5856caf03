#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "harness/core/task.h"
#include "tasks/data/items.h"
#include "tasks/data/synthetic.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

// Choices are scored as EleutherAI/lm-evaluation-harness does it (lm_eval/api/task.py, multiple_choice): the sum of the
// log-likelihoods of a choice's tokens; acc takes the largest, acc_norm the largest per character of the choice.
class MultipleChoiceTask final : public Task {
 public:
  explicit MultipleChoiceTask(ItemSettings settings) : s_(std::move(settings)) {}

  std::vector<Sample> samples(const TaskContext& context) const override {
    const ItemTemplate& items = s_.items;
    const auto target = [&](const JsonRecord& record) {
      const std::vector<std::string> choices = items.choice_texts(record);
      return choices[static_cast<size_t>(items.right_choice(record, choices))];
    };
    const auto finish = [&](Sample& sample, const JsonRecord& record, PromptParts& prompt) {
      const std::vector<std::string> choices = items.choice_texts(record);
      sample.answers = {fmt::to_string(items.right_choice(record, choices))};
      sample.answers.insert(sample.answers.end(), choices.begin(), choices.end());
      const std::string between = take_trailing_space(prompt) + items.delimiter;
      std::vector<std::string> continuations;
      for (const std::string& choice : choices) continuations.push_back(between + choice);
      sample.choices = continuation_ids(context.tokenizer, prompt, continuations);
    };
    return item_samples("multiple_choice", s_, context, target, finish);
  }
  std::string kind() const override { return s_.items.task_kind; }
  std::vector<MetricSpec> metrics() const override {
    return {{"acc", Aggregate::kMean, true, "acc"}, {"acc_norm", Aggregate::kMean, true, "acc_norm"}};
  }
  std::vector<std::string> breakdown() const override {
    return s_.items.group.empty() ? std::vector<std::string>{} : std::vector<std::string>{"group"};
  }
  // sample.answers: index of the right choice, then the choices.
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override {
    if (output.choices.size() + 1 != sample.answers.size())
      throw std::invalid_argument(fmt::format("multiple_choice: sample {} has {} scored choices, not {}", sample.id,
                                              output.choices.size(), sample.answers.size() - 1));
    std::vector<double> sums, normed;
    for (size_t i = 0; i < output.choices.size(); ++i) {
      sums.push_back(output.choices[i].log_likelihood);
      normed.push_back(sums.back() / static_cast<double>(decode_utf8(sample.answers[i + 1]).size()));
    }
    const auto right = [&](const std::vector<double>& values) {
      const auto best = std::max_element(values.begin(), values.end()) - values.begin();  // the first of equal ones
      return fmt::to_string(best) == sample.answers.front() ? 1.0 : 0.0;
    };
    return {{"acc", right(sums)}, {"acc_norm", right(normed)}};
  }
  int64_t tokens() const override { return s_.tokens; }
  int64_t sample_count() const override { return s_.samples; }
  int64_t query_tokens() const override { return s_.items.prompt.has_border() ? s_.tokens : 1; }
  std::vector<std::string> data() const override { return item_data(s_); }

 private:
  ItemSettings s_;
};

std::unique_ptr<Task> make_multiple_choice(Params& params) {
  ItemSettings settings = read_item_settings(params, ItemTemplate::Kind::kMultipleChoice);
  params.finish();
  return std::make_unique<MultipleChoiceTask>(std::move(settings));
}

}  // namespace

TaskEntry multiple_choice_entry() {
  return {"multiple_choice", 1, "questions with choices from a JSONL file and a template, scored by log-likelihood",
          make_multiple_choice};
}

}  // namespace kvsweep
