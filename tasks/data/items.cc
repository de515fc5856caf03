#include "tasks/data/items.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "harness/core/error.h"
#include "tasks/data/synthetic.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

// Examples of a task, by what `shots.same` asks for.
class Examples {
 public:
  Examples(const ItemSettings& settings, const TaskContext& context,
           const std::function<std::string(const JsonRecord&)>& target)
      : s_(settings) {
    if (s_.shots == 0) return;
    const std::filesystem::path file = context.data.find(s_.items.shots_file);
    if (std::filesystem::equivalent(file, context.data.find(s_.data)))
      throw ConfigError(fmt::format("{}: shots.file = {} is the file that is scored", s_.items.place, file.string()));
    file_ = file.string();
    for (const JsonRecord& record : read_jsonl(file)) {
      std::vector<std::string>& texts = texts_[kind_of(record)];
      if (std::ssize(texts) == s_.shots) continue;
      texts.push_back(s_.items.prompt_text(record) + s_.items.delimiter + target(record) + s_.items.shot_separator);
    }
  }
  std::string before(const JsonRecord& record) const {
    if (s_.shots == 0) return "";
    const auto at = texts_.find(kind_of(record));
    const auto count = at == texts_.end() ? size_t{0} : at->second.size();
    if (std::cmp_less(count, s_.shots))
      throw ConfigError(fmt::format("{}: shots = {}, but {} has {} examples{}", s_.items.place, s_.shots, file_, count,
                                    s_.items.shots_same.empty()
                                        ? std::string()
                                        : fmt::format(" with {} = '{}'", s_.items.shots_same, kind_of(record))));
    return join(at->second, "");
  }

 private:
  std::string kind_of(const JsonRecord& record) const {
    return s_.items.shots_same.empty() ? "" : record.at(s_.items.shots_same).texts.front();
  }

  const ItemSettings& s_;
  std::string file_;
  std::map<std::string, std::vector<std::string>> texts_;
};

}  // namespace

PromptParts item_parts(const std::string& head, const std::string& item, std::optional<size_t> border, bool chat,
                       const std::string& place, const TaskContext& context) {
  const size_t cut = border.value_or(item.size());
  if (!chat) return {head + item.substr(0, cut), item.substr(cut)};
  if (!context.chat) throw ConfigError(place + ": chat is asked for, but the model has no chat template");
  // A template may strip a message; what it keeps stands in it as it is.
  const std::string message = head + item, text = context.chat(message);
  const std::string_view kept = trimmed(message);
  const size_t at = text.rfind(kept), lead = message.find(kept);
  if (kept.empty() || at == std::string::npos) throw DataError(place + ": the chat template has lost the message");
  const auto moved = [&](size_t offset) { return at + std::min(offset - std::min(offset, lead), kept.size()); };
  const size_t end = border ? moved(head.size() + cut) : text.size();
  return {text.substr(0, end), text.substr(end), true};
}

std::string take_trailing_space(PromptParts& prompt) {
  std::string taken;
  for (std::string* part : {&prompt.query, &prompt.context}) {
    std::u32string text = decode_utf8(*part), space;
    while (!text.empty() && is_python_space(text.back())) {
      space.insert(space.begin(), text.back());
      text.pop_back();
    }
    if (!space.empty()) *part = encode_utf8(text);
    taken = encode_utf8(space) + taken;
    if (!text.empty()) break;
  }
  return taken;
}

ItemSettings read_item_settings(Params& params, ItemTemplate::Kind kind) {
  ItemSettings settings;
  settings.data = params.text("data", std::nullopt, "JSONL file below a data root, a record a line");
  settings.template_file = params.file("template", "YAML file: how a record becomes a prompt (configs/tasks/)");
  if (!params.describing()) {
    settings.template_file = std::filesystem::absolute(settings.template_file);
    settings.items = load_item_template(settings.template_file, kind);
  }
  settings.tokens = params.integer("tokens", std::nullopt, 1, 1 << 20,
                                   "tokens of a prompt at most; a longer one loses its beginning");
  settings.samples = params.integer("samples", 100, 1, 1000000, "records, from the beginning of the file");
  settings.shots =
      params.integer("shots", settings.items.shots, 0, 1000, "examples before an item; the template's when left out");
  if (settings.shots > 0 && settings.items.shots_file.empty())
    params.reject("shots", "the template names no shots.file to take examples from");
  return settings;
}

std::vector<std::string> item_data(const ItemSettings& settings) {
  std::vector<std::string> data = {settings.data};
  if (settings.shots > 0) data.push_back(settings.items.shots_file);
  if (!settings.template_file.empty()) data.push_back(settings.template_file.string());
  return data;
}

std::vector<Sample> item_samples(const std::string& task, const ItemSettings& settings, const TaskContext& context,
                                 const std::function<std::string(const JsonRecord&)>& target,
                                 const std::function<void(Sample&, const JsonRecord&, PromptParts&)>& finish) {
  const ItemTemplate& items = settings.items;
  const std::vector<JsonRecord> records = read_jsonl(context.data.find(settings.data));
  if (std::ssize(records) < settings.samples)
    throw ConfigError(
        fmt::format("{}.samples = {}: {} has {} records", task, settings.samples, settings.data, records.size()));
  const Examples examples(settings, context, target);
  std::vector<Sample> samples;
  for (int64_t i = 0; i < settings.samples; ++i) {
    const JsonRecord& record = records[static_cast<size_t>(i)];
    Sample& sample = samples.emplace_back();
    sample.id = fmt::format("r{:05}", i);
    if (!items.group.empty()) sample.tags["group"] = items.group.render(record);
    if (!items.document.empty()) sample.tags["document"] = items.document.render(record);
    PromptParts prompt =
        item_parts(items.description.render(record) + examples.before(record), items.prompt_text(record),
                   items.prompt.border(record), items.chat, items.place, context);
    finish(sample, record, prompt);
    if (prompt.text().empty()) throw DataError(record.place() + ": the prompt is empty");
    set_prompt(sample, context.tokenizer, prompt, settings.tokens, task + ".tokens");
  }
  return samples;
}

}  // namespace kvsweep
