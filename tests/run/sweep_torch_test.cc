// contract: a sweep file expands to its points in the order of writing, and every mistake in it is named with its line.
#include "harness/run/sweep.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/run/plugin_help.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

constexpr int64_t kLayers = 30;

class FakeScheme : public Scheme {
 public:
  explicit FakeScheme(NominalBits bits) : bits_(bits) {}
  NominalBits nominal_bits(int64_t) const override { return bits_; }
  CompressedFrom compressed_from(int64_t, int64_t) const override { return {}; }
  std::unique_ptr<KvCache> make_cache(const CacheContext&) const override { return nullptr; }

 private:
  NominalBits bits_;
};

class FakeTask : public Task {
 public:
  explicit FakeTask(int64_t tokens) : tokens_(tokens) {}
  std::vector<Sample> samples(const TaskContext&) const override { return {}; }
  std::string kind() const override { return "other"; }
  std::vector<MetricSpec> metrics() const override { return {}; }
  std::map<std::string, double> score(const Sample&, const Output&) const override { return {}; }
  int64_t tokens() const override { return tokens_; }
  int64_t sample_count() const override { return 0; }
  int64_t query_tokens() const override { return 0; }

 private:
  int64_t tokens_;
};

std::unique_ptr<Scheme> make_plain(Params& params) {
  params.finish();
  return std::make_unique<FakeScheme>(NominalBits{});
}

std::unique_ptr<Scheme> make_rounding(Params& params) {
  NominalBits bits;
  bits.k = mean_of(params.layer_integers("k_bits", 4, 1, 8, "bits of a key"), kLayers);
  bits.v = static_cast<double>(params.integer("v_bits", 4, 1, 8, "bits of a value"));
  params.text("note", "", "anything");
  if (bits.k < bits.v) params.reject("k_bits", "keys need no fewer bits than values");
  params.finish();
  return std::make_unique<FakeScheme>(bits);
}

std::unique_ptr<Task> make_search(Params& params) {
  const int64_t tokens = params.integer("tokens", std::nullopt, 16, 65536, "length of the context");
  params.integer("samples", 20, 1, 1000, "samples");
  params.finish();
  return std::make_unique<FakeTask>(tokens);
}

const std::vector<SchemeEntry>& schemes() {
  static const std::vector<SchemeEntry> table = {{"plain", "nothing happens", make_plain},
                                                 {"rounding", "codes are rounded", make_rounding}};
  return table;
}

const std::vector<TaskEntry>& tasks() {
  static const std::vector<TaskEntry> table = {{"search", 3, "finds things", make_search}};
  return table;
}

SweepTables tables() {
  return {schemes(), tasks(), [](const std::string& argument) { return argument.substr(0, argument.find('.')); }};
}

Sweep parse(const std::string& yaml) {
  return parse_sweep(yaml, "dir/night.yaml", tables());
}

// A good sweep in which one test line stands for the good one, which begins with the same key.
std::string sweep_with(const std::string& line) {
  std::string yaml;
  bool placed = false;
  for (const std::string good : {"model: m.yaml", "tasks: [{name: search, tokens: 64}]", "schemes: [{name: plain}]"}) {
    const bool same = line.substr(0, line.find(':')) == good.substr(0, good.find(':'));
    yaml += (same ? line : good) + "\n";
    placed = placed || same;
  }
  return placed ? yaml : yaml + line + "\n";
}

void check_error(const std::string& yaml, const std::string& message) {
  INFO(yaml);
  CHECK_THROWS_MATCHES(parse(yaml), ConfigError, MessageMatches(ContainsSubstring(message)));
}

std::string labels(const SweepGroup& group) {
  std::string out;
  for (const SweepPoint& point : group.points) {
    out += point.point.scheme;
    for (const auto& [key, value] : point.point.scheme_params) out += " " + key + "=" + value;
    out += "; ";
  }
  return out;
}

}  // namespace

TEST_CASE("lists of a scheme's keys are axes, the last written key varies fastest") {
  const Sweep sweep = parse(R"(
model: m.yaml
tasks:
  - {name: search, tokens: 64}
schemes:
  - name: plain
  - {name: rounding, v_bits: [2, 1], k_bits: [8, 4]}
)");
  REQUIRE(sweep.groups.size() == 1);
  CHECK(labels(sweep.groups[0]) ==
        "plain; rounding k_bits=8 v_bits=2 note=; rounding k_bits=4 v_bits=2 note=; "
        "rounding k_bits=8 v_bits=1 note=; rounding k_bits=4 v_bits=1 note=; ");
  const SweepPoint& last = sweep.groups[0].points[4];
  CHECK(last.line == 7);
  CHECK(last.id == last.point.id());
  CHECK(last.scheme->nominal_bits(2).k == 4);
  CHECK(last.scheme->nominal_bits(2).v == 1);
  CHECK(last.point.model == "m");
  CHECK(last.point.task == "search");
  CHECK(last.point.task_version == 3);
  CHECK(last.point.task_params == Fields{{"tokens", "64"}, {"samples", "20"}});
  CHECK(last.point.tokens == 64);
  CHECK(last.point.view == "exact");
  CHECK(last.point.seed == 17);
  CHECK(sweep.name == "night");
}

TEST_CASE("groups are the product of models, tasks, views and seeds in the order of writing") {
  const Sweep sweep = parse(R"(
name: all_of-it.2
model: [b.gguf, a.gguf]
tasks: [{name: search, tokens: [64, 32]}]
view: [chunked:128, exact, {chunked: 16}, "chunked: 8"]
seed: [18446744073709551615, 0]
schemes: [{name: plain}]
)");
  CHECK(sweep.name == "all_of-it.2");
  REQUIRE(sweep.groups.size() == 2 * 2 * 4 * 2);
  std::string order;
  for (const size_t i : {0u, 1u, 2u, 4u, 6u, 8u, 16u}) {
    const SweepGroup& group = sweep.groups[i];
    const Point& point = group.points.at(0).point;
    CHECK(point.view == group.view.text());
    CHECK(point.seed == group.seed);
    CHECK(point.tokens == group.task->tokens());
    order +=
        group.model + " " + std::to_string(point.tokens) + " " + point.view + " " + std::to_string(point.seed) + "\n";
  }
  CHECK(order ==
        "b.gguf 64 chunked:128 18446744073709551615\n"
        "b.gguf 64 chunked:128 0\n"
        "b.gguf 64 exact 18446744073709551615\n"
        "b.gguf 64 chunked:16 18446744073709551615\n"
        "b.gguf 64 chunked:8 18446744073709551615\n"
        "b.gguf 32 chunked:128 18446744073709551615\n"
        "a.gguf 64 chunked:128 18446744073709551615\n");
  CHECK(sweep.groups[0].view.chunk_tokens == 128);
  CHECK(sweep.groups[2].view.chunk_tokens == 0);
  CHECK(sweep.ids().size() == 32);
  CHECK(sweep.ids().at(sweep.groups[8].points[0].id) == sweep.groups[8].points[0].point.label());
}

TEST_CASE("the hash of a sweep is that of its set of points") {
  const Sweep first = parse(sweep_with("seed: [1, 2]")), turned = parse(sweep_with("seed: [2, 1]"));
  CHECK(first.hash == turned.hash);
  CHECK(first.hash != parse(sweep_with("seed: [1, 3]")).hash);
  CHECK(first.hash.size() == 64);
  CHECK(parse(sweep_with("name: other")).hash == parse(sweep_with("seed: 17")).hash);
}

TEST_CASE("a default written out is the same point as a default left out") {
  check_error(
      "model: m\ntasks: [{name: search, tokens: 64}]\nschemes:\n  - {name: rounding, note: x}\n"
      "  - {name: rounding, k_bits: 4, note: x}\n",
      "night.yaml:5: scheme 'rounding k_bits=4 v_bits=4 note=x' is the same as on line 4");
}

TEST_CASE("values come as they are written, quoted or not") {
  const auto note = [](const std::string& text) {
    const Sweep sweep = parse(sweep_with("schemes: [{name: rounding, note: " + text + "}]"));
    return sweep.groups[0].points[0].point.scheme_params[2].second;
  };
  CHECK(note("plain text") == "plain text");
  CHECK(note("'null'") == "null");
  CHECK(note("\"a: [b]\"") == "a: [b]");
  CHECK(note("''").empty());
  CHECK(note("0x10") == "0x10");
  CHECK(labels(parse(sweep_with("schemes: [{name: 'rounding', k_bits: '8'}]")).groups[0]) ==
        "rounding k_bits=8 v_bits=4 note=; ");
}

TEST_CASE("what is wrong in a sweep is named with its line") {
  const auto [line, message] = GENERATE(table<std::string, std::string>({
      {"schemas: 3", "night.yaml:4: schemas is not a key of a sweep; did you mean 'schemes'?; known: name, model"},
      {"model: [a, a.gguf]", "night.yaml:1: model 'a' is the same as on line 1"},
      {"model: []", "night.yaml:1: model is an empty list"},
      {"model: {path: x}", "night.yaml:1: model is a map where a single value belongs"},
      {"model:", "night.yaml:1: model has no value"},
      {"name: [a]", "night.yaml:4: name is a list where a single value belongs"},
      {"name: a/b", "night.yaml:4: name = 'a/b' names the results directory"},
      {"name: ..", "night.yaml:4: name = '..' names"},
      {"tasks: {name: search}", "night.yaml:2: tasks is a list of at least one map"},
      {"tasks: []", "night.yaml:2: tasks is a list of at least one map"},
      {"tasks: [search]", "night.yaml:2: an entry of tasks is a map with a name, as in {name: full}"},
      {"tasks: [{tokens: 64}]", "night.yaml:2: this entry of tasks has no name"},
      {"tasks: [{name: [search], tokens: 64}]", "night.yaml:2: name is a list where a single value belongs"},
      {"tasks: [{name: serch, tokens: 64}]",
       "night.yaml:2: task 'serch' is not known; did you mean 'search'?; known: search"},
      {"tasks: [{name: search}]", "night.yaml:2: search.tokens is required"},
      {"tasks: [{name: search, tokens: 8}]", "night.yaml:2: search.tokens = 8 is outside [16, 65536]"},
      {"tasks: [{name: search, tokens: [[64]]}]",
       "night.yaml:2: an item of tokens is a list where a single value belongs"},
      {"tasks: [{name: search, tokens: {a: 1}}]", "night.yaml:2: tokens is a map where a single value belongs"},
      {"tasks: [{name: search, tokens: []}]", "night.yaml:2: tokens is an empty list"},
      {"tasks: [{name: search, tokens: ~}]", "night.yaml:2: tokens has no value"},
      {"tasks: [{name: search, tokens: [64, null]}]", "night.yaml:2: an item of tokens has no value"},
      {"tasks: [{name: search, tokens: [64, 64]}]", "night.yaml:2: task 'search tokens=64 samples=20' is the same as"},
      {"tasks: [{name: search, tokens: 64, tokens: 32}]", "night.yaml:2: tokens stands twice in an entry of tasks"},
      {"tasks: [{name: search, tokens: 64, sample: 3}]",
       "night.yaml:2: search.sample is not a parameter of search; did you mean 'samples'?"},
      {"schemes: [{name: nothing-like-it}]",
       "night.yaml:3: scheme 'nothing-like-it' is not known; known: plain, rounding"},
      {"schemes: [{name: rounding, k_bits: 2}]", "night.yaml:3: rounding.k_bits = 2: keys need no fewer bits"},
      {"schemes: [{name: rounding, k_bits: [4, 9]}]", "night.yaml:3: rounding.k_bits = 9 is outside [1, 8]"},
      {"schemes: [{name: plain, [1]: 2}]", "night.yaml:3: a key of an entry of schemes is a text"},
      {"view: as_decode",
       "night.yaml:4: view = 'as_decode' is not known; did you mean 'as_decoded'?; allowed: exact, "
       "as_decoded, chunked:<n>"},
      {"attention_layers: [0, x]", "night.yaml:4: attention_layers = 'x' is not a layer"},
      {"attention_layers: -1", "night.yaml:4: attention_layers = '-1' is not a layer"},
      {"deterministic: perhaps", "night.yaml:4: deterministic = 'perhaps': allowed: true, false"},
      {"view: exakt", "night.yaml:4: view = 'exakt' is not known; did you mean 'exact'?"},
      {"view: chunked", "night.yaml:4: view = 'chunked': chunked needs a number of tokens"},
      {"view: chunked:0", "night.yaml:4: view = 'chunked:0': chunked needs a number of tokens"},
      {"view: chunked:12x", "view = 'chunked:12x': chunked needs a number of tokens"},
      {"view: {exact: 3}", "night.yaml:4: view = 'exact:3' is not known"},
      {"view: {chunked: 1, exact: 2}", "night.yaml:4: view is a map with more than one key"},
      {"view: [chunked:8, {chunked: 8}]", "night.yaml:4: view 'chunked:8' is the same as on line 4"},
      {"view: []", "night.yaml:4: view is an empty list"},
      {"seed: -1", "night.yaml:4: seed = '-1' is not an integer in [0, 18446744073709551615]"},
      {"seed: 1.5", "night.yaml:4: seed = '1.5' is not an integer"},
      {"seed: [1, 01]", "night.yaml:4: seed '1' is the same as on line 4"},
      {"seed: [1, 2", "night.yaml:5: not YAML: "},
      {"seed: &a [*a]", "night.yaml:4: "},
  }));
  check_error(sweep_with(line), message);
}

TEST_CASE("a sweep is one map with its three necessary keys") {
  check_error("",
              "night.yaml: a sweep is one map with the keys name, model, tasks, view, seed, deterministic, "
              "attention_layers, schemes");
  check_error("- 1\n", "night.yaml: a sweep is one map");
  check_error("just text", "night.yaml: a sweep is one map");
  check_error("model: a\n---\nmodel: b\n", "night.yaml: a sweep is one map");
  check_error("model: a\nmodel: b\n", "night.yaml:2: model stands twice in a sweep, first on line 1");
  check_error("tasks: [{name: search, tokens: 64}]\nschemes: [{name: plain}]\n",
              "night.yaml: the key model is missing");
  check_error("model: m\nschemes: [{name: plain}]\n", "night.yaml: the key tasks is missing");
  check_error("model: m\ntasks: [{name: search, tokens: 64}]\n", "night.yaml: the key schemes is missing");
  check_error("model: m\n\ttasks: 3\n", "night.yaml:2: not YAML: ");
}

TEST_CASE("a value may be a map of layers, alone or on an axis") {
  const auto scheme = [](const std::string& k_bits) {
    return parse(sweep_with("schemes: [{name: rounding, v_bits: 2, k_bits: " + k_bits + "}]"));
  };
  const SweepPoint point = scheme("{default: 4, layers: {0: 8, \"28-29\": 6}}").groups[0].points[0];
  CHECK(point.point.scheme_params[0].second == "{default: 4, layers: {0: 8, 28-29: 6}}");
  CHECK(point.scheme->nominal_bits(kLayers).k == (8 + 27 * 4 + 2 * 6) / 30.0);
  CHECK(point.id == point.point.id());
  // The same point however it is written, another one with other layers.
  CHECK(scheme("{layers: {29: 6, 28: 6, 1-27: 4, 0: 8}, default: 4}").hash ==
        scheme("{default: 4, layers: {0: 8, 28-29: 6}}").hash);
  CHECK(scheme("{default: 4, layers: {0: 8}}").hash != scheme("{default: 4, layers: {1: 8}}").hash);
  CHECK(scheme("{default: 4, layers: {3-5: 4}}").hash == scheme("4").hash);
  const Sweep axis = scheme("[8, {default: 4, layers: {2: 8}}, {default: 4, layers: {2: 6}}]");
  CHECK(labels(axis.groups[0]) ==
        "rounding k_bits=8 v_bits=2 note=; rounding k_bits={default: 4, layers: {2: 8}} v_bits=2 note=; "
        "rounding k_bits={default: 4, layers: {2: 6}} v_bits=2 note=; ");
}

TEST_CASE("what is wrong in a map of layers is named with its line") {
  const auto [value, message] = GENERATE(table<std::string, std::string>({
      {"{layers: {0: 8}}", "k_bits: a map of layers reads {default: 4, layers: {0: 8, 28-29: 8}}"},
      {"{default: 4}", "k_bits: a map of layers reads {default: 4,"},
      {"{default: 4, layers: {}}", "k_bits: a map of layers reads {default: 4,"},
      {"{default: 4, layers: [8]}", "k_bits.layers: a map of layers reads {default: 4,"},
      {"{default: 4, layer: {0: 8}}", "k_bits.layer: a map of layers reads {default: 4,"},
      {"{default: [4], layers: {0: 8}}", "k_bits.default is a list where a single value belongs"},
      {"{default: 4, layers: {0: [8]}}", "k_bits.layers.0 is a list where a single value belongs"},
      {"{default: 4, layers: {0: }}", "0 has no value"},
      {"{default: 4, layers: {-1: 8}}", "'-1' names no layers; write a number from 0, or a range as in 28-29"},
      {"{default: 4, layers: {5-3: 8}}", "'5-3' names no layers"},
      {"{default: 4, layers: {3-: 8}}", "'3-' names no layers"},
      {"{default: 4, layers: {all: 8}}", "'all' names no layers"},
      {"{default: 4, layers: {0-10000: 8}}", "'0-10000' names no layers"},
      {"{default: 4, layers: {0-4: 8, 4: 2}}", "k_bits gives layer 4 two values"},
      {"{default: 4, layers: {0: 8, 0: 8}}", "0 stands twice in k_bits.layers"},
      {"{default: 4, layers: {0: 9}}", "rounding.k_bits of layers 0 = 9 is outside [1, 8]"},
      {"{default: 9, layers: {0: 8}}", "rounding.k_bits = 9 is outside [1, 8]"},
      {"{default: 4, layers: {30: 8}}", "rounding.k_bits names layer 30; the model has layers 0 to 29"},
  }));
  check_error(sweep_with("schemes: [{name: rounding, k_bits: " + value + "}]"), "night.yaml:3: ");
  check_error(sweep_with("schemes: [{name: rounding, k_bits: " + value + "}]"), message);
  check_error(sweep_with("schemes: [{name: rounding, v_bits: {default: 2, layers: {0: 1}}}]"),
              "rounding.v_bits is a map of layers; it has one value for all layers");
  check_error(sweep_with("tasks: [{name: search, tokens: {default: 64, layers: {0: 32}}}]"),
              "night.yaml:2: tokens is a map where a single value belongs");
}

TEST_CASE("more points than anyone can mean are refused before they fill the memory") {
  std::string thousand;
  for (int i = 0; i < 1000; ++i) thousand += (i > 0 ? "," : "") + std::to_string(i + 16);
  check_error(sweep_with("tasks: [{name: search, tokens: [" + thousand + "], samples: [" + thousand + "]}]"),
              "night.yaml:2: this entry makes more than 10000 configurations");
  check_error(sweep_with("tasks: [{name: search, tokens: [" + thousand + "]}]") + "seed: [" + thousand + "]\n",
              "night.yaml: the sweep has 1000000 points; allowed: up to 100000");
}

TEST_CASE("an error of the model's name reaches the caller") {
  SweepTables unknown = tables();
  const SweepTables failing{unknown.schemes, unknown.tasks,
                            [](const std::string&) -> std::string { throw DataError("no such model"); }};
  CHECK_THROWS_AS(parse_sweep(sweep_with("seed: 1"), "x.yaml", failing), DataError);
}

TEST_CASE("a sweep is loaded from its file and named after it") {
  const testing::TemporaryDirectory root;
  const auto file = root.path() / "first-night.yaml";
  testing::write_text(file, sweep_with("seed: 5"));
  const Sweep sweep = load_sweep(file, tables());
  CHECK(sweep.name == "first-night");
  CHECK(sweep.file == file);
  CHECK(sweep.groups[0].seed == 5);
  CHECK_THROWS_AS(load_sweep(root.path() / "none.yaml", tables()), DataError);
  CHECK_THROWS_AS(load_sweep(root.path(), tables()), DataError);
}

TEST_CASE("a scheme of its own file is read like an entry of a sweep") {
  const testing::TemporaryDirectory root;
  const auto file = root.path() / "scheme.yaml";
  testing::write_text(file, "name: rounding\nk_bits: {default: 4, layers: {0: 8}}\nnote: x\n");
  SchemeText scheme = load_scheme(file, schemes());
  CHECK(scheme.entry == &schemes()[1]);
  scheme.entry->make(scheme.params);
  CHECK(scheme.params.resolved() == Fields{{"k_bits", "{default: 4, layers: {0: 8}}"}, {"v_bits", "4"}, {"note", "x"}});
  testing::write_text(file, "name: rounding\nk_bits: 9\n");
  SchemeText wrong = load_scheme(file, schemes());
  CHECK_THROWS_MATCHES(wrong.entry->make(wrong.params), ConfigError,
                       MessageMatches(ContainsSubstring("scheme.yaml:2: rounding.k_bits = 9 is outside [1, 8]")));
  CHECK_THROWS_AS(load_scheme(root.path() / "none.yaml", schemes()), DataError);
}

TEST_CASE("what is wrong in a scheme's file is named with its line") {
  const auto [text, message] = GENERATE(table<std::string, std::string>({
      {"name: rounding\nk_bits: [4, 8]\n", "scheme.yaml:2: k_bits is a list; here a scheme has one configuration"},
      {"name: rounding\nk_bits: [4]\n", "scheme.yaml:2: k_bits is a list"},
      {"name: [rounding]\n", "scheme.yaml:1: name is a list"},
      {"name: roundin\n", "scheme.yaml:1: scheme 'roundin' is not known; did you mean 'rounding'?"},
      {"- {name: rounding}\n", "scheme.yaml: a scheme is one map with a name, as in {name: uniform, k_bits: 2}"},
      {"k_bits: 4\n", "scheme.yaml: a scheme is one map with a name"},
      {"", "scheme.yaml: a scheme is one map with a name"},
      {"name: rounding\nname: plain\n", "scheme.yaml:2: name stands twice in a scheme, first on line 1"},
      {"name: rounding\nk_bits: {default: 4}\n", "scheme.yaml:2: k_bits: a map of layers reads"},
      {"name: rounding\n\tk_bits: 4\n", "scheme.yaml:2: not YAML: "},
  }));
  const testing::TemporaryDirectory root;
  testing::write_text(root.path() / "scheme.yaml", text);
  INFO(text);
  CHECK_THROWS_MATCHES(load_scheme(root.path() / "scheme.yaml", schemes()), ConfigError,
                       MessageMatches(ContainsSubstring(message)));
}

TEST_CASE("help shows each plug-in with its parameters as declared") {
  CHECK(scheme_help(schemes()) ==
        "plain: nothing happens\n"
        "  no parameters\n"
        "\n"
        "rounding: codes are rounded\n"
        "  parameter  type            default  allowed\n"
        "  k_bits     integer or map  4        [1, 8]   bits of a key\n"
        "  v_bits     integer         4        [1, 8]   bits of a value\n"
        "  note       text            \"\"                anything\n");
  CHECK_THAT(task_help(tasks()),
             ContainsSubstring("  tokens     integer  required  [16, 65536]  length of the context\n"));
}

TEST_CASE("every plug-in of the program describes itself") {
  for (const SchemeEntry& entry : scheme_table())
    CHECK_THAT(scheme_help({entry}), ContainsSubstring(entry.name + ": "));
  for (const TaskEntry& entry : task_table()) CHECK_THAT(task_help({entry}), ContainsSubstring(entry.name + ": "));
}

}  // namespace kvsweep
