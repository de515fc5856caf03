// contract: every task of the table, on tokenizers of different kinds.
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>
#include <memory>
#include <set>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/core/task.h"
#include "tasks/data/locate.h"
#include "tests/support/golden.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
namespace {

// What the contract has to know of one task. As it stands: a task that makes its own texts, as long as asked.
struct Kind {
  std::map<std::string, std::string> values = {{"tokens", "700"}};  // its smallest configuration
  std::string count = "samples";                                    // the parameter that says how many
  bool exact_length = true;  // else samples have their natural length, at most `tokens`
  bool one_answer = false;   // an output that is the first answer alone is right, else one that holds all of them
  bool drawn = true;         // another seed gives other samples
  bool data = false;         // it reads files
};

// Records and templates for the tasks that take both from files.
const std::filesystem::path& own_items() {
  static const testing::TemporaryDirectory directory;
  if (!std::filesystem::exists(directory.path() / "items.jsonl")) {
    std::string lines;
    for (int i = 0; i < 30; ++i)
      lines += fmt::format("{{\"question\": \"What is {} and {}?\", \"choices\": [\"{}\", \"none\"], \"answer\": 0}}\n",
                           i, i + 1, 2 * i + 1);
    testing::write_text(directory.path() / "items.jsonl", lines);
    const std::string prompt = "description: \"Add. \"\nprompt: \"Q: {{question}}{{|}}\\nA:\"\n";
    testing::write_text(directory.path() / "choice.yaml",
                        prompt + "choices: \"{{choices}}\"\nanswer: {index: \"{{answer}}\"}\n");
    testing::write_text(directory.path() / "generate.yaml",
                        prompt + "answer: \"{{choices.0}}\"\nmetric: exact_match\nmax_new_tokens: 8\n");
  }
  return directory.path();
}

Kind kind_of(const std::string& task) {
  const std::map<std::string, std::string> long_prompts = {{"tokens", "200000"}};
  if (task == "perplexity") return {.values = {{"tokens", "700"}, {"text", "model"}}};
  if (task == "mmlu")
    return {.values = {{"tokens", "200000"}, {"subjects", "sociology"}},
            .count = "per_subject",
            .exact_length = false,
            .drawn = false,
            .data = true};
  if (task == "gsm8k")
    return {.values = {{"tokens", "200000"}, {"format", "plain"}},
            .exact_length = false,
            .one_answer = true,
            .drawn = false,
            .data = true};
  if (task == "triviaqa" || task == "cnn_dailymail")
    return {.values = long_prompts, .exact_length = false, .one_answer = true, .drawn = false, .data = true};
  if (task == "longbench")
    return {.values = {{"tokens", "1000000"}, {"set", "lcc"}, {"source", "minilongbench"}},
            .exact_length = false,
            .one_answer = true,
            .drawn = false,
            .data = true};
  if (task == "ruler")
    return {.values = {{"tokens", "6000"}, {"task", "niah_single_1"}, {"words", "generated"}}, .exact_length = false};
  if (task == "code")
    return {.values = {{"tokens", "3000"}, {"source", KVSWEEP_SOURCE_DIR "/tasks"}},
            .exact_length = false,
            .one_answer = true,
            .data = true};
  std::map<std::string, std::string> items = {{"tokens", "300"}, {"data", (own_items() / "items.jsonl").string()}};
  if (task == "refusal") {
    items.insert({{"field", "question"}, {"chat", "false"}});
    return {.values = items, .exact_length = false, .one_answer = true, .drawn = false, .data = true};
  }
  if (task == "multiple_choice" || task == "generate") {
    items["template"] = (own_items() / (task == "generate" ? "generate.yaml" : "choice.yaml")).string();
    return {.values = items, .exact_length = false, .one_answer = true, .drawn = false, .data = true};
  }
  return {};
}

std::unique_ptr<Task> make(const TaskEntry& entry, int64_t count = 6, std::map<std::string, ParamValue> more = {}) {
  const Kind kind = kind_of(entry.name);
  std::map<std::string, ParamValue> values = {{kind.count, {std::to_string(count), 2}}};
  for (const auto& [key, value] : kind.values) values[key] = {value, 1};
  for (auto& [key, value] : more) values[key] = value;
  Params params(entry.name, "sweep.yaml", std::move(values));
  return entry.make(params);
}

// Skips the running test when data that the task reads is missing.
void require_data(const Task& task, const DataLocator& data) {
  for (const std::string& item : task.data()) {
    try {
      data.find(item);
    } catch (const DataError&) {
      SKIP("no " << item << " in a data root");
    }
  }
}

std::vector<std::vector<int32_t>> fake_model_text(int64_t sequences, int64_t tokens, uint64_t seed) {
  std::vector<std::vector<int32_t>> texts;
  for (int64_t i = 0; i < sequences; ++i) {
    Rng rng(derive_seed(seed, std::to_string(i)));
    texts.emplace_back();
    for (int64_t t = 0; t < tokens; ++t) texts.back().push_back(static_cast<int32_t>(rng.below(250)));
  }
  return texts;
}

struct World {
  explicit World(uint64_t seed = 17) : context{tokenizer, data, fake_model_text, seed} {}
  testing::ByteTokenizer tokenizer{true};
  DataLocator data{testing::data_roots()};
  TaskContext context;
};

bool same(const Sample& a, const Sample& b) {
  return a.id == b.id && a.context == b.context && a.query == b.query && a.max_new_tokens == b.max_new_tokens &&
         a.stop == b.stop && a.answers == b.answers && a.tags == b.tags && a.choices == b.choices &&
         a.sampling.seed == b.sampling.seed;
}

const TaskEntry& entry_of(size_t i) {
  return task_table()[i];
}

}  // namespace

TEST_CASE("every task has a name, a line of summary, a version and a length axis") {
  for (const TaskEntry& entry : task_table()) {
    INFO(entry.name);
    CHECK(entry.version >= 1);
    CHECK(!entry.summary.empty());
    CHECK(entry.summary.find('\n') == std::string::npos);
    Params description = Params::describe(entry.name);
    CHECK_NOTHROW(entry.make(description));
    const auto& declarations = description.declarations();
    CHECK(std::any_of(declarations.begin(), declarations.end(),
                      [](const ParamDeclaration& one) { return one.name == "tokens" && one.required; }));
    for (const ParamDeclaration& one : declarations) CHECK(!one.help.empty());
    CHECK(std::to_string(make(entry)->tokens()) == kind_of(entry.name).values.at("tokens"));
  }
}

TEST_CASE("every task refuses keys that it does not know") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  CHECK_THROWS_AS(make(entry, 6, {{"sample", {"3", 4}}}), ConfigError);
}

TEST_CASE("samples have the length that was asked for, a query, and ids of their own") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  const auto task = make(entry);
  const World world;
  require_data(*task, world.data);
  const std::vector<Sample> samples = task->samples(world.context);
  REQUIRE(std::ssize(samples) == task->sample_count());
  std::set<std::string> ids;
  for (const Sample& sample : samples) {
    INFO(sample.id);
    CHECK(ids.insert(sample.id).second);
    CHECK(!sample.query.empty());
    const int64_t length = std::ssize(sample.context) + std::ssize(sample.query);
    CHECK((kind_of(entry.name).exact_length ? length == task->tokens() : length <= task->tokens()));
    CHECK(std::ssize(sample.query) <= task->query_tokens());
    CHECK(sample.max_new_tokens <= task->generated_tokens());
    CHECK((sample.max_new_tokens > 0 || sample.query.size() > 1 || !sample.choices.empty()));  // something is scored
    for (const auto& choice : sample.choices) CHECK(!choice.empty());
    for (const std::string& tag : task->breakdown()) CHECK(sample.tags.contains(tag));
  }
}

TEST_CASE("a task's kind is one that tables know") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  CHECK(std::find(std::begin(kTaskKinds), std::end(kTaskKinds), make(entry)->kind()) != std::end(kTaskKinds));
}

TEST_CASE("samples depend on parameters, seed and data only") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  const World world, again, other(18);
  require_data(*make(entry), world.data);
  const bool drawn = kind_of(entry.name).drawn;
  const std::vector<Sample> a = make(entry)->samples(world.context), b = make(entry)->samples(again.context),
                            c = make(entry)->samples(other.context);
  REQUIRE(a.size() == b.size());
  REQUIRE(a.size() == c.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(same(a[i], b[i]));
    CHECK(a[i].id == c[i].id);
    CHECK((a[i].context != c[i].context) == drawn);
    for (size_t j = 0; j < i; ++j) CHECK(a[i].context != a[j].context);
  }
}

TEST_CASE("a shorter run is the beginning of a longer one") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  const World world;
  require_data(*make(entry), world.data);
  const std::vector<Sample> few = make(entry, 3)->samples(world.context);
  const std::vector<Sample> many = make(entry, 25)->samples(world.context);
  REQUIRE(few.size() == 3);
  REQUIRE(many.size() == 25);
  for (size_t i = 0; i < few.size(); ++i) CHECK(same(few[i], many[i]));
}

TEST_CASE("scores hold every metric and nothing else; the reference scores best, nothing scores 0") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  const auto task = make(entry);
  const World world;
  require_data(*task, world.data);
  const Sample sample = task->samples(world.context).front();
  const MetricSpec primary = task->metrics().front();
  Output output;
  if (kind_of(entry.name).one_answer)
    output.text = sample.answers.front();
  else
    for (const std::string& answer : sample.answers) output.text += answer + " ";
  if (sample.max_new_tokens == 0) output.nll.assign(sample.query.size() - 1, 2.5F);
  output.choices.assign(sample.choices.size(), {-2, false});
  const auto scores = task->score(sample, output);
  std::set<std::string> names;
  for (const MetricSpec& metric : task->metrics()) {
    INFO(metric.name);
    CHECK(names.insert(metric.name).second);
    CHECK(!metric.shown_as.empty());
    REQUIRE(scores.contains(metric.name));
    CHECK(std::isfinite(scores.at(metric.name)));
  }
  CHECK(scores.size() == names.size());
  if (!sample.choices.empty()) {
    int right = 0;
    for (ChoiceScore& choice : output.choices) {
      choice.log_likelihood = -1;
      right += task->score(sample, output).at(primary.name) == 1;
      choice.log_likelihood = -2;
    }
    CHECK(right == 1);
  } else if (primary.aggregate == Aggregate::kMean) {
    CHECK(scores.at(primary.name) == 1);
    output.text.clear();
    CHECK(task->score(sample, output).at(primary.name) == 0);
  } else {
    CHECK(scores.at(primary.name) == 2.5);
  }
}

TEST_CASE("tasks that make their own texts need no data") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  CHECK(make(entry)->data().empty() != kind_of(entry.name).data);
}

}  // namespace kvsweep
