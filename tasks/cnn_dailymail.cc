#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "tasks/data/few_shot.h"
#include "tasks/data/locate.h"
#include "tasks/data/sentences.h"
#include "tasks/metrics/python_text.h"
#include "tasks/metrics/repetition.h"
#include "tasks/metrics/rouge_google.h"

namespace kvsweep {
namespace {

constexpr const char *kDocuments = "cnn_dailymail_100/documents.txt", *kReferences = "cnn_dailymail_100/references.txt";
// lm-evaluation-harness, lm_eval/tasks/cnn_dailymail.
constexpr const char *kHead = "Summarize the following article:\n\n", *kTail = "\n\nSummary:";

std::vector<std::string> lines_of(const std::filesystem::path& file) {
  std::vector<std::string> lines = split_at(read_utf8(file), '\n');
  if (lines.back().empty()) lines.pop_back();
  for (size_t i = 0; i < lines.size(); ++i) {
    lines[i] = python_strip(lines[i]);
    if (lines[i].empty()) throw DataError(fmt::format("{}:{}: the line is empty", file.string(), i + 1));
  }
  return lines;
}

// "<t> One . </t> <t> Two . </t>" as a sentence a line.
std::string reference_lines(const std::string& text, const std::string& place) {
  std::vector<std::string> sentences;
  for (size_t at = text.find("<t>"); at != std::string::npos; at = text.find("<t>", at + 1)) {
    const size_t end = text.find("</t>", at);
    if (end == std::string::npos) throw DataError(place + ": <t> without </t>");
    const std::string sentence = python_strip(text.substr(at + 3, end - at - 3));
    if (!sentence.empty()) sentences.push_back(sentence);
  }
  if (sentences.empty()) throw DataError(place + ": no sentence between <t> and </t>");
  return join(sentences, "\n");
}

class CnnDailyMailTask final : public Task {
 public:
  CnnDailyMailTask(int64_t tokens, int64_t samples, int64_t max_new_tokens, bool chat)
      : tokens_(tokens), samples_(samples), max_new_tokens_(max_new_tokens), chat_(chat) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override { return "summarization"; }
  std::vector<MetricSpec> metrics() const override;
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override;
  int64_t tokens() const override { return tokens_; }
  int64_t sample_count() const override { return samples_; }
  int64_t query_tokens() const override { return std::min<int64_t>(tokens_ - 1, 64); }
  int64_t generated_tokens() const override { return max_new_tokens_; }
  std::vector<std::string> data() const override { return {kDocuments, kReferences}; }

 private:
  PromptParts prompt(const TaskContext& context, const std::string& article) const {
    if (chat_) return chat_parts(context, kHead + article + kTail, "cnn_dailymail.format = chat");
    return {kHead + article, kTail};
  }
  void set_article(Sample& sample, const TaskContext& context, std::string article) const;

  int64_t tokens_, samples_, max_new_tokens_;
  bool chat_;
};

// An article that is too long loses its end, where news put what matters least.
void CnnDailyMailTask::set_article(Sample& sample, const TaskContext& context, std::string article) const {
  const Tokenizer& tokenizer = context.tokenizer;
  const int64_t unlimited = int64_t{1} << 40;
  set_prompt(sample, tokenizer, prompt(context, article), unlimited, "");
  const auto total = [&] { return std::ssize(sample.context) + std::ssize(sample.query); };
  const int64_t whole = total();
  std::vector<int32_t> ids = tokenizer.encode(article, false);
  while (total() > tokens_) {
    const int64_t kept = std::ssize(ids) - (total() - tokens_);
    if (kept < 1)
      throw ConfigError(fmt::format("cnn_dailymail.tokens = {}: sample {} takes {} tokens without its article", tokens_,
                                    sample.id, total() - std::ssize(ids)));
    ids.resize(static_cast<size_t>(kept));
    article = lossy_utf8(tokenizer.decode(ids, true));
    while (article.ends_with("\xef\xbf\xbd")) article.resize(article.size() - 3);  // a character cut in two
    set_prompt(sample, tokenizer, prompt(context, article), unlimited, "");
    sample.tags["truncated_from"] = fmt::to_string(whole);
  }
}

std::vector<Sample> CnnDailyMailTask::samples(const TaskContext& context) const {
  const std::filesystem::path file = context.data.find(kDocuments), references_file = context.data.find(kReferences);
  const std::vector<std::string> documents = lines_of(file), references = lines_of(references_file);
  if (documents.size() != references.size())
    throw DataError(fmt::format("{} has {} lines, {} has {}", file.string(), documents.size(), references_file.string(),
                                references.size()));
  if (std::ssize(documents) < samples_)
    throw ConfigError(
        fmt::format("cnn_dailymail.samples = {}: {} has {} articles", samples_, file.string(), documents.size()));
  std::vector<Sample> samples;
  for (int64_t i = 0; i < samples_; ++i) {
    Sample sample;
    sample.id = fmt::format("a{:04}", i);
    sample.max_new_tokens = max_new_tokens_;
    sample.answers = {
        reference_lines(references[static_cast<size_t>(i)], fmt::format("{}:{}", references_file.string(), i + 1)),
        documents[static_cast<size_t>(i)]};
    set_article(sample, context, documents[static_cast<size_t>(i)]);
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::vector<MetricSpec> CnnDailyMailTask::metrics() const {
  return {{"rouge_lsum", Aggregate::kMean, true, "ROUGE-Lsum"},
          {"rouge_1", Aggregate::kMean, true, "ROUGE-1"},
          {"rouge_2", Aggregate::kMean, true, "ROUGE-2"},
          {"rouge_l", Aggregate::kMean, true, "ROUGE-L"},
          {"coverage", Aggregate::kMean, true, "coverage"},
          {"density", Aggregate::kMean, true, "density"},
          {"rep_4", Aggregate::kMean, false, "rep-4", "repetition"},
          {"distinct_2", Aggregate::kMean, true, "distinct-2"},
          {"longest_loop", Aggregate::kMean, false, "loop"},
          {"unfinished", Aggregate::kMean, false, "unfinished", "never stops"}};
}

std::map<std::string, double> CnnDailyMailTask::score(const Sample& sample, const Output& output) const {
  std::string lines;
  for (const std::string& line : split_at(output.text, '\n'))
    for (const std::string& sentence : split_sentences(line)) lines += sentence + "\n";
  const GoogleRouge rouge = google_rouge(sample.answers.at(0), lines, true);
  const Extractive copied = extractive(sample.answers.at(1), output.text);
  return {{"rouge_lsum", rouge.rouge_lsum.f},
          {"rouge_1", rouge.rouge1.f},
          {"rouge_2", rouge.rouge2.f},
          {"rouge_l", rouge.rouge_l.f},
          {"coverage", copied.coverage},
          {"density", copied.density},
          {"rep_4", rep_n(output.tokens, 4)},
          {"distinct_2", distinct_n(output.tokens, 2)},
          {"longest_loop", static_cast<double>(longest_loop(output.tokens))},
          {"unfinished", std::ssize(output.tokens) >= sample.max_new_tokens ? 1 : 0}};
}

std::unique_ptr<Task> make_cnn_dailymail(Params& params) {
  const int64_t tokens = params.integer("tokens", std::nullopt, 64, 1 << 20,
                                        "tokens of a prompt at most; longer articles lose their end, and are tagged");
  const int64_t samples = params.integer("samples", 100, 1, 100000, "articles, from the first");
  const int64_t max_new_tokens = params.integer("max_new_tokens", 128, 1, 4096, "tokens generated at most");
  const bool chat =
      params.choice("format", "plain", {"plain", "chat"}, "chat: the model's chat format around the prompt") == "chat";
  params.finish();
  return std::make_unique<CnnDailyMailTask>(tokens, samples, max_new_tokens, chat);
}

}  // namespace

TaskEntry cnn_dailymail_entry() {
  return {"cnn_dailymail", 1,
          "summaries of news articles (CNN/DailyMail): Google's ROUGE, repetition and what is copied",
          make_cnn_dailymail};
}

}  // namespace kvsweep
