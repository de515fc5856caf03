#include <fmt/format.h>

#include <numeric>
#include <stdexcept>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/locate.h"

namespace kvsweep {
namespace {

constexpr const char* kModelText = "model";
constexpr const char* kWikitext2 = "wikitext2";

class PerplexityTask final : public Task {
 public:
  PerplexityTask(std::string text, int64_t tokens, int64_t scored, int64_t samples)
      : text_(std::move(text)), tokens_(tokens), scored_(scored), samples_(samples) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override { return "language_modeling"; }
  std::vector<MetricSpec> metrics() const override { return {{"nll", Aggregate::kExpMean, false, "perplexity"}}; }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override;
  int64_t tokens() const override { return tokens_; }
  int64_t sample_count() const override { return samples_; }
  int64_t query_tokens() const override { return scored_; }
  std::vector<std::string> data() const override {
    if (text_ == kModelText) return {};
    return {text_ == kWikitext2 ? "wikitext2_raw/wikitext-test.hfjoin.txt" : text_};
  }

 private:
  std::vector<std::vector<int32_t>> text_windows(const TaskContext& context) const;

  std::string text_;
  int64_t tokens_, scored_, samples_;
};

std::vector<std::vector<int32_t>> PerplexityTask::text_windows(const TaskContext& context) const {
  const std::filesystem::path file = context.data.find(data().front());
  const std::vector<int32_t> ids = encode_with_bos(context.tokenizer, read_utf8(file), false);
  const int64_t whole = std::ssize(ids) / tokens_;
  if (samples_ > whole)
    throw ConfigError(fmt::format("perplexity.samples = {}: {} has {} tokens, {} windows of tokens = {}", samples_,
                                  file.string(), ids.size(), whole, tokens_));
  std::vector<std::vector<int32_t>> windows;
  for (int64_t i = 0; i < samples_; ++i)
    windows.emplace_back(ids.begin() + i * tokens_, ids.begin() + (i + 1) * tokens_);
  return windows;
}

std::vector<Sample> PerplexityTask::samples(const TaskContext& context) const {
  std::vector<Sample> samples;
  const auto windows = text_ == kModelText
                           ? context.model_text(samples_, tokens_, derive_seed(context.seed, "perplexity/model_text"))
                           : text_windows(context);
  for (const auto& window : windows) {
    Sample sample;
    sample.id = fmt::format("w{:04}", samples.size());
    sample.context.assign(window.begin(), window.end() - scored_);
    sample.query.assign(window.end() - scored_, window.end());
    sample.tags["window"] = fmt::to_string(samples.size());
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::map<std::string, double> PerplexityTask::score(const Sample& sample, const Output& output) const {
  if (output.nll.size() + 1 != sample.query.size())
    throw std::invalid_argument(fmt::format("perplexity: sample {} has {} scored tokens, not {}", sample.id,
                                            output.nll.size(), sample.query.size() - 1));
  const double sum = std::accumulate(output.nll.begin(), output.nll.end(), 0.0);
  return {{"nll", sum / static_cast<double>(output.nll.size())}};
}

std::unique_ptr<Task> make_perplexity(Params& params) {
  const std::string text =
      params.text("text", std::nullopt, "model (sampled from it), wikitext2, or a text file below a data root");
  const int64_t tokens = params.integer("tokens", std::nullopt, 4, 1 << 20, "tokens of a window");
  // The default is recorded as the number that it is.
  const int64_t scored = params.integer("scored", tokens / 2, 2, 1 << 20,
                                        "tokens at a window's end that form the query, all but its first scored; half "
                                        "of the window when left out");
  if (scored > tokens) params.reject("scored", fmt::format("more than tokens = {}", tokens));
  const int64_t samples = params.integer("samples", 8, 1, 1000000, "windows, from the beginning of the text");
  const std::string near = nearest_name(text, {kModelText, kWikitext2});
  if (!near.empty() && near != text) params.reject("text", fmt::format("did you mean '{}'?", near));
  params.finish();
  return std::make_unique<PerplexityTask>(text, tokens, scored, samples);
}

}  // namespace

TaskEntry perplexity_entry() {
  return {"perplexity", 1, "negative log-likelihood of text in non-overlapping windows", make_perplexity};
}

}  // namespace kvsweep
