#include <fmt/format.h>

#include <algorithm>

#include "harness/core/common_prefix.h"
#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/fit.h"
#include "tasks/data/haystack.h"
#include "tasks/data/niah.h"
#include "tasks/data/words.h"
#include "tasks/metrics/string_match.h"

namespace kvsweep {
namespace {

constexpr int64_t kRulerDepths = 40;  // grid that further needles are drawn from, without replacement

struct Settings {
  int64_t tokens = 0, samples = 0, depths = 0;
  std::string haystack, needle, key, words;
  int64_t keys = 0, queries = 0, values = 0, max_new_tokens = 0;
};

// What a sample hides: the first needle is the asked one that stands at the sample's depth.
struct Hidden {
  std::vector<Insert> needles;
  std::vector<std::string> queries, answers;
};

class NeedleTask final : public Task {
 public:
  explicit NeedleTask(Settings settings) : s_(std::move(settings)) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override { return "retrieval"; }
  std::vector<MetricSpec> metrics() const override { return {{"exact_match", Aggregate::kMean, true, "match"}}; }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override {
    return {{"exact_match", string_match_all(output.text, sample.answers)}};
  }
  int64_t tokens() const override { return s_.tokens; }
  int64_t sample_count() const override { return s_.samples; }
  int64_t query_tokens() const override {
    const std::vector<std::string> queries(static_cast<size_t>(s_.queries), std::string(64, 'x'));
    return std::min(s_.tokens, std::ssize(tail(enumerate(queries))));  // a token has a byte or more
  }
  int64_t generated_tokens() const override { return s_.max_new_tokens; }
  std::vector<std::string> data() const override;

 private:
  NiahFrame frame(const std::string& query) const { return niah_frame(s_.needle, query, s_.queries * s_.values); }
  std::string tail(const std::string& query) const { return frame(query).question + frame(query).answer_prefix; }
  bool reads_text() const { return s_.haystack != "generated" && s_.haystack != "noise" && s_.haystack != "needles"; }
  std::string text_path() const { return s_.haystack == "essays" ? "paul_graham_essays" : s_.haystack; }
  Haystack haystack(uint64_t seed, const std::vector<std::string>& sentences, Drawer& drawer) const;
  void check_generation(const Sample& sample, const Tokenizer& tokenizer) const;

  // What the samples of one call share.
  struct Shared {
    Vocabulary words;
    std::vector<std::string> sentences;
    Filler filler;
  };
  Hidden hide(int64_t depth, Drawer& drawer, Rng& rng) const;
  Sample make_sample(const TaskContext& context, const Shared& shared, int64_t depth, int64_t repetition) const;

  Settings s_;
};

std::vector<std::string> NeedleTask::data() const {
  std::vector<std::string> data = vocabulary_data(s_.words);
  if (reads_text()) data.insert(data.begin(), text_path());
  return data;
}

Haystack NeedleTask::haystack(uint64_t seed, const std::vector<std::string>& sentences, Drawer& drawer) const {
  if (s_.haystack == "generated") return generated_haystack(seed);
  if (s_.haystack == "noise") return noise_haystack();
  if (s_.haystack == "needles")
    return {"\n", [this, &drawer] {
              const std::string key = drawer.draw(s_.key);
              return niah_needle(s_.needle, key, drawer.draw(s_.needle));
            }};
  return text_haystack(sentences);
}

void NeedleTask::check_generation(const Sample& sample, const Tokenizer& tokenizer) const {
  const int64_t needed = std::ssize(tokenizer.encode(" " + enumerate(sample.answers), false));
  if (needed > s_.max_new_tokens)
    throw ConfigError(fmt::format("needle.max_new_tokens = {} is too few: the answer of sample {} takes {} tokens",
                                  s_.max_new_tokens, sample.id, needed));
}

Hidden NeedleTask::hide(int64_t depth, Drawer& drawer, Rng& rng) const {
  Hidden hidden;
  std::vector<int64_t> other_depths = depth_grid(kRulerDepths);
  rng.shuffle(other_depths);
  for (int64_t k = 0; k < s_.keys; ++k) {
    const std::string key = drawer.draw(s_.key);
    if (k < s_.queries) hidden.queries.push_back(key);
    for (int64_t v = 0; v < s_.values; ++v) {
      const std::string value = drawer.draw(s_.needle);
      const size_t nth = hidden.needles.size();
      hidden.needles.push_back({niah_needle(s_.needle, key, value), nth == 0 ? depth : other_depths[nth - 1]});
      if (k < s_.queries) hidden.answers.push_back(value);
    }
  }
  return hidden;
}

Sample NeedleTask::make_sample(const TaskContext& context, const Shared& shared, int64_t depth,
                               int64_t repetition) const {
  Sample sample;
  sample.id = fmt::format("d{:03}-s{:02}", depth, repetition);
  sample.max_new_tokens = s_.max_new_tokens;
  Rng rng(derive_seed(context.seed, "needle/" + sample.id));
  Drawer drawer(shared.words, rng);
  const Hidden hidden = hide(depth, drawer, rng);
  sample.answers = hidden.answers;
  const Haystack hay = haystack(rng.next(), shared.sentences, drawer);
  const PromptPlan plan{.name = "needle.tokens",
                        .head = frame("").head,
                        .tail = tail(enumerate(hidden.queries)),
                        .separator = hay.separator,
                        .next_sentence = hay.next,
                        .inserts = hidden.needles,
                        .tokens = s_.tokens};
  const FittedPrompt prompt = fit_prompt(plan, context.tokenizer, shared.filler, rng);
  const size_t value_at = prompt.offsets[0] + hidden.needles[0].text.size() - hidden.answers[0].size() - 1;
  sample.tags["depth"] = fmt::to_string(depth);
  sample.tags["answer_token"] = fmt::to_string(
      common_prefix(encode_with_bos(context.tokenizer, prompt.context.substr(0, value_at), false), prompt.ids));
  sample.context.assign(prompt.ids.begin(), prompt.ids.begin() + prompt.context_tokens);
  sample.query.assign(prompt.ids.begin() + prompt.context_tokens, prompt.ids.end());
  check_generation(sample, context.tokenizer);
  return sample;
}

std::vector<Sample> NeedleTask::samples(const TaskContext& context) const {
  const Shared shared{vocabulary(s_.words, context.data),
                      reads_text() ? haystack_sentences(context.data, text_path()) : std::vector<std::string>{},
                      Filler(context.tokenizer, own_nouns())};
  const std::vector<int64_t> depths = depth_grid(s_.depths), order = spread_order(s_.depths);
  std::vector<Sample> samples;
  for (int64_t i = 0; i < s_.samples; ++i) {
    const int64_t depth = depths[static_cast<size_t>(order[static_cast<size_t>(i % s_.depths)])];
    samples.push_back(make_sample(context, shared, depth, i / s_.depths));
  }
  return samples;
}

std::unique_ptr<Task> make_needle(Params& params) {
  Settings s;
  s.tokens = params.integer("tokens", std::nullopt, 32, 1 << 20, "tokens of context and query, met exactly");
  s.samples = params.integer("samples", 20, 1, 100000, "samples in all, spread evenly over the depths");
  s.depths = params.integer("depths", 10, 1, 101, "positions of the asked needle, evenly over 0 to 100 % of the text");
  s.haystack = params.text("haystack", "generated",
                           "generated, noise, needles, essays, or a text file or folder below a data root");
  s.needle = params.choice("needle", "number", {"number", "word", "uuid"}, "what is hidden");
  s.key = params.choice("key", "word", {"word", "number", "uuid"}, "what it is asked by");
  s.words = params.choice("words", "generated", {"generated", "wonderwords"},
                          "vocabulary of words: the project's own, or the protocol's from the data roots");
  s.keys = params.integer("keys", 1, 1, kRulerDepths, "keys hidden in the text");
  s.queries = params.integer("queries", 1, 1, kRulerDepths, "keys asked for");
  s.values = params.integer("values", 1, 1, kRulerDepths, "values of each key");
  s.max_new_tokens = params.integer("max_new_tokens", s.needle == "uuid" ? 48 : 32, 1, 4096,
                                    "tokens generated as the answer; 48 for uuid when left out");
  if (s.queries > s.keys) params.reject("queries", fmt::format("more than keys = {}", s.keys));
  if (s.keys * s.values > kRulerDepths)
    params.reject("values", fmt::format("keys * values = {} needles; at most {}", s.keys * s.values, kRulerDepths));
  const std::string near = nearest_name(s.haystack, {"generated", "noise", "needles", "essays"});
  if (!near.empty() && near != s.haystack) params.reject("haystack", fmt::format("did you mean '{}'?", near));
  params.finish();
  return std::make_unique<NeedleTask>(std::move(s));
}

}  // namespace

TaskEntry needle_entry() {
  return {"needle", 1, "retrieve values hidden at set depths of a long text (RULER's niah family)", make_needle};
}

}  // namespace kvsweep
