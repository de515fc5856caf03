#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/task.h"
#include "tasks/data/few_shot.h"
#include "tasks/data/item_template.h"

namespace kvsweep {

// `head` stands before the item; `border` counts bytes of the context within `item`, without one the
// query text is empty: all but the last token is context. With chat, head and item are one user's message in the
// model's template. Throws ConfigError naming `place` when the model has none.
PromptParts item_parts(const std::string& head, const std::string& item, std::optional<size_t> border, bool chat,
                       const std::string& place, const TaskContext& context);

// White space at the prompt's end, taken away from it: by lm-evaluation-harness' rule (encode_pair) it belongs to the
// continuation.
std::string take_trailing_space(PromptParts& prompt);

// Parameters of a task whose items are records of a JSONL file.
struct ItemSettings {
  std::string data;                     // JSONL, below a data root
  std::filesystem::path template_file;  // "" when the task has its own
  ItemTemplate items;
  int64_t tokens = 0, samples = 0, shots = 0;
};

// Declares data, template, tokens, samples and shots, and reads the template.
ItemSettings read_item_settings(Params& params, ItemTemplate::Kind kind);
// For Task::data().
std::vector<std::string> item_data(const ItemSettings& settings);

// A sample for each of the first records, in the order of the file: id ("r00012": the record's index), context, query,
// and the tags `truncated_from`, `group` and `document`. target: what an example says behind its prompt.
// finish: what is asked; it may change the prompt. Throws ConfigError when the file has fewer records than
// settings.samples, or too few examples.
std::vector<Sample> item_samples(const std::string& task, const ItemSettings& settings, const TaskContext& context,
                                 const std::function<std::string(const JsonRecord&)>& target,
                                 const std::function<void(Sample&, const JsonRecord&, PromptParts&)>& finish);

}  // namespace kvsweep
