// contract: every task of the table, on tokenizers of different kinds.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
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

// The smallest configuration of every task: required parameters, and sizes that a byte tokenizer can meet.
std::map<std::string, ParamValue> small_values(const std::string& task) {
  std::map<std::string, ParamValue> values = {{"tokens", {"700", 1}}, {"samples", {"6", 2}}};
  if (task == "perplexity") values["text"] = {"model", 3};
  return values;
}

std::unique_ptr<Task> make(const TaskEntry& entry, std::map<std::string, ParamValue> more = {}) {
  std::map<std::string, ParamValue> values = small_values(entry.name);
  for (auto& [key, value] : more) values[key] = value;
  Params params(entry.name, "sweep.yaml", std::move(values));
  return entry.make(params);
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
  DataLocator data{{}};
  TaskContext context;
};

bool same(const Sample& a, const Sample& b) {
  return a.id == b.id && a.context == b.context && a.query == b.query && a.max_new_tokens == b.max_new_tokens &&
         a.stop == b.stop && a.answers == b.answers && a.tags == b.tags;
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
    CHECK(make(entry)->tokens() == 700);
  }
}

TEST_CASE("every task refuses keys that it does not know") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  CHECK_THROWS_AS(make(entry, {{"sample", {"3", 4}}}), ConfigError);
}

TEST_CASE("samples have the length that was asked for, a query, and ids of their own") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  const auto task = make(entry);
  const World world;
  const std::vector<Sample> samples = task->samples(world.context);
  REQUIRE(std::ssize(samples) == task->sample_count());
  std::set<std::string> ids;
  for (const Sample& sample : samples) {
    INFO(sample.id);
    CHECK(ids.insert(sample.id).second);
    CHECK(!sample.query.empty());
    CHECK(std::ssize(sample.context) + std::ssize(sample.query) == task->tokens());
    CHECK(std::ssize(sample.query) <= task->query_tokens());
    CHECK(sample.max_new_tokens <= task->generated_tokens());
    CHECK((sample.max_new_tokens > 0 || sample.query.size() > 1));  // something is scored
  }
}

TEST_CASE("samples depend on parameters, seed and data only") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  const World world, again, other(18);
  const std::vector<Sample> a = make(entry)->samples(world.context), b = make(entry)->samples(again.context),
                            c = make(entry)->samples(other.context);
  REQUIRE(a.size() == b.size());
  REQUIRE(a.size() == c.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(same(a[i], b[i]));
    CHECK(a[i].id == c[i].id);
    CHECK(a[i].context != c[i].context);
    for (size_t j = 0; j < i; ++j) CHECK(a[i].context != a[j].context);
  }
}

TEST_CASE("a shorter run is the beginning of a longer one") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  const World world;
  const std::vector<Sample> few = make(entry, {{"samples", {"3", 2}}})->samples(world.context);
  const std::vector<Sample> many = make(entry, {{"samples", {"25", 2}}})->samples(world.context);
  REQUIRE(few.size() == 3);
  REQUIRE(many.size() == 25);
  for (size_t i = 0; i < few.size(); ++i) CHECK(same(few[i], many[i]));
}

TEST_CASE("scores hold every metric and nothing else") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  const auto task = make(entry);
  const World world;
  const Sample sample = task->samples(world.context).front();
  Output output;
  for (const std::string& answer : sample.answers) output.text += answer + " ";
  if (sample.max_new_tokens == 0) output.nll.assign(sample.query.size() - 1, 2.5F);
  const auto scores = task->score(sample, output);
  std::set<std::string> names;
  for (const MetricSpec& metric : task->metrics()) {
    INFO(metric.name);
    CHECK(names.insert(metric.name).second);
    CHECK(!metric.shown_as.empty());
    REQUIRE(scores.contains(metric.name));
    if (metric.aggregate == Aggregate::kMean) CHECK(scores.at(metric.name) == 1);
    if (metric.aggregate == Aggregate::kExpMean) CHECK(scores.at(metric.name) == 2.5);
  }
  CHECK(scores.size() == names.size());
}

TEST_CASE("quickstart tasks need no data") {
  const TaskEntry& entry = entry_of(GENERATE(range(size_t{0}, task_table().size())));
  INFO(entry.name);
  CHECK(make(entry)->data().empty());
}

}  // namespace kvsweep
