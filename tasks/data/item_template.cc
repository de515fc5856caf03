#define PCRE2_CODE_UNIT_WIDTH 8
#include "tasks/data/item_template.h"

#include <fmt/format.h>
#include <pcre2.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "harness/core/error.h"
#include "tasks/data/locate.h"
#include "tasks/data/synthetic.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

constexpr const char* kBorder = "|";

std::string near_hint(const std::string& word, const std::vector<std::string>& known) {
  const std::string near = nearest_name(word, known);
  return near.empty() ? "" : fmt::format("; did you mean '{}'?", near);
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

std::string capitalized(std::string text) {
  if (text.empty()) return text;
  const auto first = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return static_cast<unsigned char>(text[0]) < 0x80 ? first + python_lower(text.substr(1)) : python_lower(text);
}

// lm-evaluation-harness, lm_eval/tasks/hellaswag/utils.py, preprocess().
std::string without_wikihow_marks(std::string text) {
  text = replaced(python_strip(text), " [title]", ". ");
  for (size_t open = 0; (open = text.find('[', open)) != std::string::npos;) {
    const size_t close = text.find_first_of("]\n", open);
    if (close == std::string::npos) break;
    if (text[close] == ']')
      text.erase(open, close - open + 1);
    else
      ++open;  // the original's "." does not match a line break
  }
  return replaced(text, "  ", " ");
}

const std::map<std::string, std::string (*)(std::string)>& filters() {
  static const std::map<std::string, std::string (*)(std::string)> table = {
      {"strip", [](std::string text) { return python_strip(text); }},
      {"capitalize", capitalized},
      {"wikihow", without_wikihow_marks},
  };
  return table;
}

std::vector<std::string> filter_names() {
  std::vector<std::string> names;
  for (const auto& [name, unused] : filters()) names.push_back(name);
  return names;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (const std::string& part : split_at(text, separator)) parts.emplace_back(trimmed(part));
  return parts;
}

bool is_word(const std::string& word, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char* one) { return word == one; });
}

}  // namespace

TextTemplate::TextTemplate(std::string text, std::string place) : text_(std::move(text)), place_(std::move(place)) {
  for (size_t at = 0; at < text_.size();) {
    const size_t open = std::min(text_.find("{{", at), text_.size());
    if (open > at) parts_.push_back({text_.substr(at, open - at), "", {}});
    if (open == text_.size()) break;
    const size_t close = text_.find("}}", open);
    if (close == std::string::npos)
      throw ConfigError(fmt::format("{}: '{}' is not closed by }}}}", place_, text_.substr(open, 20)));
    const std::string inside(trimmed(std::string_view(text_).substr(open + 2, close - open - 2)));
    at = close + 2;
    if (inside == kBorder) {
      if (has_border()) throw ConfigError(place_ + ": {{|}} stands twice");
      parts_.push_back({"", kBorder, {}});
      continue;
    }
    std::vector<std::string> words = split(inside, '|');
    Part part{"", words.front(), {words.begin() + 1, words.end()}};
    if (part.path.empty()) throw ConfigError(place_ + ": a placeholder without a field");
    for (const std::string& filter : part.filters)
      if (!filters().contains(filter)) {
        std::vector<std::string> known;
        for (const auto& [name, unused] : filters()) known.push_back(name);
        throw ConfigError(
            fmt::format("{}: '{}' is no filter{}; known: {}", place_, filter, near_hint(filter, known), join(known)));
      }
    parts_.push_back(std::move(part));
  }
}

bool TextTemplate::has_border() const {
  return std::any_of(parts_.begin(), parts_.end(), [](const Part& part) { return part.path == kBorder; });
}

JsonRecord::Texts TextTemplate::texts_of(const Part& part, const JsonRecord& record) const {
  if (part.path.empty()) return {{part.text}, false};
  if (part.path == kBorder) return {{""}, false};
  try {
    JsonRecord::Texts found = record.at(part.path);
    for (std::string& text : found.texts)
      for (const std::string& filter : part.filters) text = filters().at(filter)(text);
    return found;
  } catch (const DataError& error) {
    throw DataError(fmt::format("{} ({{{{{}}}}} of {})", error.what(), part.path, place_));
  }
}

std::string TextTemplate::render_before(const JsonRecord& record, size_t parts) const {
  std::string out;
  for (size_t i = 0; i < parts; ++i) {
    const JsonRecord::Texts found = texts_of(parts_[i], record);
    if (found.list)
      throw DataError(
          fmt::format("{}: '{}' is a list where {} wants one text", record.place(), parts_[i].path, place_));
    out += found.texts.front();
  }
  return out;
}

std::string TextTemplate::render(const JsonRecord& record) const {
  return render_before(record, parts_.size());
}

std::optional<size_t> TextTemplate::border(const JsonRecord& record) const {
  for (size_t i = 0; i < parts_.size(); ++i)
    if (parts_[i].path == kBorder) return render_before(record, i).size();
  return std::nullopt;
}

std::vector<std::string> TextTemplate::render_list(const JsonRecord& record) const {
  if (parts_.size() == 1 && !parts_[0].path.empty()) return texts_of(parts_[0], record).texts;
  return {render(record)};
}

struct Extraction::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Extraction::Extraction(const std::string& pattern, bool last, const std::string& place) : last_(last) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &error, &offset, nullptr);
  if (code->code == nullptr) {
    PCRE2_UCHAR message[128];
    pcre2_get_error_message(error, message, sizeof(message));
    throw ConfigError(fmt::format("{}: '{}' is no regular expression: {} at character {}", place, pattern,
                                  reinterpret_cast<const char*>(message), offset));
  }
  code_ = std::move(code);
}

std::optional<std::string> Extraction::find(const std::string& text) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
      pcre2_match_data_create_from_pattern(code_->code, nullptr), pcre2_match_data_free);
  std::optional<std::string> found;
  for (PCRE2_SIZE at = 0; at <= text.size();) {
    const int groups = pcre2_match(code_->code, subject, text.size(), at, 0, match.get(), nullptr);
    if (groups <= 0) break;
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
    found = text.substr(ends[0], ends[1] - ends[0]);
    if (pcre2_get_ovector_count(match.get()) > 1) found = "";
    for (int group = 1; group < groups && found->empty(); ++group)
      if (ends[2 * group] != PCRE2_UNSET) found = text.substr(ends[2 * group], ends[2 * group + 1] - ends[2 * group]);
    if (!last_) break;
    at = ends[1];
    if (ends[1] == ends[0])  // an empty match: on with the next character
      do ++at;
      while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  }
  return found;
}

const std::vector<std::string>& generate_metric_names() {
  static const std::vector<std::string> names = {"exact_match", "contains", "f1",       "rouge1",
                                                 "rouge2",      "rougeL",   "rougeLsum"};
  return names;
}

std::string ItemTemplate::prompt_text(const JsonRecord& record) const {
  std::string text = prompt.render(record);
  for (const std::string& filter : filters) text = kvsweep::filters().at(filter)(text);
  return text;
}

std::vector<std::string> ItemTemplate::choice_texts(const JsonRecord& record) const {
  std::vector<std::string> texts;
  if (choices.size() == 1) {
    texts = choices.front().render_list(record);
  } else {
    for (const TextTemplate& one : choices) texts.push_back(one.render(record));
  }
  if (texts.size() < 2) throw DataError(fmt::format("{}: {} choices; at least 2", record.place(), texts.size()));
  for (size_t i = 0; i < texts.size(); ++i)
    if (trimmed(texts[i]).empty()) throw DataError(fmt::format("{}: choice {} is empty", record.place(), i));
  return texts;
}

int64_t ItemTemplate::right_choice(const JsonRecord& record, const std::vector<std::string>& given) const {
  const std::string text(trimmed(answer.render(record)));
  const auto count = static_cast<int64_t>(given.size());
  if (answer_is == Answer::kIndex) {
    int64_t index = text == "true" ? 1 : text == "false" ? 0 : -1;
    const char* end = text.data() + text.size();
    if (index < 0 && std::from_chars(text.data(), end, index).ptr != end) index = -1;
    if (index < 0 || index >= count)
      throw DataError(fmt::format("{}: the answer '{}' is no index of {} choices; allowed: 0 to {}", record.place(),
                                  text, count, count - 1));
    return index;
  }
  std::vector<std::string> names = given;
  if (answer_is == Answer::kLetter) {
    names.clear();
    if (labels.size() == 1) names = labels.front().render_list(record);
    if (labels.size() > 1)
      for (const TextTemplate& one : labels) names.push_back(one.render(record));
    if (labels.empty())
      for (int64_t i = 0; i < std::min<int64_t>(count, 26); ++i) names.emplace_back(1, static_cast<char>('A' + i));
    if (std::ssize(names) != count)
      throw DataError(fmt::format("{}: {} labels for {} choices", record.place(), names.size(), count));
  }
  for (int64_t i = 0; i < count; ++i)
    if (trimmed(names[static_cast<size_t>(i)]) == text) return i;
  throw DataError(fmt::format("{}: the answer '{}' is none of: {}", record.place(), text, join(names)));
}

std::vector<std::string> ItemTemplate::references(const JsonRecord& record) const {
  std::vector<std::string> texts = answer.render_list(record);
  if (texts.empty()) throw DataError(record.place() + ": no reference answer");
  for (const std::string& text : texts)
    if (normalized(text).empty())
      throw DataError(fmt::format("{}: the reference answer '{}' is empty{}", record.place(), text,
                                  trimmed(text).empty() ? "" : " once normalized"));
  return texts;
}

std::string ItemTemplate::normalized(std::string_view text) const {
  std::string out = python_strip(text);
  const auto asked = [&](const char* rule) {
    return std::find(normalize.begin(), normalize.end(), rule) != normalize.end();
  };
  if (asked("case")) out = python_lower(out);
  if (asked("punctuation")) out = without_ascii_punctuation(out);
  if (asked("articles") || asked("space")) {
    std::vector<std::string> words = python_split(out);
    if (asked("articles"))
      std::erase_if(words, [](const std::string& word) { return is_word(word, {"a", "an", "the"}); });
    out = join(words, " ");
  }
  return python_strip(out);
}

namespace {

// One template file while it is read.
class TemplateReader {
 public:
  TemplateReader(std::string file, ItemTemplate::Kind kind) : file_(std::move(file)), kind_(kind) {}

  ItemTemplate read(const std::string& yaml) {
    std::vector<YAML::Node> documents;
    try {
      documents = YAML::LoadAll(yaml);
    } catch (const YAML::Exception& error) {
      throw ConfigError(fmt::format("{}:{}: not YAML: {}", file_, error.mark.line + 1, error.msg));
    }
    if (documents.size() != 1 || !documents[0].IsMap())
      throw ConfigError(fmt::format("{}: a template is one map with the keys {}", file_, join(keys())));
    out_.place = file_;
    const auto items = entries(documents[0], "a template", keys());
    bool delimiter = false;
    for (const auto& [key, value] : items) {
      set(key, value);
      delimiter = delimiter || key == "delimiter";
    }
    if (out_.chat && !delimiter) out_.delimiter = "";
    if (!out_.filters.empty() && out_.prompt.has_border())
      throw ConfigError(file_ + ": a prompt that is filtered as a whole has no {{|}}");
    for (const char* key : {"prompt", "answer"}) require(items, key);
    require(items, multiple_choice() ? "choices" : "metric");
    if (!multiple_choice()) require(items, "max_new_tokens");
    return std::move(out_);
  }

 private:
  using Items = std::vector<std::pair<std::string, YAML::Node>>;

  bool multiple_choice() const { return kind_ == ItemTemplate::Kind::kMultipleChoice; }
  std::vector<std::string> keys() const {
    std::vector<std::string> keys = {"description", "prompt", "filter", "answer",   "delimiter",
                                     "chat",        "shots",  "group",  "document", "kind"};
    if (multiple_choice())
      keys.emplace_back("choices");
    else
      keys.insert(keys.end(), {"metric", "normalize", "extract", "stop", "max_new_tokens"});
    return keys;
  }

  [[noreturn]] void fail(const YAML::Node& at, const std::string& what) const {
    throw ConfigError(fmt::format("{}:{}: {}", file_, at.Mark().line + 1, what));
  }
  std::string place(const YAML::Node& at) const { return fmt::format("{}:{}", file_, at.Mark().line + 1); }

  Items entries(const YAML::Node& map, const std::string& what, const std::vector<std::string>& known) const {
    if (!map.IsMap()) fail(map, fmt::format("{} is a map with the keys {}", what, join(known)));
    Items out;
    for (const auto& item : map) {
      const std::string key = item.first.IsScalar() ? item.first.Scalar() : "";
      if (std::find(known.begin(), known.end(), key) == known.end())
        fail(item.first,
             fmt::format("'{}' is not a key of {}{}; known: {}", key, what, near_hint(key, known), join(known)));
      for (const auto& [before, unused] : out)
        if (before == key) fail(item.first, fmt::format("{} stands twice in {}", key, what));
      if (item.second.IsNull()) fail(item.first, fmt::format("{} has no value", key));
      out.emplace_back(key, item.second);
    }
    return out;
  }

  void require(const Items& items, const std::string& key) const {
    const bool there = std::any_of(items.begin(), items.end(), [&](const auto& item) { return item.first == key; });
    if (!there) throw ConfigError(fmt::format("{}: the key {} is missing", file_, key));
  }

  std::string scalar(const YAML::Node& node, const std::string& key) const {
    if (!node.IsScalar()) fail(node, fmt::format("{} is a text, not a list or a map", key));
    return node.Scalar();
  }
  std::vector<std::string> list(const YAML::Node& node, const std::string& key) const {
    if (node.IsScalar()) return {node.Scalar()};
    if (!node.IsSequence() || node.size() == 0) fail(node, fmt::format("{} is a text or a list of texts", key));
    std::vector<std::string> out;
    for (const YAML::Node& item : node) out.push_back(scalar(item, "an item of " + key));
    return out;
  }
  std::vector<std::string> choice_list(const YAML::Node& node, const std::string& key,
                                       const std::vector<std::string>& allowed) const {
    std::vector<std::string> out = list(node, key);
    for (size_t i = 0; i < out.size(); ++i) {
      if (std::find(allowed.begin(), allowed.end(), out[i]) == allowed.end())
        fail(node, fmt::format("{} = '{}'{}; allowed: {}", key, out[i], near_hint(out[i], allowed), join(allowed)));
      if (std::find(out.begin(), out.begin() + static_cast<int64_t>(i), out[i]) !=
          out.begin() + static_cast<int64_t>(i))
        fail(node, fmt::format("{} = '{}' stands twice", key, out[i]));
    }
    return out;
  }
  TextTemplate text(const YAML::Node& node, const std::string& key, bool may_have_border = false) const {
    TextTemplate made(scalar(node, key), place(node));
    if (made.has_border() && !may_have_border)
      fail(node, fmt::format("{} has a {{{{|}}}}; it belongs into prompt", key));
    return made;
  }
  std::vector<TextTemplate> texts(const YAML::Node& node, const std::string& key) const {
    if (node.IsScalar()) return {text(node, key)};
    if (!node.IsSequence() || node.size() < 2)
      fail(node, fmt::format("{} is a placeholder of a list, or a list of at least two texts", key));
    std::vector<TextTemplate> out;
    for (const YAML::Node& item : node) out.push_back(text(item, "an item of " + key));
    return out;
  }
  int64_t integer(const YAML::Node& node, const std::string& key, int64_t low, int64_t high) const {
    const std::string given = scalar(node, key);
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(given.data(), given.data() + given.size(), value);
    if (error != std::errc() || stop != given.data() + given.size() || value < low || value > high)
      fail(node, fmt::format("{} = '{}'; allowed: an integer in [{}, {}]", key, given, low, high));
    return value;
  }

  void set(const std::string& key, const YAML::Node& node) {
    if (key == "description") out_.description = text(node, key);
    if (key == "prompt") out_.prompt = text(node, key, true);
    if (key == "filter") out_.filters = choice_list(node, key, filter_names());
    if (key == "answer") set_answer(node);
    if (key == "delimiter") out_.delimiter = scalar(node, key);
    if (key == "chat") out_.chat = choice_list(node, key, {"true", "false"}).front() == "true";
    if (key == "shots") set_shots(node);
    if (key == "group") out_.group = text(node, key);
    if (key == "document") out_.document = text(node, key);
    if (key == "kind") out_.task_kind = choice_list(node, key, {std::begin(kTaskKinds), std::end(kTaskKinds)}).front();
    if (key == "choices") out_.choices = texts(node, key);
    if (key == "metric") out_.metrics = choice_list(node, key, generate_metric_names());
    if (key == "normalize") out_.normalize = choice_list(node, key, {"case", "punctuation", "articles", "space"});
    if (key == "extract") set_extract(node);
    if (key == "stop") {
      out_.stop = list(node, key);
      for (const std::string& stop : out_.stop)
        if (stop.empty()) fail(node, "stop has an empty text: nothing would be generated");
    }
    if (key == "max_new_tokens") out_.max_new_tokens = integer(node, key, 1, 4096);
    if (key == "prompt" && out_.prompt.empty()) fail(node, "prompt is empty");
  }

  void set_answer(const YAML::Node& node) {
    if (node.IsScalar()) {
      out_.answer = text(node, "answer");
      return;
    }
    if (!multiple_choice()) fail(node, "answer is a text with a placeholder");
    for (const auto& [key, value] : entries(node, "answer", {"text", "index", "letter", "of"})) {
      if (key == "of") {
        out_.labels = texts(value, "answer.of");
        continue;
      }
      if (!out_.answer.empty()) fail(value, "answer has one of text, index and letter");
      out_.answer = text(value, "answer." + key);
      out_.answer_is = key == "text"    ? ItemTemplate::Answer::kText
                       : key == "index" ? ItemTemplate::Answer::kIndex
                                        : ItemTemplate::Answer::kLetter;
    }
    if (out_.answer.empty()) fail(node, "answer needs one of text, index and letter");
    if (!out_.labels.empty() && out_.answer_is != ItemTemplate::Answer::kLetter)
      fail(node, "answer.of names the labels of answer.letter");
  }

  void set_shots(const YAML::Node& node) {
    for (const auto& [key, value] : entries(node, "shots", {"count", "file", "same", "separator"})) {
      if (key == "count") out_.shots = integer(value, "shots.count", 0, 1000);
      if (key == "file") out_.shots_file = scalar(value, "shots.file");
      if (key == "same") out_.shots_same = scalar(value, "shots.same");
      if (key == "separator") out_.shot_separator = scalar(value, "shots.separator");
    }
    if (out_.shots_file.empty()) fail(node, "shots need a file: examples do not come from the records that are scored");
  }

  void set_extract(const YAML::Node& node) {
    std::string pattern;
    bool last = false;
    for (const auto& [key, value] : entries(node, "extract", {"pattern", "take"})) {
      if (key == "pattern") pattern = scalar(value, "extract.pattern");
      if (key == "take") last = choice_list(value, "extract.take", {"first", "last"}).front() == "last";
    }
    if (pattern.empty()) fail(node, "extract needs a pattern");
    out_.extract = Extraction(pattern, last, place(node));
  }

  std::string file_;
  ItemTemplate::Kind kind_;
  ItemTemplate out_;
};

}  // namespace

ItemTemplate load_item_template(const std::filesystem::path& file, ItemTemplate::Kind kind) {
  return TemplateReader(file.string(), kind).read(read_utf8(file));
}

}  // namespace kvsweep
