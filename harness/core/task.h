#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "harness/core/params.h"
#include "harness/core/tokenizer.h"

namespace kvsweep {

// How generated tokens are chosen. Every scheme draws with the same random numbers.
struct Sampling {
  double temperature = 0;  // 0: greedy
  double top_p = 1;        // smallest set of tokens that together have this probability
  uint64_t seed = 0;       // of this sample
};

// One item of a task, in tokens. The context is what a view compresses; the query is read through the compressed cache
// and is never empty, so that every scored token has read what is being measured.
struct Sample {
  std::string id;                // unique and stable within a task's resolved parameters, e.g. "d030-s004"
  std::vector<int32_t> context;  // may be empty
  std::vector<int32_t> query;    // at least one token
  // What is asked, one of three:
  // * choices not empty: the log-likelihood of each, a continuation of the query of at least one token;
  // * max_new_tokens > 0: a continuation after the query of at most this many tokens;
  // * else the query itself is scored, each query token after the first given everything before it.
  std::vector<std::vector<int32_t>> choices;
  int64_t max_new_tokens = 0;
  Sampling sampling;
  std::vector<std::string> stop;            // generation ends where one of these appears; the text is cut there
  std::vector<std::string> answers;         // references, as score() wants them
  std::map<std::string, std::string> tags;  // recorded with the sample: depth, needle kind, window number
  // The tag "document" has a meaning for all: samples with the same value share a text and are not independent, which
  // intervals of differences take into account.
};

// A continuation under a scheme.
struct ChoiceScore {
  double log_likelihood = 0;  // natural log, summed over its tokens
  bool greedy = false;        // each of its tokens is the most likely one
};

// What a scheme made of a sample.
struct Output {
  std::vector<int32_t> tokens;       // generated ids
  std::string text;                  // decoded, cut at the first stop string
  std::vector<float> nll;            // scored query tokens 1..n-1, natural log
  std::vector<ChoiceScore> choices;  // one for each of the sample's
};

// How the values of a metric become one number in tables.
enum class Aggregate {
  kMean,     // mean over samples, standard error of the mean
  kExpMean,  // exp of the mean over samples: perplexity from NLL per token
};

struct MetricSpec {
  std::string name;  // as in records: "exact_match", "nll"
  Aggregate aggregate = Aggregate::kMean;
  bool higher_is_better = true;
  std::string shown_as;  // column title; "perplexity" for exp(mean nll)
  // Name of the failure mode that a sample shows where its value is worse than full precision's: "no answer". Empty:
  // not a diagnostic.
  std::string failure = {};
};

// Where a task's data may lie: --data, $KVSWEEP_DATA, ../shared/data, the user's cache, in this order.
class DataLocator {
 public:
  explicit DataLocator(std::vector<std::filesystem::path> roots) : roots_(std::move(roots)) {}
  // `relative` below the first root that has it; an absolute path stands for itself. Throws DataError that lists where
  // it was looked for and how to get it.
  std::filesystem::path find(const std::string& relative) const;
  const std::vector<std::filesystem::path>& roots() const { return roots_; }

 private:
  std::vector<std::filesystem::path> roots_;
};

// Texts that the full-precision model writes itself: `sequences` of them, each of `tokens` ids that begin with BOS (or
// with the model's first end token where it has no BOS), sampled at temperature 1. A pure function of the model and the
// seed, sampled as one batch and cached on disk by the runner.
using ModelText = std::function<std::vector<std::vector<int32_t>>(int64_t sequences, int64_t tokens, uint64_t seed)>;

// One user's message in the model's chat template, up to and with the opening of the assistant's turn: special tokens
// are written out, BOS too, so it is encoded by encode(text, true). Throws ConfigError when the template is not known.
using ChatPrompt = std::function<std::string(const std::string& message)>;

// What a task may use to build its samples.
struct TaskContext {
  const Tokenizer& tokenizer;
  const DataLocator& data;
  ModelText model_text;
  uint64_t seed = 0;     // the sweep's seed; derive_seed(seed, "needle/...") for every use
  ChatPrompt chat = {};  // empty when the model has no chat template
};

// What a task asks of a model; tables of what compression costs whom are drawn by it.
inline constexpr const char* kTaskKinds[] = {"language_modeling",
                                             "retrieval",
                                             "question_answering",
                                             "knowledge",
                                             "reasoning",
                                             "summarization",
                                             "classification",
                                             "code",
                                             "copying",
                                             "safety",
                                             "other"};

// A benchmark with resolved parameters. score() is pure.
class Task {
 public:
  virtual ~Task() = default;
  // All samples, in an order and with contents that depend on parameters, context and data only.
  virtual std::vector<Sample> samples(const TaskContext& context) const = 0;
  virtual std::vector<MetricSpec> metrics() const = 0;  // the first is the one that tables show
  // Values by metric name; every name of metrics() is present.
  virtual std::map<std::string, double> score(const Sample& sample, const Output& output) const = 0;
  // Tags by whose values records break every metric down: of `category` they hold "<metric>/category=<value>", the mean
  // over the samples with that value, and "<metric>/category", the mean of those means. Every sample has these tags.
  virtual std::vector<std::string> breakdown() const { return {}; }
  virtual std::string kind() const = 0;  // of kTaskKinds
  // The table's length axis in tokens: what the prompt of every sample has, or at most has.
  virtual int64_t tokens() const = 0;
  // Context and query of one sample, at most, where that is less: a benchmark whose length counts the answer too.
  virtual int64_t prompt_tokens() const { return tokens(); }
  // Samples that samples() will make.
  virtual int64_t sample_count() const = 0;
  // Query tokens of one sample, and tokens generated after them, at most. The runner refuses a task whose
  // prompt_tokens() and generated_tokens() together exceed what the model allows.
  virtual int64_t query_tokens() const = 0;
  virtual int64_t generated_tokens() const { return 0; }
  // Files or folders that samples() reads, relative to a data root; hashed into the record. Empty: none.
  virtual std::vector<std::string> data() const { return {}; }
};

// One plug-in. A score that can change with unchanged parameters needs a new version.
struct TaskEntry {
  std::string name;
  int version = 1;
  std::string summary;  // one line for `kvsweep list tasks`
  // Reads every parameter and calls params.finish(); builds nothing that needs data.
  std::function<std::unique_ptr<Task>(Params&)> make;
};

// Every task of tasks/, by name. Generated by CMake.
const std::vector<TaskEntry>& task_table();

}  // namespace kvsweep
