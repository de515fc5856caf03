#include <fmt/format.h>

#include <algorithm>

#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/fit.h"
#include "tasks/data/synthetic.h"
#include "tasks/data/words.h"

namespace kvsweep {
namespace {

constexpr int64_t kLongestQuery = 48;  // bytes of "\n123 + 45 ="

struct Settings {
  SyntheticSize size;
  int64_t largest = 0, top = 0, max_new_tokens = 0;
};

// left op right = result
struct Step {
  int64_t left = 0, right = 0, result = 0;
  std::string question() const { return fmt::format("{} {} {} =", left, result >= left ? '+' : '-', right); }
  std::string line() const { return fmt::format("{} {}", question(), result); }
};

class ArithmeticChainTask final : public Task {
 public:
  explicit ArithmeticChainTask(Settings settings) : s_(settings) {}

  std::vector<Sample> samples(const TaskContext& context) const override {
    const Filler filler(context.tokenizer, own_nouns());
    std::vector<Sample> samples;
    for (int64_t i = 0; i < s_.size.samples; ++i)
      samples.push_back(make_sample(context, filler, fmt::format("s{:04}", i)));
    return samples;
  }
  std::string kind() const override { return "reasoning"; }
  std::vector<MetricSpec> metrics() const override { return {{"exact_match", Aggregate::kMean, true, "match"}}; }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override {
    return {{"exact_match", trimmed(output.text) == sample.answers.front() ? 1.0 : 0.0}};
  }
  int64_t tokens() const override { return s_.size.tokens; }
  int64_t sample_count() const override { return s_.size.samples; }
  int64_t query_tokens() const override { return std::min(s_.size.tokens, kLongestQuery); }
  int64_t generated_tokens() const override { return s_.max_new_tokens; }

 private:
  // A step that ends in `result`; any of those that stay within 0 to top.
  Step ending_in(int64_t result, Rng& rng) const {
    std::vector<Step> steps;
    for (int64_t right = 1; right <= s_.largest; ++right)
      for (const int64_t left : {result - right, result + right})
        if (left >= 0 && left <= s_.top) steps.push_back({left, right, result});
    return rng.pick(steps);
  }

  Sample make_sample(const TaskContext& context, const Filler& filler, const std::string& id) const {
    Rng rng(derive_seed(context.seed, "arithmetic_chain/" + id));
    const Step asked = ending_in(rng.between(0, s_.top), rng);
    int64_t next = asked.left;  // what the line before has to give
    const PromptPlan plan{.name = "arithmetic_chain.tokens",
                          .head = "",
                          .tail = "\n" + asked.question(),
                          .separator = "\n",
                          .next_sentence =
                              [&] {
                                const Step step = ending_in(next, rng);
                                next = step.left;
                                return step.line();
                              },
                          .inserts = {},
                          .tokens = s_.size.tokens,
                          .backwards = true};
    const FittedPrompt prompt = fit_prompt(plan, context.tokenizer, filler, rng);
    Sample sample = synthetic_sample("arithmetic_chain", id, prompt, fmt::to_string(asked.result), s_.max_new_tokens,
                                     context.tokenizer);
    sample.stop = {"\n"};
    int64_t seen = 0;
    const std::string line = "\n" + asked.line();
    for (size_t at = 0; (at = (prompt.context + "\n").find(line + "\n", at)) != std::string::npos; ++at) ++seen;
    sample.tags["seen"] = fmt::to_string(seen);
    return sample;
  }

  Settings s_;
};

std::unique_ptr<Task> make_arithmetic_chain(Params& params) {
  Settings s;
  s.size = read_synthetic_size(params);
  s.largest = params.integer("largest", 2, 1, 99, "largest number that is added or taken away");
  s.top = params.integer("top", 9, 1, 999, "results are from 0 to this");
  s.max_new_tokens = params.integer("max_new_tokens", 6, 1, 4096, "tokens generated as the answer");
  if (s.largest > s.top) params.reject("largest", fmt::format("more than top = {}", s.top));
  params.finish();
  return std::make_unique<ArithmeticChainTask>(s);
}

}  // namespace

TaskEntry arithmetic_chain_entry() {
  return {"arithmetic_chain", 1,
          "a long chain of sums, each beginning with the last result; the model finishes the last one",
          make_arithmetic_chain};
}

}  // namespace kvsweep
