#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/core/task.h"
#include "tasks/data/cut_text.h"
#include "tasks/data/jsonl.h"
#include "tasks/metrics/classification.h"
#include "tasks/metrics/code_similarity.h"
#include "tasks/metrics/jieba.h"
#include "tasks/metrics/python_text.h"
#include "tasks/metrics/qa_f1.h"
#include "tasks/metrics/repetition.h"
#include "tasks/metrics/retrieval.h"
#include "tasks/metrics/rouge_google.h"
#include "tasks/metrics/rouge_longbench.h"

namespace kvsweep {
namespace {

enum class Metric { kQaF1, kQaF1Zh, kRougeL, kRougeLZh, kClassification, kRetrieval, kRetrievalZh, kCount, kCode };

// THUDM/LongBench at 2e00731: eval.py (metric, first_line), pred.py (chat), config/dataset2maxlen.json (max_new_tokens,
// needed before any file is there; held against it when it is) and the sizes of data sets, of LongBench (records) and
// MiniLongBench (mini).
struct Set {
  const char* name;
  Metric metric;
  int64_t max_new_tokens, records, mini;
  // Last text before what MiniLongBench's prompts ask: instructions and question, or the last of the examples.
  const char* mini_query;
  bool first_line = false;  // the output's first line alone is scored
  bool chat = true;         // the model's chat format is put around the prompt
};

constexpr Set kSets[] = {
    {"narrativeqa", Metric::kQaF1, 128, 200, 6, "\n\nNow, answer the question"},
    {"qasper", Metric::kQaF1, 128, 200, 9, "\n\nAnswer the question based on the given passages."},
    {"multifieldqa_en", Metric::kQaF1, 64, 150, 7, "\n\nNow, answer the following question"},
    {"multifieldqa_zh", Metric::kQaF1Zh, 64, 200, 15, "\n\n现在请基于上面的文章回答下面的问题"},
    {"hotpotqa", Metric::kQaF1, 32, 200, 13, "\n\nAnswer the question based on the given passages."},
    {"2wikimqa", Metric::kQaF1, 32, 200, 13, "\n\nAnswer the question based on the given passages."},
    {"musique", Metric::kQaF1, 32, 200, 7, "\n\nAnswer the question based on the given passages."},
    {"dureader", Metric::kRougeLZh, 128, 200, 6, "\n\n请基于上述文章回答下面的问题"},
    {"gov_report", Metric::kRougeL, 512, 200, 12, "\n\nNow, write a one-page summary"},
    {"qmsum", Metric::kRougeL, 512, 200, 6, "\n\nNow, answer the query"},
    {"multi_news", Metric::kRougeL, 512, 200, 11, "\n\nNow, write a one-page summary"},
    {"vcsum", Metric::kRougeLZh, 512, 200, 6, "\n\n会议总结："},
    {"trec", Metric::kClassification, 64, 200, 8, "\nQuestion: ", true, false},
    {"triviaqa", Metric::kQaF1, 32, 200, 12, "Passage:\n", true, false},
    {"samsum", Metric::kRougeL, 128, 200, 15, "\n\nDialogue: ", true, false},
    {"lsht", Metric::kClassification, 64, 200, 8, "\n新闻内容：\n", true, false},
    {"passage_count", Metric::kCount, 32, 200, 4, "\n\nPlease enter the final count"},
    {"passage_retrieval_en", Metric::kRetrieval, 32, 200, 15, "\n\nThe following is an abstract."},
    {"passage_retrieval_zh", Metric::kRetrievalZh, 32, 200, 15, "\n\n下面是一个摘要\n"},
    {"lcc", Metric::kCode, 64, 500, 26, "Next line of code:\n", false, false},
    {"repobench-p", Metric::kCode, 64, 500, 23, "Next line of code:\n", false, false},
};

constexpr const char *kPrompts = "longbench_config/dataset2prompt.json",
                     *kLengths = "longbench_config/dataset2maxlen.json";
// The query is what stands behind the context's slot, at most its last tokens: examples and passages belong to it in
// some sets. With code it is the line that asks alone, since the file at hand is what is to be remembered.
constexpr int64_t kQueryTokens = 512;

bool is_chinese(Metric metric) {
  return metric == Metric::kQaF1Zh || metric == Metric::kRougeLZh || metric == Metric::kRetrievalZh;
}

bool needs_jieba(Metric metric) {
  return metric == Metric::kQaF1Zh || metric == Metric::kRougeLZh;
}

// A prompt and where in it the query begins, in bytes.
struct Prompt {
  std::string text;
  size_t query_at = 0;
};

// Python's template.format(**record), for the fields that are texts.
Prompt filled(const std::string& form, const JsonRecord& record, const std::string& place) {
  Prompt prompt;
  for (size_t at = 0; at < form.size(); ++at) {
    const char c = form[at];
    if (c != '{' && c != '}') {
      prompt.text += c;
    } else if (at + 1 < form.size() && form[at + 1] == c) {
      prompt.text += c;
      ++at;
    } else {
      const size_t end = form.find('}', at);
      if (c == '}' || end == std::string::npos)
        throw DataError(fmt::format("{}: single '{}' at byte {} of the prompt", place, c, at));
      const std::string field = form.substr(at + 1, end - at - 1);
      prompt.text += record.text(field);
      if (field == "context") prompt.query_at = prompt.text.size();
      at = end;
    }
  }
  return prompt;
}

// One item, whatever its source.
struct Item {
  Prompt prompt;
  std::vector<std::string> answers, classes;
  int64_t length = 0;  // words, of Chinese sets characters
  std::string record;  // the data set's own id, where there is one
};

class LongBenchTask final : public Task {
 public:
  LongBenchTask(const Set& set, bool mini, int64_t tokens, int64_t samples, bool chat)
      : set_(set), mini_(mini), tokens_(tokens), samples_(samples), chat_(chat) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override;
  std::vector<MetricSpec> metrics() const override;
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override;
  std::vector<std::string> breakdown() const override { return {"length"}; }
  int64_t tokens() const override { return tokens_; }
  int64_t sample_count() const override { return samples_; }
  int64_t query_tokens() const override { return std::min(kQueryTokens, tokens_); }
  int64_t generated_tokens() const override { return set_.max_new_tokens; }
  std::vector<std::string> data() const override {
    if (mini_) return {fmt::format("minilongbench/MiniLongBench_{}.json", set_.name)};
    return {fmt::format("longbench_full/{}.jsonl", set_.name), kPrompts, kLengths};
  }

 private:
  // What score() needs of the data: samples() has read it.
  struct Read {
    std::vector<std::string> classes;  // of the last record, as eval.py has them
    std::unique_ptr<Jieba> jieba;
  };

  std::vector<Item> items(const DataLocator& data) const;
  std::vector<Item> full_items(const DataLocator& data) const;
  std::vector<Item> mini_items(const DataLocator& data) const;
  std::string prompt_form(const DataLocator& data) const;
  size_t code_query(const std::string& prompt, size_t query_at) const;
  Sample sample(const TaskContext& context, const Item& item, int64_t index) const;
  const Jieba& jieba() const;
  double metric(const std::string& output, const std::string& answer) const;

  Set set_;
  bool mini_;
  int64_t tokens_, samples_;
  bool chat_;
  mutable Read read_;
};

std::string LongBenchTask::prompt_form(const DataLocator& data) const {
  const JsonRecord lengths = read_json(data.find(kLengths));
  if (lengths.integer(set_.name) != set_.max_new_tokens)
    lengths.fail(set_.name, fmt::format("the protocol generates {} tokens", set_.max_new_tokens));
  return read_json(data.find(kPrompts)).text(set_.name);
}

std::vector<Item> LongBenchTask::full_items(const DataLocator& data) const {
  const std::string form = prompt_form(data), place = data.find(kPrompts).string() + ": " + set_.name;
  std::vector<Item> items;
  for (const JsonRecord& record : read_jsonl(data.find(this->data().front()))) {
    if (std::ssize(items) == samples_) break;
    Item item{filled(form, record, place), record.filled_texts("answers"), {}, record.integer("length"), ""};
    if (set_.metric == Metric::kCode) item.prompt.query_at = code_query(item.prompt.text, item.prompt.query_at);
    if (set_.metric == Metric::kClassification) item.classes = record.filled_texts("all_classes");
    if (record.has("_id")) item.record = record.text("_id");
    items.push_back(std::move(item));
  }
  return items;
}

std::vector<Item> LongBenchTask::mini_items(const DataLocator& data) const {
  const JsonRecord file = read_json(data.find(this->data().front()));
  std::vector<Item> items;
  for (const std::string& key : file.keys()) {
    if (std::ssize(items) == samples_) break;
    const JsonRecord record = file.record(key);
    Item item;
    item.prompt.text = record.filled_text("origin_prompt");
    const size_t at = item.prompt.text.rfind(set_.mini_query);
    if (at == std::string::npos)
      record.fail("origin_prompt", fmt::format("has no '{}', where its query begins", set_.mini_query));
    item.prompt.query_at = at;
    if (set_.metric == Metric::kClassification) {
      const JsonRecord gold = record.record("gold");
      item.answers = gold.filled_texts("answers");
      item.classes = gold.filled_texts("all_classes");
    } else {
      item.answers = record.filled_texts("gold");
    }
    const bool characters = is_chinese(set_.metric) || set_.name == std::string_view("lsht");
    item.length = characters ? std::ssize(decode_utf8(item.prompt.text)) : std::ssize(python_split(item.prompt.text));
    items.push_back(std::move(item));
  }
  return items;
}

size_t LongBenchTask::code_query(const std::string& prompt, size_t query_at) const {
  const size_t at = prompt.rfind(set_.mini_query);
  return at == std::string::npos ? query_at : std::max(at, query_at);
}

std::vector<Item> LongBenchTask::items(const DataLocator& data) const {
  std::vector<Item> items = mini_ ? mini_items(data) : full_items(data);
  if (std::ssize(items) < samples_)
    throw ConfigError(fmt::format("longbench.samples = {}: {} has {} records", samples_,
                                  data.find(this->data().front()).string(), items.size()));
  return items;
}

Sample LongBenchTask::sample(const TaskContext& context, const Item& item, int64_t index) const {
  const Tokenizer& tokenizer = context.tokenizer;
  Sample sample;
  sample.id = fmt::format("r{:03}", index);
  sample.max_new_tokens = set_.max_new_tokens;
  sample.answers = item.answers;
  sample.tags["length"] = item.length < 4000 ? "0-4k" : item.length < 8000 ? "4-8k" : "8k+";
  if (!item.record.empty()) sample.tags["record"] = item.record;
  sample.tags["document"] = sha256_hex(item.prompt.text.substr(0, item.prompt.query_at)).substr(0, 16);
  const auto cut_at = [](const std::string& text, size_t at) {
    return CutText{.context = text.substr(0, at), .query = text.substr(at), .parse_special = true};
  };
  CutText text = cut_at(item.prompt.text, item.prompt.query_at);
  std::vector<int32_t> ids = text_ids(tokenizer, text);
  if (const int64_t length = std::ssize(ids); length > tokens_) {
    // pred.py: the halves as texts, one behind the other, encoded again. An odd number loses one token.
    const int64_t half = tokens_ / 2;
    const std::string first = lossy_utf8(tokenizer.decode({ids.begin(), ids.begin() + half}, true));
    const std::string whole = first + lossy_utf8(tokenizer.decode({ids.end() - half, ids.end()}, true));
    const bool query_is_whole = whole.size() >= first.size() + text.query.size() && whole.ends_with(text.query);
    text = cut_at(whole, query_is_whole ? whole.size() - text.query.size() : first.size());
    ids.clear();
    sample.tags["truncated_from"] = fmt::to_string(length);
  }
  if (chat_ && set_.chat && context.chat) {
    text = in_chat(context.chat, text, "", "longbench.chat");
    ids.clear();
  }
  if (ids.empty()) ids = text_ids(tokenizer, text);
  const CutIds prompt = cut_ids(tokenizer, text, std::move(ids));
  const int64_t total = std::ssize(prompt.ids), context_tokens = std::max(prompt.context_tokens, total - kQueryTokens);
  if (total > tokens_) sample.tags["tokens_over"] = fmt::to_string(total - tokens_);
  sample.context.assign(prompt.ids.begin(), prompt.ids.begin() + context_tokens);
  sample.query.assign(prompt.ids.begin() + context_tokens, prompt.ids.end());
  return sample;
}

std::vector<Sample> LongBenchTask::samples(const TaskContext& context) const {
  const std::vector<Item> all = items(context.data);
  read_.classes = all.back().classes;
  if (needs_jieba(set_.metric)) read_.jieba = std::make_unique<Jieba>(find_jieba(context.data));
  std::vector<Sample> samples;
  for (const Item& item : all) samples.push_back(sample(context, item, std::ssize(samples)));
  return samples;
}

std::string LongBenchTask::kind() const {
  switch (set_.metric) {
    case Metric::kQaF1:
    case Metric::kQaF1Zh:
      return "question_answering";
    case Metric::kRougeL:
    case Metric::kRougeLZh:
      return set_.name == std::string_view("dureader") ? "question_answering" : "summarization";
    case Metric::kClassification:
      return "classification";
    case Metric::kRetrieval:
    case Metric::kRetrievalZh:
    case Metric::kCount:
      return "retrieval";
    case Metric::kCode:
      return "code";
  }
  throw std::logic_error("kind of a metric");
}

std::vector<MetricSpec> LongBenchTask::metrics() const {
  const MetricSpec repetition{"repetition", Aggregate::kMean, false, "rep-4", "repetition"};
  switch (set_.metric) {
    case Metric::kQaF1:
    case Metric::kQaF1Zh:
      return {{"qa_f1", Aggregate::kMean, true, "F1"}, repetition};
    case Metric::kRougeL:
      return {{"rouge_l", Aggregate::kMean, true, "ROUGE-L"},
              {"rouge_l_standard", Aggregate::kMean, true, "ROUGE-L std"},
              repetition};
    case Metric::kRougeLZh:
      return {{"rouge_l", Aggregate::kMean, true, "ROUGE-L"}, repetition};
    case Metric::kClassification:
      return {{"classification", Aggregate::kMean, true, "class"}, repetition};
    case Metric::kRetrieval:
    case Metric::kRetrievalZh:
      return {{"retrieval", Aggregate::kMean, true, "retrieval"}, repetition};
    case Metric::kCount:
      return {{"count", Aggregate::kMean, true, "count"}, repetition};
    case Metric::kCode:
      break;
  }
  return {{"code_sim", Aggregate::kMean, true, "code sim"},
          {"code_sim_levenshtein", Aggregate::kMean, true, "code sim lev"},
          repetition};
}

const Jieba& LongBenchTask::jieba() const {
  if (!read_.jieba) throw std::logic_error("longbench: score() before samples()");
  return *read_.jieba;
}

double LongBenchTask::metric(const std::string& output, const std::string& answer) const {
  switch (set_.metric) {
    case Metric::kQaF1:
      return qa_f1(output, answer);
    case Metric::kQaF1Zh:
      return qa_f1_zh(output, answer, jieba());
    case Metric::kRougeL:
      return rouge_l_longbench(output, answer);
    case Metric::kRougeLZh:
      return rouge_l_longbench_zh(output, answer, jieba());
    case Metric::kClassification:
      return classification_score(output, answer, read_.classes);
    case Metric::kRetrieval:
      return retrieval_score(output, answer);
    case Metric::kRetrievalZh:
      return retrieval_zh_score(output, answer);
    case Metric::kCount:
      return count_score(output, answer);
    case Metric::kCode:
      break;
  }
  return code_similarity(output, answer, CodeSimilarity::kDifflib);
}

std::map<std::string, double> LongBenchTask::score(const Sample& sample, const Output& output) const {
  std::string text = output.text;
  if (set_.first_line) {
    text.erase(0, std::min(text.find_first_not_of('\n'), text.size()));
    text.erase(std::min(text.find('\n'), text.size()));
  }
  const auto best = [&](const auto& of) {
    double value = 0;
    for (const std::string& answer : sample.answers) value = std::max(value, of(answer));
    return value;
  };
  std::map<std::string, double> scores;
  scores[metrics().front().name] = best([&](const std::string& answer) { return metric(text, answer); });
  if (set_.metric == Metric::kRougeL)
    scores["rouge_l_standard"] =
        best([&](const std::string& answer) { return google_rouge(answer, text, true).rouge_l.f; });
  if (set_.metric == Metric::kCode)
    scores["code_sim_levenshtein"] =
        best([&](const std::string& answer) { return code_similarity(text, answer, CodeSimilarity::kLevenshtein); });
  scores["repetition"] = rep_n(output.tokens, 4);
  return scores;
}

std::unique_ptr<Task> make_longbench(Params& params) {
  std::vector<std::string> names;
  for (const Set& set : kSets) names.emplace_back(set.name);
  const std::string name = params.choice("set", std::nullopt, names, "one of LongBench's 21 sets");
  const Set& set = *std::find_if(std::begin(kSets), std::end(kSets), [&](const Set& one) { return one.name == name; });
  const bool mini =
      params.choice("source", "longbench", {"longbench", "minilongbench"},
                    "LongBench's records, or the choice of them in MiniLongBench with its prompts") == "minilongbench";
  const int64_t tokens = params.integer("tokens", std::nullopt, 64, 1 << 20,
                                        "longest prompt: of a longer one the middle is cut out, as the authors do; "
                                        "they leave about 500 tokens of the model's range");
  const int64_t samples = params.integer("samples", mini ? set.mini : set.records, 1, 100000,
                                         "records, from the first; the whole set when left out");
  const bool chat = params.flag("chat", true,
                                "the model's chat format, where it has one, around the prompts of the sets that the "
                                "authors put it around: all but few-shot and code");
  params.finish();
  return std::make_unique<LongBenchTask>(set, mini, tokens, samples, chat);
}

}  // namespace

TaskEntry longbench_entry() {
  return {"longbench", 1, "LongBench (v1) and MiniLongBench: 21 sets of long texts, scored as the authors do",
          make_longbench};
}

}  // namespace kvsweep
