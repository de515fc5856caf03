#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/few_shot.h"
#include "tasks/data/jsonl.h"
#include "tasks/data/python_random.h"
#include "tasks/metrics/arithmetic.h"
#include "tasks/metrics/gsm8k_answer.h"
#include "tasks/metrics/repetition.h"

namespace kvsweep {
namespace {

constexpr const char *kTest = "gsm8k/test.jsonl", *kTrain = "gsm8k/train.jsonl", *kCotShots = "gsm8k/cot_8shot.json";
constexpr uint32_t kLmEvalSeed = 1234;
constexpr int64_t kTestQuestions = 1319, kMostShots = 25;

enum class Format { kPlain, kCot, kChat };

// A protocol of lm-evaluation-harness, lm_eval/tasks/gsm8k: gsm8k.yaml, gsm8k-cot.yaml, gsm8k-cot-llama.yaml.
struct Protocol {
  const char* name;
  const char *before, *behind;  // of the question
  int64_t shots;
  Gsm8kRule strict;
  std::vector<std::string> stop;
};
const Protocol& protocol_of(Format format) {
  static const Protocol plain = {
      "plain", "Question: ", "\nAnswer:", 5, Gsm8kRule::kStrict, {"Question:", "</s>", "<|im_end|>"}};
  static const Protocol cot = {"cot", "Q: ", "\nA:", 8, Gsm8kRule::kCotStrict, {"Q:", "</s>", "<|im_end|>"}};
  static const Protocol chat = {
      "chat",
      "Given the following problem, reason and give a final answer to the problem.\nProblem: ",
      "\nYour response should end with \"The final answer is [answer]\" where [answer] is the response to the "
      "problem.\n",
      0,
      Gsm8kRule::kLlamaStrict,
      {"<|eot_id|>", "<|start_header_id|>user<|end_header_id|>", "Q:", "</s>", "<|im_end|>"}};
  return format == Format::kPlain ? plain : format == Format::kCot ? cot : chat;
}

struct Settings {
  int64_t tokens = 0, samples = 0, shots = 0, max_new_tokens = 0;
  Format format = Format::kPlain;
  bool lm_eval_shots = false;  // drawn anew for every question, as lm-eval draws them
  Sampling sampling;
};

struct Shot {
  std::string question, target;
};

std::string read_answer(const JsonRecord& record) {
  const std::string answer = record.filled_text("answer");
  if (gsm8k_extract(answer, Gsm8kRule::kOpenAi) == gsm8k_extract("", Gsm8kRule::kOpenAi))
    record.fail("answer", "has no '#### <number>'");
  return answer;
}

class Gsm8kTask final : public Task {
 public:
  explicit Gsm8kTask(Settings settings) : s_(settings), protocol_(protocol_of(settings.format)) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override { return "reasoning"; }
  std::vector<MetricSpec> metrics() const override;
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override;
  int64_t tokens() const override { return s_.tokens; }
  int64_t sample_count() const override { return s_.samples; }
  int64_t query_tokens() const override { return std::min<int64_t>(s_.tokens - 1, 64); }
  int64_t generated_tokens() const override { return s_.max_new_tokens; }
  std::vector<std::string> data() const override {
    if (s_.shots == 0) return {kTest};
    return {kTest, s_.format == Format::kCot ? kCotShots : kTrain};
  }

 private:
  std::vector<Shot> shots(const DataLocator& data) const;
  std::string shown(const Shot& shot) const { return fmt::format("{} {}\n\n", asked(shot.question), shot.target); }
  std::string asked(const std::string& question) const { return protocol_.before + question + protocol_.behind; }

  Settings s_;
  const Protocol& protocol_;
};

// All that are drawn from; with fixed examples those alone.
std::vector<Shot> Gsm8kTask::shots(const DataLocator& data) const {
  std::vector<Shot> shots;
  if (s_.shots == 0) return shots;
  const std::filesystem::path file = data.find(this->data().back());
  if (s_.format == Format::kCot) {
    for (const JsonRecord& record : read_json(file).records("gsm8k_cot"))
      shots.push_back({record.filled_text("question"), record.filled_text("target")});
  } else {
    for (const JsonRecord& record : read_jsonl(file))
      shots.push_back({record.filled_text("question"), read_answer(record)});
  }
  if (std::ssize(shots) < s_.shots)
    throw ConfigError(fmt::format("gsm8k.shots = {}: {} has {} examples", s_.shots, file.string(), shots.size()));
  if (!s_.lm_eval_shots) shots.resize(static_cast<size_t>(s_.shots));
  return shots;
}

std::vector<Sample> Gsm8kTask::samples(const TaskContext& context) const {
  const std::filesystem::path file = context.data.find(kTest);
  const std::vector<JsonRecord> records = read_jsonl(file);
  if (std::ssize(records) < s_.samples)
    throw ConfigError(
        fmt::format("gsm8k.samples = {}: {} has {} questions", s_.samples, file.string(), records.size()));
  const std::vector<Shot> pool = shots(context.data);
  PythonRandom random(kLmEvalSeed);
  std::string fixed;
  if (!s_.lm_eval_shots)
    for (const Shot& shot : pool) fixed += shown(shot);
  std::vector<Sample> samples;
  for (int64_t i = 0; i < s_.samples; ++i) {
    const JsonRecord& record = records[static_cast<size_t>(i)];
    Sample sample;
    sample.id = fmt::format("q{:04}", i);
    sample.answers = {read_answer(record)};
    sample.max_new_tokens = s_.max_new_tokens;
    sample.stop = protocol_.stop;
    sample.sampling = s_.sampling;
    sample.sampling.seed = derive_seed(context.seed, "gsm8k/" + sample.id);
    const std::string question = asked(record.filled_text("question"));
    PromptParts prompt;
    if (s_.format == Format::kChat) {
      prompt = chat_parts(context, question, "gsm8k.format = chat");
    } else if (s_.lm_eval_shots) {
      std::string drawn;
      for (const int64_t at : random.sample(std::ssize(pool), s_.shots)) drawn += shown(pool[static_cast<size_t>(at)]);
      prompt = last_line_parts(drawn + question);
    } else {
      prompt = last_line_parts(fixed + question);
    }
    set_prompt(sample, context.tokenizer, prompt, s_.tokens, "gsm8k.tokens");
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::vector<MetricSpec> Gsm8kTask::metrics() const {
  const MetricSpec strict{"strict", Aggregate::kMean, true, "strict match"};
  const MetricSpec flexible{"flexible", Aggregate::kMean, true, "flexible match"};
  // In a chat few answers have the form that strict wants, whatever the cache.
  const bool chat = s_.format == Format::kChat;
  return {chat ? flexible : strict,
          chat ? strict : flexible,
          {"answer_missing", Aggregate::kMean, false, "no answer", "no answer"},
          {"arithmetic_steps", Aggregate::kMean, true, "steps"},
          {"arithmetic_errors", Aggregate::kMean, false, "wrong steps", "wrong arithmetic"},
          {"unfinished", Aggregate::kMean, false, "unfinished", "never stops"},
          {"rep_4", Aggregate::kMean, false, "rep-4", "repetition"},
          {"longest_loop", Aggregate::kMean, false, "loop"}};
}

std::map<std::string, double> Gsm8kTask::score(const Sample& sample, const Output& output) const {
  const std::string strict = gsm8k_extract(output.text, protocol_.strict);
  const std::string flexible = gsm8k_extract(output.text, Gsm8kRule::kFlexible);
  const Arithmetic arithmetic = check_arithmetic(output.text);
  const std::string& gold = sample.answers.front();
  return {{"strict", gsm8k_exact_match(strict, gold)},
          {"flexible", gsm8k_exact_match(flexible, gold)},
          {"answer_missing", strict == gsm8k_extract("", protocol_.strict) ? 1 : 0},
          {"arithmetic_steps", static_cast<double>(arithmetic.steps)},
          {"arithmetic_errors", static_cast<double>(arithmetic.errors)},
          {"unfinished", std::ssize(output.tokens) >= sample.max_new_tokens ? 1 : 0},
          {"rep_4", rep_n(output.tokens, 4)},
          {"longest_loop", static_cast<double>(longest_loop(output.tokens))}};
}

std::unique_ptr<Task> make_gsm8k(Params& params) {
  Settings s;
  s.tokens = params.integer("tokens", std::nullopt, 64, 1 << 20,
                            "tokens of a prompt at most; longer ones lose their beginning, and are tagged");
  s.samples = params.integer("samples", 100, 1, kTestQuestions, "questions, from the first of the split test");
  const std::string format =
      params.choice("format", "cot", {"plain", "cot", "chat"},
                    "plain: questions and answers of the split train; cot: eight worked examples; chat: the question "
                    "in the model's chat format");
  s.format = format == "plain" ? Format::kPlain : format == "cot" ? Format::kCot : Format::kChat;
  s.shots = params.integer("shots", protocol_of(s.format).shots, 0, kMostShots,
                           "examples before the question; with format plain 5, cot 8, chat 0 when left out");
  s.lm_eval_shots = params.choice("fewshot", "first_n", {"first_n", "lm_eval_compat"},
                                  "the first examples for every question, or drawn for each as lm-evaluation-harness "
                                  "does") == "lm_eval_compat";
  s.max_new_tokens = params.integer("max_new_tokens", 256, 1, 1 << 16, "tokens generated at most");
  s.sampling.temperature = params.number("temperature", 0, 0, 100, "0: greedy");
  s.sampling.top_p = params.number("top_p", 1, 1e-6, 1, "share of the probability that is drawn from");
  if (s.format == Format::kChat && s.shots > 0) params.reject("shots", "format chat has none");
  if (s.format == Format::kCot && s.shots > 8) params.reject("shots", "format cot has 8");
  if (s.format != Format::kPlain && s.lm_eval_shots)
    params.reject("fewshot", "examples are drawn with format plain only");
  params.finish();
  return std::make_unique<Gsm8kTask>(s);
}

}  // namespace

TaskEntry gsm8k_entry() {
  return {"gsm8k", 1, "school mathematics in words (GSM8K): strict and flexible match, and what breaks the reasoning",
          make_gsm8k};
}

}  // namespace kvsweep
