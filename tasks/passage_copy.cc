#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/fit.h"
#include "tasks/data/haystack.h"
#include "tasks/data/synthetic.h"
#include "tasks/data/words.h"

namespace kvsweep {
namespace {

// Copying (Jelassi et al., 2024, "Repeat After Me") over a distance: a passage that nothing but itself predicts stands
// early in a long text and has to be written again, item by item, from the first of them on.
constexpr int64_t kLongestItem = 16;  // bytes, the space before it included

struct Settings {
  SyntheticSize size;
  int64_t depth = 0, items = 0, cue = 0, max_new_tokens = 0;
  std::string kind;
};

std::string joined(const std::vector<std::string>& items) {
  return fmt::format("{}", fmt::join(items, " "));
}

// Words of a text without the marks around them: "(103, 402." is 103 and 402.
std::vector<std::string> items_of(const std::string& text) {
  constexpr std::string_view kMarks = ".,;:!?()[]\"'";
  std::istringstream in(text);
  std::vector<std::string> items;
  for (std::string item; in >> item;) {
    const size_t begin = item.find_first_not_of(kMarks);
    if (begin != std::string::npos) items.push_back(item.substr(begin, item.find_last_not_of(kMarks) - begin + 1));
  }
  return items;
}

class PassageCopyTask final : public Task {
 public:
  explicit PassageCopyTask(Settings settings) : s_(std::move(settings)) {}

  std::vector<Sample> samples(const TaskContext& context) const override {
    const Filler filler(context.tokenizer, own_nouns());
    std::vector<Sample> samples;
    for (int64_t i = 0; i < s_.size.samples; ++i)
      samples.push_back(make_sample(context, filler, fmt::format("s{:04}", i)));
    return samples;
  }
  std::string kind() const override { return "copying"; }
  std::vector<MetricSpec> metrics() const override {
    return {{"exact_match", Aggregate::kMean, true, "match"}, {"copied", Aggregate::kMean, true, "copied"}};
  }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override {
    const std::vector<std::string> asked = items_of(sample.answers.front()), made = items_of(output.text);
    const auto right = std::mismatch(asked.begin(), asked.end(), made.begin(), made.end()).first - asked.begin();
    return {{"exact_match", right == std::ssize(asked) ? 1.0 : 0.0},
            {"copied", static_cast<double>(right) / static_cast<double>(asked.size())}};
  }
  int64_t tokens() const override { return s_.size.tokens; }
  int64_t sample_count() const override { return s_.size.samples; }
  int64_t query_tokens() const override {  // a token has a byte or more
    return std::min<int64_t>(s_.size.tokens, std::ssize(tail({})) + s_.cue * kLongestItem);
  }
  int64_t generated_tokens() const override { return s_.max_new_tokens; }

 private:
  std::string frame() const { return fmt::format("The secret {}s are:", s_.kind); }
  std::string tail(const std::vector<std::string>& cue) const { return "\n" + frame() + " " + joined(cue); }

  Sample make_sample(const TaskContext& context, const Filler& filler, const std::string& id) const {
    Rng rng(derive_seed(context.seed, "passage_copy/" + id));
    std::vector<std::string> items = own_nouns();
    if (s_.kind == "number") {
      items.clear();
      for (int64_t number = 100; number < 1000; ++number) items.push_back(fmt::to_string(number));
    }
    rng.shuffle(items);
    items.resize(static_cast<size_t>(s_.items));
    const std::vector<std::string> cue(items.begin(), items.begin() + s_.cue),
        asked(items.begin() + s_.cue, items.end());
    const Haystack hay = generated_haystack(rng.next());
    const PromptPlan plan{.name = "passage_copy.tokens",
                          .head = "",
                          .tail = tail(cue),
                          .separator = "\n",
                          .next_sentence = hay.next,
                          .inserts = {{frame() + " " + joined(items) + ".", s_.depth}},
                          .tokens = s_.size.tokens};
    Sample sample = synthetic_sample("passage_copy", id, fit_prompt(plan, context.tokenizer, filler, rng),
                                     joined(asked), s_.max_new_tokens, context.tokenizer);
    sample.stop = {"\n"};
    return sample;
  }

  Settings s_;
};

std::unique_ptr<Task> make_passage_copy(Params& params) {
  Settings s;
  s.size = read_synthetic_size(params);
  s.depth = params.integer("depth", 0, 0, 100, "where the passage stands, in per cent of the text");
  s.kind =
      params.choice("kind", "number", {"number", "word"}, "what the passage is made of: numbers of 3 digits, nouns");
  s.items = params.integer("items", 6, 2, 400, "of the passage, no two alike");
  s.cue = params.integer("cue", 1, 1, 399, "items that the query repeats");
  // A digit is a token for some tokenizers, and so is the space before a number; a noun takes up to three.
  s.max_new_tokens = params.integer("max_new_tokens", 4 * s.items, 1, 4096, "4 an item when left out");
  if (s.cue >= s.items) params.reject("cue", fmt::format("nothing is left to copy of items = {}", s.items));
  params.finish();
  return std::make_unique<PassageCopyTask>(std::move(s));
}

}  // namespace

TaskEntry passage_copy_entry() {
  return {"passage_copy", 1, "write an early passage again, word for word; needs no data", make_passage_copy};
}

}  // namespace kvsweep
