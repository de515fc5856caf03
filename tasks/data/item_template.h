#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tasks/data/jsonl.h"

namespace kvsweep {

// A text with {{path}} placeholders, as JsonRecord::at() takes paths, each with filters: {{question|strip}}.
//   strip        without white space at both ends
//   capitalize   first character upper case (ASCII), the others lower case: str.capitalize
//   wikihow      lm-eval's clean-up of HellaSwag: stripped, " [title]" becomes ". ", other [...] goes, "  " becomes " "
class TextTemplate {
 public:
  TextTemplate() = default;
  // place: "<file>:<line>", for messages. Throws ConfigError for a placeholder that is not closed or has an unknown
  // filter.
  TextTemplate(std::string text, std::string place);

  bool empty() const { return text_.empty(); }
  // {{|}}, the border of context and query, is left out. Throws DataError naming the record and the template when a
  // path leads nowhere or to a list.
  std::string render(const JsonRecord& record) const;
  // Where {{|}} stands in what render() returns.
  std::optional<size_t> border(const JsonRecord& record) const;
  bool has_border() const;
  // One text for each element where the template is a single placeholder of a list.
  std::vector<std::string> render_list(const JsonRecord& record) const;

 private:
  struct Part {
    std::string text;  // literal
    std::string path;  // or placeholder; "|": the border
    std::vector<std::string> filters;
  };
  JsonRecord::Texts texts_of(const Part& part, const JsonRecord& record) const;
  std::string render_before(const JsonRecord& record, size_t parts) const;

  std::string text_, place_;
  std::vector<Part> parts_;
};

// Picks the answer out of a generated text by a regular expression (PCRE2, UTF-8).
class Extraction {
 public:
  // Throws ConfigError at `place` for an expression that does not compile.
  Extraction(const std::string& pattern, bool last, const std::string& place);
  // Of the first or last match the first group that is not empty, or all of it without groups; nothing without a match
  // (or when matching it takes more than PCRE2's limit).
  std::optional<std::string> find(const std::string& text) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
  bool last_ = false;
};

// How records of a JSONL file become prompts and references: what a template file holds. docs/protocols.md describes
// the keys.
struct ItemTemplate {
  enum class Kind { kMultipleChoice, kGenerate };
  enum class Answer { kText, kIndex, kLetter };

  std::string place;  // the file, for messages
  TextTemplate description, prompt, answer, group, document;
  std::string task_kind = "other";   // Task::kind()
  std::vector<std::string> filters;  // of the whole rendered prompt; the prompt has no {{|}} then
  std::string delimiter = " ";  // between prompt and answer; "" under a chat template unless the file says otherwise
  bool chat = false;
  // Examples before the item.
  int64_t shots = 0;
  std::string shots_file;  // below a data root; "" without shots
  std::string shots_same;  // field that example and item share; "": any
  std::string shot_separator = "\n\n";
  // multiple_choice
  std::vector<TextTemplate> choices, labels;  // one each, or one that renders to a list; no labels: A, B, C ...
  Answer answer_is = Answer::kText;
  // generate
  std::vector<std::string> metrics, normalize, stop;
  std::optional<Extraction> extract;
  int64_t max_new_tokens = 0;

  std::string prompt_text(const JsonRecord& record) const;
  std::vector<std::string> choice_texts(const JsonRecord& record) const;
  // The right one of `choices`. Throws DataError when the record's answer is none of them.
  int64_t right_choice(const JsonRecord& record, const std::vector<std::string>& choices) const;
  // References of a generated answer: at least one, none empty (also not after normalized()).
  std::vector<std::string> references(const JsonRecord& record) const;
  // What metrics compare: stripped, then what `normalize` says.
  std::string normalized(std::string_view text) const;
};

// Throws ConfigError "<file>:<line>: ..." for a key that is missing, unknown (with the nearest known one), given twice
// or of another form, and DataError when the file cannot be read.
ItemTemplate load_item_template(const std::filesystem::path& file, ItemTemplate::Kind kind);

// Metrics that `generate` knows: "exact_match", "contains", "f1", "rouge1", "rouge2", "rougeL", "rougeLsum".
const std::vector<std::string>& generate_metric_names();

}  // namespace kvsweep
