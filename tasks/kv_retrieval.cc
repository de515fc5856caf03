#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/fit.h"
#include "tasks/data/synthetic.h"
#include "tasks/data/words.h"

namespace kvsweep {
namespace {

// Key-value retrieval (Liu et al., 2023, "Lost in the Middle", section 3) in a form that a small model knows what to do
// with: the list fills the whole length, and a few of its lines are repeated before the asked key stands.
constexpr const char* kHead = "Here is a list of keys with their values.\n";
constexpr const char* kTail = "\n\nThe list says:\n";
constexpr int64_t kLongestLine = 64;  // bytes of "adjective-noun: 12345678"

struct Settings {
  SyntheticSize size;
  int64_t depths = 0, shots = 0, digits = 0, max_new_tokens = 0;
  std::string key;
};

struct Pair {
  std::string key, value;
  std::string line() const { return key + ": " + value; }
};

// Pairs with keys of their own.
class PairDrawer {
 public:
  PairDrawer(const Settings& settings, Rng& rng) : s_(settings), rng_(rng) {}
  Pair draw() {
    while (true) {
      std::string key = s_.key == "word" ? rng_.pick(own_adjectives()) + "-" + rng_.pick(nouns_)
                                         : fmt::to_string(rng_.between(10000000, 99999999));
      if (keys_.insert(key).second) return {std::move(key), value()};
    }
  }

 private:
  std::string value() {
    std::string digits = fmt::to_string(rng_.between(1, 9));
    while (std::ssize(digits) < s_.digits) digits += fmt::to_string(rng_.between(0, 9));
    return digits;
  }

  const Settings& s_;
  Rng& rng_;
  const std::vector<std::string> nouns_ = own_nouns();
  std::set<std::string> keys_;
};

class KvRetrievalTask final : public Task {
 public:
  explicit KvRetrievalTask(Settings settings) : s_(std::move(settings)) {}

  std::vector<Sample> samples(const TaskContext& context) const override {
    const Filler filler(context.tokenizer, own_nouns());
    std::vector<Sample> samples;
    for (int64_t i = 0; i < s_.size.samples; ++i) samples.push_back(make_sample(context, filler, i));
    return samples;
  }
  std::string kind() const override { return "retrieval"; }
  std::vector<MetricSpec> metrics() const override { return {{"exact_match", Aggregate::kMean, true, "match"}}; }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override {
    return {{"exact_match", trimmed(output.text) == sample.answers.front() ? 1.0 : 0.0}};
  }
  int64_t tokens() const override { return s_.size.tokens; }
  int64_t sample_count() const override { return s_.size.samples; }
  int64_t query_tokens() const override {  // a token has a byte or more
    return std::min<int64_t>(s_.size.tokens, std::ssize(std::string_view(kTail)) + (s_.shots + 1) * kLongestLine);
  }
  int64_t generated_tokens() const override { return s_.max_new_tokens; }

 private:
  Sample make_sample(const TaskContext& context, const Filler& filler, int64_t index) const {
    const auto [depth, id] = depth_place(index, s_.depths);
    Rng rng(derive_seed(context.seed, "kv_retrieval/" + id));
    PairDrawer pairs(s_, rng);
    const Pair asked = pairs.draw();
    PromptPlan plan{.name = "kv_retrieval.tokens",
                    .head = kHead,
                    .tail = kTail,
                    .separator = "\n",
                    .next_sentence = [&] { return pairs.draw().line(); },
                    .inserts = {{asked.line(), depth}},
                    .tokens = s_.size.tokens,
                    .backwards = true};
    for (int64_t shot = 0; shot < s_.shots; ++shot) {
      plan.inserts.push_back({pairs.draw().line(), rng.between(0, 100)});
      plan.tail += plan.inserts.back().text + "\n";
    }
    plan.tail += asked.key + ":";
    Sample sample = synthetic_sample("kv_retrieval", id, fit_prompt(plan, context.tokenizer, filler, rng), asked.value,
                                     s_.max_new_tokens, context.tokenizer);
    sample.stop = {"\n"};
    sample.tags["depth"] = fmt::to_string(depth);
    return sample;
  }

  Settings s_;
};

std::unique_ptr<Task> make_kv_retrieval(Params& params) {
  Settings s;
  s.size = read_synthetic_size(params);
  s.depths = params.integer("depths", 10, 1, 101, "positions of the asked pair, evenly over 0 to 100 % of the list");
  s.shots = params.integer("shots", 5, 0, 32, "other lines of the list that are repeated before the asked key");
  s.key = params.choice("key", "word", {"word", "number"}, "adjective-noun, or 8 digits");
  s.digits = params.integer("digits", 4, 1, 16, "of a value");
  s.max_new_tokens = params.integer("max_new_tokens", s.digits + 4, 1, 4096, "digits + 4 when left out");
  params.finish();
  return std::make_unique<KvRetrievalTask>(std::move(s));
}

}  // namespace

TaskEntry kv_retrieval_entry() {
  return {"kv_retrieval", 1, "look up one key in a list of pairs that fills the context; needs no data",
          make_kv_retrieval};
}

}  // namespace kvsweep
