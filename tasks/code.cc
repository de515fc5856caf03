#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "harness/core/common_prefix.h"
#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/fit.h"
#include "tasks/data/haystack.h"
#include "tasks/data/locate.h"
#include "tasks/data/words.h"
#include "tasks/metrics/code_similarity.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSuffixes[] = {".c",   ".cc",   ".cpp", ".cu", ".cs", ".go",    ".h", ".hh",
                                     ".hpp", ".java", ".js",  ".rs", ".py", ".swift", ".ts"};
constexpr int64_t kOthers = 3;  // functions of the same form that are not asked for
constexpr int64_t kParameters = 3;
constexpr const char* kHead = "These are the source files of a project.\n\n";
constexpr const char* kConstantQuestion = "\n\nThe function {} again, with the constant that it returns:\n\n";
constexpr const char* kSignatureQuestion = "\n\nThe first line of the function {} again, with its parameters:\n\n";

// Lines of all files, each file behind a line with its name, and where a function may stand: between two blocks.
struct Sources {
  std::vector<std::string> lines;
  std::vector<bool> block;    // [lines] a block begins here: the line before is empty, this one is not indented
  std::vector<size_t> files;  // first line of each file
  bool python = false;        // most files are
};

// A definition that is put between the others.
struct Function {
  std::string name, constant;
  std::vector<std::string> parameters;
};

// The line nearest to `target` of 0..lines-1 where a block begins; line 0 is one.
template <class IsBlock>
int64_t nearest_block(int64_t target, int64_t lines, const IsBlock& is_block) {
  for (int64_t away = 0;; ++away)
    for (const int64_t line : {target + away, target - away})
      if (line >= 0 && line < lines && is_block(line)) return line;
}

class CodeTask final : public Task {
 public:
  CodeTask(std::string source, int64_t tokens, int64_t samples, int64_t depths, bool signature)
      : source_(std::move(source)), tokens_(tokens), samples_(samples), depths_(depths), signature_(signature) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override { return "code"; }
  std::vector<MetricSpec> metrics() const override {
    return {{"exact_match", Aggregate::kMean, true, "match"},
            {"code_sim", Aggregate::kMean, true, "code sim"},
            {"code_sim_levenshtein", Aggregate::kMean, true, "code sim lev"}};
  }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override;
  int64_t tokens() const override { return tokens_; }
  int64_t sample_count() const override { return samples_; }
  int64_t query_tokens() const override { return std::min<int64_t>(tokens_, 512); }  // its bytes are fewer
  int64_t generated_tokens() const override { return 64; }
  std::vector<std::string> data() const override { return {source_}; }

 private:
  Sources sources(const DataLocator& data) const;
  std::string opening(const Function& function, bool python) const;
  std::string answer(const Function& function, bool python) const;
  std::string definition(const Function& function, bool python) const;
  Sample sample(const TaskContext& context, const Sources& sources, int64_t depth, int64_t repetition) const;

  std::string source_;
  int64_t tokens_, samples_, depths_;
  bool signature_;
};

Sources CodeTask::sources(const DataLocator& data) const {
  const fs::path root = data.find(source_);
  Sources sources;
  int64_t python = 0;
  for (const std::string& name : data_files(root)) {
    const std::string suffix = fs::path(name).extension().string();
    if (std::find(std::begin(kSuffixes), std::end(kSuffixes), suffix) == std::end(kSuffixes)) continue;
    std::istringstream in(read_utf8(fs::is_directory(root) ? root / name : root));
    const bool is_python = suffix == ".py";
    python += is_python ? 1 : -1;
    sources.files.push_back(sources.lines.size());
    sources.lines.push_back(fmt::format("{} {}", is_python ? "#" : "//", name));
    sources.block.push_back(true);
    bool after_empty = false;
    for (std::string line; std::getline(in, line);) {
      if (line.ends_with('\r')) line.pop_back();
      const bool empty = line.find_first_not_of(" \t") == std::string::npos;
      const bool indented = !empty && (line[0] == ' ' || line[0] == '\t' || line[0] == '}');
      sources.lines.push_back(line);
      sources.block.push_back(after_empty && !empty && !indented);
      after_empty = empty;
    }
    sources.lines.emplace_back();
    sources.block.push_back(false);
  }
  if (sources.files.empty())
    throw DataError(fmt::format("{}: no source file; names that end in {} are read", root.string(),
                                join({std::begin(kSuffixes), std::end(kSuffixes)})));
  sources.python = python > 0;
  return sources;
}

// What the query ends with, and the model goes on with answer().
std::string CodeTask::opening(const Function& function, bool python) const {
  if (signature_) return fmt::format("{} {}(", python ? "def" : "int", function.name);
  return python ? fmt::format("def {}():\n    return", function.name)
                : fmt::format("int {}() {{\n  return", function.name);
}

std::string CodeTask::answer(const Function& function, bool python) const {
  if (!signature_) return " " + function.constant + (python ? "" : ";");
  return python ? join(function.parameters) + "):" : "int " + join(function.parameters, ", int ") + ") {";
}

std::string CodeTask::definition(const Function& function, bool python) const {
  const std::string begin = opening(function, python) + answer(function, python) + "\n";
  if (!signature_) return begin + (python ? "\n" : "}\n\n");
  const std::string sum = join(function.parameters, " + ") + " + " + function.constant;
  return begin + (python ? "    return " + sum + "\n\n" : "  return " + sum + ";\n}\n\n");
}

Sample CodeTask::sample(const TaskContext& context, const Sources& sources, int64_t depth, int64_t repetition) const {
  Sample sample;
  sample.id = fmt::format("d{:03}-s{:02}", depth, repetition);
  sample.max_new_tokens = generated_tokens();
  sample.stop = {"\n"};
  Rng rng(derive_seed(context.seed, "code/" + sample.id));
  const std::vector<std::string> nouns = own_nouns();
  std::vector<Function> functions;  // the first one is asked for
  std::vector<int64_t> depths = {depth};
  for (int64_t i = 0; i <= kOthers; ++i) {
    Function function;
    do {
      function.name =
          fmt::format("{}_{}_{}", rng.pick(own_adjectives()), rng.pick(own_things()), rng.pick(own_places()));
    } while (
        std::any_of(functions.begin(), functions.end(), [&](const auto& one) { return one.name == function.name; }));
    function.constant = fmt::to_string(rng.between(1000000, 9999999));
    while (std::ssize(function.parameters) < kParameters)
      if (const std::string& noun = rng.pick(nouns);
          std::find(function.parameters.begin(), function.parameters.end(), noun) == function.parameters.end())
        function.parameters.push_back(noun);
    functions.push_back(std::move(function));
    if (i > 0) depths.push_back(rng.between(0, 100));
  }
  const size_t first = sources.files[static_cast<size_t>(rng.below(sources.files.size()))];
  const bool python = sources.python;
  const std::string question =
      fmt::format(fmt::runtime(signature_ ? kSignatureQuestion : kConstantQuestion), functions[0].name);
  // Lines from `first` on, around the end.
  const auto line_at = [&](int64_t line) { return (first + static_cast<size_t>(line)) % sources.lines.size(); };
  const UnitPlan plan{
      .name = "code.tokens",
      .make =
          [&](int64_t units) {
            std::vector<std::string> before(static_cast<size_t>(units));  // functions, by the line that they precede
            for (size_t i = 0; i < functions.size(); ++i)
              before[static_cast<size_t>(nearest_block(units * depths[i] / 100, units, [&](int64_t line) {
                return sources.block[line_at(line)];
              }))] += definition(functions[i], python);
            std::string text = kHead;
            for (int64_t line = 0; line < units; ++line)
              text += before[static_cast<size_t>(line)] + sources.lines[line_at(line)] + "\n";
            while (text.ends_with('\n')) text.pop_back();
            return CutText{text, question + opening(functions[0], python)};
          },
      .least = 1,
      .most = tokens_,
      .tokens = tokens_};
  FittedUnits fitted = fit_units(plan, context.tokenizer);
  const size_t place = fitted.text.context.find(opening(functions[0], python)) + opening(functions[0], python).size();
  const CutIds prompt = cut_ids(context.tokenizer, fitted.text, std::move(fitted.ids));
  sample.context.assign(prompt.ids.begin(), prompt.ids.begin() + prompt.context_tokens);
  sample.query.assign(prompt.ids.begin() + prompt.context_tokens, prompt.ids.end());
  sample.answers = {answer(functions[0], python)};
  sample.tags["depth"] = fmt::to_string(depth);
  sample.tags["answer_token"] = fmt::to_string(
      common_prefix(text_ids(context.tokenizer, {fitted.text.context.substr(0, place), ""}), prompt.ids));
  return sample;
}

std::vector<Sample> CodeTask::samples(const TaskContext& context) const {
  const Sources from = sources(context.data);
  const std::vector<int64_t> depths = depth_grid(depths_), order = spread_order(depths_);
  std::vector<Sample> samples;
  for (int64_t i = 0; i < samples_; ++i)
    samples.push_back(
        sample(context, from, depths[static_cast<size_t>(order[static_cast<size_t>(i % depths_)])], i / depths_));
  return samples;
}

std::map<std::string, double> CodeTask::score(const Sample& sample, const Output& output) const {
  // White space around the line is no part of the answer: a definition ends with its line.
  const std::string answer = python_strip(sample.answers.front());
  const std::string line = python_strip(std::string_view(output.text).substr(0, output.text.find('\n')));
  const auto similarity = [&](CodeSimilarity form) { return fuzz_ratio(line, answer, form) / 100.0; };
  return {{"exact_match", line == answer ? 1 : 0},
          {"code_sim", similarity(CodeSimilarity::kDifflib)},
          {"code_sim_levenshtein", similarity(CodeSimilarity::kLevenshtein)}};
}

std::unique_ptr<Task> make_code(Params& params) {
  const std::string source =
      params.text("source", std::nullopt, "folder (or file) of source code: a path, or one below a data root");
  const int64_t tokens = params.integer("tokens", std::nullopt, 256, 1 << 20, "tokens of context and query, at most");
  const int64_t samples = params.integer("samples", 20, 1, 100000, "samples in all, spread evenly over the depths");
  const int64_t depths =
      params.integer("depths", 10, 1, 101, "positions of the asked function, evenly over 0 to 100 % of the text");
  const bool signature =
      params.choice("ask", "constant", {"constant", "signature"},
                    "what of the function is to be repeated: the number that it returns, or its parameters") ==
      "signature";
  params.finish();
  return std::make_unique<CodeTask>(source, tokens, samples, depths, signature);
}

}  // namespace

TaskEntry code_entry() {
  return {"code", 1, "find a function's definition in a long concatenation of source files", make_code};
}

}  // namespace kvsweep
