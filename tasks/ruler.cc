#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>

#include "harness/core/common_prefix.h"
#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/fit.h"
#include "tasks/data/haystack.h"
#include "tasks/data/niah.h"
#include "tasks/data/qa_sets.h"
#include "tasks/data/sentences.h"
#include "tasks/data/words.h"
#include "tasks/metrics/string_match.h"

namespace kvsweep {
namespace {

// The 13 tasks and their numbers: NVIDIA/RULER at c3f5e3b, scripts/synthetic.yaml and scripts/data/synthetic/*.py.
enum class Family { kNiah, kVariableTracking, kCommonWords, kFrequentWords, kQa };

struct Kind {
  const char* name;
  Family family;
  // niah: haystack (essay, noise, needle), what a value and what a key is, keys, values of each, keys asked for
  const char *haystack = "", *value = "", *key = "";
  int64_t keys = 1, values = 1, queries = 1;
};

constexpr Kind kKinds[] = {
    {"niah_single_1", Family::kNiah, "noise", "number", "word"},
    {"niah_single_2", Family::kNiah, "essay", "number", "word"},
    {"niah_single_3", Family::kNiah, "essay", "uuid", "word"},
    {"niah_multikey_1", Family::kNiah, "essay", "number", "word", 4},
    {"niah_multikey_2", Family::kNiah, "needle", "number", "word"},
    {"niah_multikey_3", Family::kNiah, "needle", "uuid", "uuid"},
    {"niah_multivalue", Family::kNiah, "essay", "number", "word", 1, 4},
    {"niah_multiquery", Family::kNiah, "essay", "number", "word", 4, 1, 4},
    {"vt", Family::kVariableTracking},
    {"cwe", Family::kCommonWords},
    {"fwe", Family::kFrequentWords},
    {"qa_1", Family::kQa},
    {"qa_2", Family::kQa},
};

// What is generated after the prompt; a part of the length.
int64_t answer_tokens(Family family) {
  switch (family) {
    case Family::kNiah:
      return 128;
    case Family::kVariableTracking:
      return 30;
    case Family::kCommonWords:
      return 120;
    case Family::kFrequentWords:
      return 50;
    case Family::kQa:
      break;
  }
  return 32;
}

// The prompt around the haystack (constants.py); {query} and {count} are filled in.
struct Frame {
  std::string head, question, answer_prefix;
};
constexpr const char* kVtHead =
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n";
constexpr const char* kVtQuestion = "\nQuestion: Find all variables that are assigned the value {} in the text above.";
constexpr const char* kVtPrefix =
    " Answer: According to the chain(s) of variable assignment in the text above, {} variables are assigned the value "
    "{}, they are: ";
constexpr const char* kCweHead =
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
    "appear most often.\n";
constexpr const char* kCweQuestion = "\nQuestion: What are the 10 most common words in the above list?";
constexpr const char* kCwePrefix = " Answer: The top 10 words that appear most often in the list are:";
constexpr const char* kFweHead =
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
    "coded words. ";
constexpr const char* kFweQuestion =
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text?";
constexpr const char* kFwePrefix =
    " Answer: According to the coded text above, the three most frequently appeared words are:";
constexpr const char* kQaHead =
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
    "The following are given documents.\n\n";
constexpr const char* kQaQuestion =
    "\n\nAnswer the question based on the given documents. Only give me the answer and do not output any other "
    "words.\n\nQuestion: {}";
constexpr const char* kQaPrefix = " Answer:";

constexpr const char* kVerbs = "wonderwords/verblist.txt";
constexpr int64_t kDepths = 40;  // grid that needles are drawn from, without replacement
constexpr int64_t kHops = 4;
constexpr int64_t kVtExampleTokens = 500;
constexpr int64_t kCommon = 10;
constexpr int64_t kShortTokens = 4096;  // below it cwe repeats words less often
constexpr int64_t kTinyTokens = 1024;   // below it cwe's protocol would not fit: no example, and words repeat even less
constexpr double kZeta2 = std::numbers::pi * std::numbers::pi / 6;

// A sample without its length yet.
struct Draft {
  std::string before;  // few-shot example
  Frame frame;
  std::function<std::string(int64_t units)> haystack;  // pure
  int64_t least = 1, most = 0;                         // units of it
  std::vector<std::string> answers;
  std::string answer_place;  // text that ends where the first answer begins in the haystack; "": not recorded
};

// What the samples of one call share.
struct Shared {
  Vocabulary words;
  std::vector<std::string> text_words;  // of the essays
  std::vector<std::string> word_list;   // cwe
  QaSet qa;
};

std::string numbered(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) text += fmt::format("{}{}. {}", i == 0 ? "" : " ", i + 1, words[i]);
  return text;
}

// Lines with `inserts` between them, the i-th before line places[i]; places ascend.
std::string with_inserts(const std::vector<std::string>& lines, const std::vector<std::string>& inserts,
                         const std::vector<int64_t>& places) {
  std::string text;
  size_t next = 0;
  for (int64_t at = 0; at <= std::ssize(lines); ++at) {
    for (; next < inserts.size() && places[next] == at; ++next) text += inserts[next] + "\n";
    if (at < std::ssize(lines)) text += lines[static_cast<size_t>(at)] + "\n";
  }
  text.pop_back();
  return text;
}

// `count` of 0..bound-1 without replacement, ascending; with it where there are fewer.
std::vector<int64_t> draw_places(int64_t count, int64_t bound, Rng& rng) {
  std::vector<int64_t> places;
  while (std::ssize(places) < count) {
    const auto place = static_cast<int64_t>(rng.below(static_cast<uint64_t>(std::max<int64_t>(bound, 1))));
    if (bound < count || std::find(places.begin(), places.end(), place) == places.end()) places.push_back(place);
  }
  std::sort(places.begin(), places.end());
  return places;
}

std::string random_letters(int64_t count, char first, Rng& rng) {
  std::string word;
  for (int64_t i = 0; i < count; ++i) word += static_cast<char>(first + static_cast<char>(rng.below(26)));
  return word;
}

std::vector<std::string> distinct_letters(int64_t words, int64_t length, char first, Rng& rng) {
  std::vector<std::string> drawn;
  std::set<std::string> seen;
  while (std::ssize(drawn) < words)
    if (std::string word = random_letters(length, first, rng); seen.insert(word).second) drawn.push_back(word);
  return drawn;
}

class RulerTask final : public Task {
 public:
  RulerTask(const Kind& kind, int64_t tokens, int64_t samples, std::string words, std::string essays, bool chat)
      : kind_(kind),
        tokens_(tokens),
        samples_(samples),
        words_(std::move(words)),
        essays_(std::move(essays)),
        chat_(chat) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override {
    return kind_.family == Family::kQa                 ? "question_answering"
           : kind_.family == Family::kVariableTracking ? "reasoning"
                                                       : "retrieval";
  }
  std::vector<MetricSpec> metrics() const override { return {{"string_match", Aggregate::kMean, true, "match"}}; }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override {
    return {{"string_match", kind_.family == Family::kQa ? string_match_part(output.text, sample.answers)
                                                         : string_match_all(output.text, sample.answers)}};
  }
  int64_t tokens() const override { return tokens_; }
  int64_t prompt_tokens() const override { return tokens_ - generated_tokens(); }
  int64_t sample_count() const override { return samples_; }
  int64_t query_tokens() const override { return std::min(prompt_tokens(), kQueryTokens); }
  int64_t generated_tokens() const override { return answer_tokens(kind_.family); }
  std::vector<std::string> data() const override;

 private:
  static constexpr int64_t kQueryTokens = 1024;  // more than any question of the protocol has bytes

  bool reads_essays() const { return kind_.haystack == std::string_view("essay"); }
  std::string qa_file() const {
    return kind_.name == std::string_view("qa_1") ? "squad/dev-v2.0.json" : "hotpotqa/hotpot_dev_distractor_v1.json";
  }
  Shared shared(const TaskContext& context) const;
  Draft draft(const Shared& shared, const Tokenizer& tokenizer, int64_t index, uint64_t seed) const;
  Draft niah(const Shared& shared, uint64_t seed) const;
  Draft variable_tracking(int64_t letters, uint64_t seed) const;
  Draft with_example(const Tokenizer& tokenizer, uint64_t seed) const;
  Draft common_words(const Shared& shared, uint64_t seed) const;
  Draft frequent_words(uint64_t seed) const;
  Draft qa(const Shared& shared, int64_t index, uint64_t seed) const;
  UnitPlan plan(const Draft& draft, int64_t tokens, const ChatPrompt* chat) const;

  Kind kind_;
  int64_t tokens_, samples_;
  std::string words_, essays_;
  bool chat_;
};

std::vector<std::string> RulerTask::data() const {
  std::vector<std::string> data;
  if (reads_essays()) data.push_back(essays_);
  if (kind_.family == Family::kQa) data.push_back(qa_file());
  if (kind_.key == std::string_view("word") || kind_.family == Family::kCommonWords)
    for (const std::string& file : vocabulary_data(words_)) data.push_back(file);
  if (kind_.family == Family::kCommonWords && words_ == "wonderwords") data.emplace_back(kVerbs);
  return data;
}

Shared RulerTask::shared(const TaskContext& context) const {
  Shared shared;
  if (kind_.key == std::string_view("word") || kind_.family == Family::kCommonWords)
    shared.words = vocabulary(words_, context.data);
  if (reads_essays()) {
    std::istringstream in(haystack_text(context.data, essays_));
    for (std::string word; in >> word;) shared.text_words.push_back(word);
  }
  if (kind_.family == Family::kCommonWords) {
    std::set<std::string> words(shared.words.adjectives.begin(), shared.words.adjectives.end());
    words.insert(shared.words.nouns.begin(), shared.words.nouns.end());
    const auto verbs = words_ == "generated" ? own_verbs() : word_lines(context.data, kVerbs);
    words.insert(verbs.begin(), verbs.end());
    shared.word_list.assign(words.begin(), words.end());
  }
  if (kind_.family == Family::kQa) {
    const auto file = context.data.find(qa_file());
    shared.qa = kind_.name == std::string_view("qa_1") ? read_squad(file) : read_hotpotqa(file);
    if (samples_ > std::ssize(shared.qa.questions))
      throw ConfigError(fmt::format("ruler.samples = {}: {} has {} questions with an answer", samples_, file.string(),
                                    shared.qa.questions.size()));
  }
  return shared;
}

Draft RulerTask::niah(const Shared& shared, uint64_t seed) const {
  // Lines of a needle haystack are drawn as they are asked for: generator and drawer live as long as the draft.
  struct State {
    State(const Vocabulary& words, uint64_t from) : rng(from), drawer(words, rng) {}
    Rng rng;
    Drawer drawer;
    std::vector<std::string> lines;
  };
  const auto state = std::make_shared<State>(shared.words, seed);
  Draft draft;
  std::vector<std::string> keys, needles;
  std::vector<std::vector<std::string>> values;
  for (int64_t k = 0; k < kind_.keys; ++k) {
    keys.push_back(state->drawer.draw(kind_.key));
    values.emplace_back();
    for (int64_t v = 0; v < kind_.values; ++v) {
      values.back().push_back(state->drawer.draw(kind_.value));
      needles.push_back(niah_needle(kind_.value, keys.back(), values.back().back()));
    }
  }
  state->rng.shuffle(needles);
  std::vector<int64_t> depths = depth_grid(kDepths);
  state->rng.shuffle(depths);
  depths.resize(needles.size());
  std::sort(depths.begin(), depths.end());
  std::vector<size_t> asked(keys.size());
  std::iota(asked.begin(), asked.end(), size_t{0});
  state->rng.shuffle(asked);
  std::vector<std::string> queries;
  for (int64_t q = 0; q < kind_.queries; ++q) {
    const size_t k = asked[static_cast<size_t>(q)];
    queries.push_back(keys[k]);
    draft.answers.insert(draft.answers.end(), values[k].begin(), values[k].end());
  }
  draft.answer_place = queries[0] + " is: ";
  const NiahFrame frame = niah_frame(kind_.value, enumerate(queries), kind_.queries * kind_.values);
  draft.frame = {frame.head, frame.question, frame.answer_prefix};
  draft.most = tokens_;
  if (reads_essays()) {
    draft.haystack = [&words = shared.text_words, needles, depths](int64_t units) {
      std::string text;
      for (int64_t i = 0; i < units; ++i) text += (i == 0 ? "" : " ") + words[static_cast<size_t>(i) % words.size()];
      const std::vector<std::string> sentences = split_sentences(text);
      // The parts between needles are joined by a space even where they are empty, as the original does.
      std::vector<std::string> parts;
      int64_t from = 0;
      for (size_t i = 0; i <= needles.size(); ++i) {
        const int64_t to =
            i < needles.size() ? std::ssize(sentences) * depths[i] / 100 : static_cast<int64_t>(sentences.size());
        parts.push_back(join({sentences.begin() + from, sentences.begin() + to}, " "));
        if (i < needles.size()) parts.push_back(needles[i]);
        from = to;
      }
      return join(parts, " ");
    };
    return draft;
  }
  const bool noise = kind_.haystack == std::string_view("noise");
  const uint64_t place_seed = state->rng.next();
  draft.haystack = [state, noise, needles, place_seed, kind = kind_](int64_t units) {
    while (std::ssize(state->lines) < units) {
      if (noise) {
        state->lines.push_back(noise_haystack().next());
        continue;
      }
      const std::string key = state->drawer.draw(kind.key);
      state->lines.push_back(niah_needle(kind.value, key, state->drawer.draw(kind.value)));
    }
    Rng rng(place_seed);
    const auto places = draw_places(std::ssize(needles), units, rng);
    return with_inserts({state->lines.begin(), state->lines.begin() + units}, needles, places);
  };
  return draft;
}

Draft RulerTask::variable_tracking(int64_t letters, uint64_t seed) const {
  Rng rng(seed);
  Draft draft;
  draft.answers = distinct_letters(kHops + 1, letters, 'A', rng);
  const std::string value = fmt::to_string(rng.between(10000, 99998));
  std::vector<std::string> chain = {fmt::format("VAR {} = {}", draft.answers[0], value)};
  for (size_t hop = 1; hop < draft.answers.size(); ++hop)
    chain.push_back(fmt::format("VAR {} = VAR {} ", draft.answers[hop], draft.answers[hop - 1]));
  draft.frame = {kVtHead, fmt::format(kVtQuestion, value), fmt::format(kVtPrefix, chain.size(), value)};
  draft.least = 0;
  draft.most = tokens_;
  draft.answer_place = "VAR ";
  draft.haystack = [chain, place_seed = rng.next()](int64_t units) {
    Rng places(place_seed);
    return with_inserts(std::vector<std::string>(static_cast<size_t>(units), noise_haystack().next()), chain,
                        draw_places(std::ssize(chain), units, places));
  };
  return draft;
}

Draft RulerTask::with_example(const Tokenizer& tokenizer, uint64_t seed) const {
  const Draft example = variable_tracking(3, derive_seed(seed, "example"));
  const int64_t most = std::min(kVtExampleTokens, prompt_tokens() / 2);
  const CutText text = fit_units(plan(example, most, nullptr), tokenizer).text;
  Draft draft = variable_tracking(5, seed);
  draft.before = text.context + text.query + " " + join(example.answers, " ") + "\n\n";
  draft.answer_place = draft.answers[0] + " = ";
  return draft;
}

Draft RulerTask::common_words(const Shared& shared, uint64_t seed) const {
  const bool is_short = tokens_ < kShortTokens, is_tiny = tokens_ < kTinyTokens;
  Rng rng(seed);
  const auto list = [](std::vector<std::string> words, int64_t common, int64_t uncommon, Rng order) {
    std::vector<std::string> all;
    for (size_t i = 0; i < words.size(); ++i)
      all.insert(all.end(), static_cast<size_t>(i < kCommon ? common : uncommon), words[i]);
    order.shuffle(all);
    return numbered(all);
  };
  const auto first = [](const std::vector<std::string>& words, int64_t count) {
    return std::vector<std::string>(words.begin(), words.begin() + count);
  };
  std::vector<std::string> words = shared.word_list;
  rng.shuffle(words);
  Draft draft;
  draft.frame = {kCweHead, kCweQuestion, kCwePrefix};
  const std::vector<std::string> shown = first(words, is_short ? 20 : 40);
  if (!is_tiny)
    draft.before = kCweHead + list(shown, is_short ? 3 : 10, is_short ? 1 : 3, Rng(rng.next())) + kCweQuestion +
                   kCwePrefix + " " + numbered(first(shown, kCommon)) + "\n";
  rng.shuffle(words);
  // Where the list is shorter than the text needs, "adjective-noun" goes on with it.
  const int64_t uncommon = is_short ? 1 : 3;
  Drawer drawer(shared.words, rng);
  while (std::ssize(words) < tokens_ / (3 * uncommon)) words.push_back(drawer.draw("word"));
  draft.answers = first(words, kCommon);
  draft.least = kCommon + 1;
  draft.most = std::ssize(words);
  draft.haystack = [=, order = rng.next()](int64_t units) {
    return list(first(words, units), is_tiny ? 3 : is_short ? 6 : 30, uncommon, Rng(order));
  };
  return draft;
}

Draft RulerTask::frequent_words(uint64_t seed) const {
  Rng rng(seed);
  std::vector<std::string> words = distinct_letters(std::max<int64_t>(tokens_ / 50, 5), 6, 'a', rng);
  words[0] = "...";  // the most frequent one is noise
  Draft draft;
  draft.frame = {kFweHead, kFweQuestion, kFwePrefix};
  draft.answers = {words.begin() + 1, words.begin() + 4};
  // Ranks 2 to 5 differ in count from 100 words on: 3 of rank 4, 2 of rank 5.
  draft.least = 100;
  draft.most = 4 * tokens_;
  draft.haystack = [words, order = rng.next()](int64_t units) {
    std::vector<size_t> drawn;
    for (size_t rank = 1; rank <= words.size(); ++rank) {
      const double share = 1 / (static_cast<double>(rank) * static_cast<double>(rank) * kZeta2);
      drawn.insert(drawn.end(), static_cast<size_t>(static_cast<double>(units) * share), rank - 1);
    }
    Rng(order).shuffle(drawn);
    std::string text;
    for (size_t i = 0; i < drawn.size(); ++i) text += (i == 0 ? "" : " ") + words[drawn[i]];
    return text;
  };
  return draft;
}

Draft RulerTask::qa(const Shared& shared, int64_t index, uint64_t seed) const {
  const QaQuestion& question = shared.qa.questions[static_cast<size_t>(index)];
  Rng rng(seed);
  // In the order in which they come in as the text grows: those that answer, of the same article, of the rest.
  std::vector<int64_t> order = question.documents, related = question.related, rest;
  rng.shuffle(related);
  order.insert(order.end(), related.begin(), related.end());
  const std::set<int64_t> taken(order.begin(), order.end());
  for (int64_t i = 0; i < std::ssize(shared.qa.documents); ++i)
    if (!taken.contains(i)) rest.push_back(i);
  rng.shuffle(rest);
  order.insert(order.end(), rest.begin(), rest.end());
  Draft draft;
  draft.frame = {kQaHead, fmt::format(kQaQuestion, question.question), kQaPrefix};
  draft.answers = question.answers;
  draft.least = std::ssize(question.documents);
  draft.most = std::ssize(order);
  draft.haystack = [&documents = shared.qa.documents, order, shuffle = rng.next()](int64_t units) {
    std::vector<int64_t> chosen(order.begin(), order.begin() + units);
    Rng(shuffle).shuffle(chosen);
    std::string text;
    for (size_t i = 0; i < chosen.size(); ++i)
      text += fmt::format("{}Document {}:\n{}", i == 0 ? "" : "\n\n", i + 1, documents[static_cast<size_t>(chosen[i])]);
    return text;
  };
  return draft;
}

Draft RulerTask::draft(const Shared& shared, const Tokenizer& tokenizer, int64_t index, uint64_t seed) const {
  switch (kind_.family) {
    case Family::kNiah:
      return niah(shared, seed);
    case Family::kVariableTracking:
      return with_example(tokenizer, seed);
    case Family::kCommonWords:
      return common_words(shared, seed);
    case Family::kFrequentWords:
      return frequent_words(seed);
    case Family::kQa:
      break;
  }
  return qa(shared, index, seed);
}

// chat: the model's, when the prompt is to be in its format.
UnitPlan RulerTask::plan(const Draft& draft, int64_t tokens, const ChatPrompt* chat) const {
  return {.name = "ruler.tokens",
          .make =
              [&draft, chat](int64_t units) {
                CutText text{draft.before + draft.frame.head + draft.haystack(units), draft.frame.question};
                if (chat != nullptr) return in_chat(*chat, text, draft.frame.answer_prefix, "ruler.chat");
                text.query += draft.frame.answer_prefix;
                return text;
              },
          .least = draft.least,
          .most = draft.most,
          .tokens = tokens};
}

std::vector<Sample> RulerTask::samples(const TaskContext& context) const {
  const Shared common = shared(context);
  std::vector<Sample> samples;
  for (int64_t i = 0; i < samples_; ++i) {
    Sample sample;
    sample.id = fmt::format("s{:04}", i);
    const Draft made = draft(common, context.tokenizer, i,
                             derive_seed(context.seed, fmt::format("ruler/{}/{}", kind_.name, sample.id)));
    FittedUnits fitted = fit_units(plan(made, prompt_tokens(), chat_ ? &context.chat : nullptr), context.tokenizer);
    const CutIds prompt = cut_ids(context.tokenizer, fitted.text, std::move(fitted.ids));
    sample.context.assign(prompt.ids.begin(), prompt.ids.begin() + prompt.context_tokens);
    sample.query.assign(prompt.ids.begin() + prompt.context_tokens, prompt.ids.end());
    sample.max_new_tokens = generated_tokens();
    sample.answers = made.answers;
    if (!made.answer_place.empty()) {
      const size_t at = fitted.text.context.find(made.answer_place, made.before.size()) + made.answer_place.size();
      sample.tags["answer_token"] = fmt::to_string(
          common_prefix(text_ids(context.tokenizer, {fitted.text.context.substr(0, at), ""}), prompt.ids));
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::unique_ptr<Task> make_ruler(Params& params) {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  const std::string name = params.choice("task", std::nullopt, names, "one of RULER's 13 tasks");
  const int64_t tokens =
      params.integer("tokens", std::nullopt, 512, 1 << 20, "tokens of the prompt and of what is generated, at most");
  const int64_t samples = params.integer("samples", 20, 1, 100000, "samples in all; 500 in the original");
  const std::string words = params.choice("words", "wonderwords", {"wonderwords", "generated"},
                                          "vocabulary of keys and of cwe: the protocol's, or the project's own");
  const std::string essays = params.text("essays", "paul_graham_essays",
                                         "haystack of the essay tasks: a text file or folder below a data root");
  const bool chat =
      params.flag("chat", false, "the model's chat format around the prompt; the answer's beginning stands behind it");
  params.finish();
  const auto* kind =
      std::find_if(std::begin(kKinds), std::end(kKinds), [&](const Kind& one) { return one.name == name; });
  return std::make_unique<RulerTask>(*kind, tokens, samples, words, essays, chat);
}

}  // namespace

TaskEntry ruler_entry() {
  return {"ruler", 1, "RULER's 13 tasks: needles, variable tracking, word counts and questions over long texts",
          make_ruler};
}

}  // namespace kvsweep
