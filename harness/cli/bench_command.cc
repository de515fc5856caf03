#include "harness/cli/bench_command.h"

#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "harness/cli/bench_tables.h"
#include "harness/core/error.h"
#include "harness/run/interrupt.h"
#include "harness/run/one_pass_bench.h"
#include "harness/run/progress.h"
#include "harness/run/provenance.h"
#include "harness/run/runner.h"
#include "harness/run/sweep.h"
#include "models/load_model.h"
#include "tasks/data/locate.h"

namespace kvsweep {
namespace {

using Format = std::function<std::string(const TextTable&)>;
const std::map<std::string, Format> kFormats = {{"terminal", to_terminal}, {"markdown", to_markdown}, {"csv", to_csv}};

struct BenchArguments {
  std::string sweep, format = "terminal";
  std::vector<int64_t> encode_tokens = {2048}, decode_tokens = {1024, 4096};
  std::vector<int64_t> itl_tokens = {256, 512, 1024, 2048, 4096};
  std::string text;
  int64_t one_pass_tokens = 2048;
  int64_t concurrency_tokens = 1024, budget = int64_t{256} << 20, max_rows = 64, group = 64;
  int repeats = 5;
};

// The schemes of one model of a sweep.
struct Bench {
  const BenchArguments& arguments;
  const Llama& llama;
  const Tokenizer& tokenizer;
  std::vector<const Scheme*> schemes;
  std::vector<BenchRow> rows;

  void print(const std::string& title, const TextTable& table) const {
    fmt::print("{}{}\n{}\n", arguments.format == "csv" ? "# " : "", title, kFormats.at(arguments.format)(table));
    std::fflush(stdout);
  }
};
using Body = std::function<void(const Bench&)>;

int64_t longest(const std::vector<int64_t>& tokens) {
  return *std::max_element(tokens.begin(), tokens.end());
}

void encode(const Bench& bench) {
  const std::vector<int64_t>& lengths = bench.arguments.encode_tokens;
  const BenchContext context(bench.llama, longest(lengths), 0, "--tokens");
  for (const int64_t tokens : lengths) {
    const EncodeBench result = bench_encode(context, bench.schemes, tokens, bench.arguments.repeats);
    bench.print(fmt::format("encode: {} tokens, prefill {:.1f} ms ({:.1f}-{:.1f})", tokens, result.prefill_ms.median,
                            result.prefill_ms.low, result.prefill_ms.high),
                encode_table(result, bench.rows));
  }
}

void decode(const Bench& bench) {
  const BenchContext context(bench.llama, longest(bench.arguments.decode_tokens), 0, "--tokens");
  std::vector<DecodeBench> results;
  for (const int64_t tokens : bench.arguments.decode_tokens)
    results.push_back(bench_decode(context, bench.schemes, tokens, bench.arguments.repeats));
  bench.print("decode: attention of one query, all layers", decode_table(results, bench.rows));
}

void check_lengths(const std::vector<int64_t>& lengths) {
  if (std::set(lengths.begin(), lengths.end()).size() < 2)
    throw ConfigError(
        fmt::format("--tokens {}: a line over the context needs two lengths at least", fmt::join(lengths, ",")));
}

void itl(const Bench& bench) {
  const std::vector<int64_t>& lengths = bench.arguments.itl_tokens;
  check_lengths(lengths);
  const BenchContext context(bench.llama, longest(lengths), kStepTokens, "--tokens");
  const std::vector<ItlCost> costs = bench_itl(context, bench.schemes, lengths, bench.arguments.repeats);
  bench.print("itl: a decoded token of one sequence after so many", itl_table(costs, bench.rows));
  bench.print("itl: ms = intercept + slope * tokens", itl_fit_table(costs, bench.rows));
}

void factorial(const Bench& bench) {
  const std::vector<int64_t>& lengths = bench.arguments.itl_tokens;
  check_lengths(lengths);
  const int64_t group = bench.arguments.group, dim = bench.llama.config().head_dim;
  if (dim % group != 0)
    throw ConfigError(fmt::format("--group {}: does not divide the model's head dim {}", group, dim));
  const BenchContext context(bench.llama, longest(lengths), kStepTokens, "--tokens");
  const BitFactorial result = bench_factorial(context, lengths, group, bench.arguments.repeats);
  bench.print(
      fmt::format("factorial: uniform, group {}, {} tokens; 16: full precision", group, fmt::join(lengths, ",")),
      factorial_table(result));
  bench.print("factorial: slope = c0 + cK * (K eff. bits) + cV * (V eff. bits)", factorial_fit_table(result));
}

void concurrency(const Bench& bench) {
  const int64_t tokens = bench.arguments.concurrency_tokens;
  const BenchContext context(bench.llama, tokens, kStepTokens, "--tokens");
  const auto costs = bench_concurrency(context, bench.schemes, tokens, bench.arguments.budget, bench.arguments.max_rows,
                                       bench.arguments.repeats);
  bench.print(fmt::format("concurrency: sequences of {} tokens in {} (caches alone, weights excluded), batches of at "
                          "most {} rows",
                          tokens, human_bytes(static_cast<double>(bench.arguments.budget)), bench.arguments.max_rows),
              concurrency_table(costs, bench.rows, tokens));
}

void one_pass(const Bench& bench) {
  const BenchArguments& arguments = bench.arguments;
  const std::vector<int32_t> ids = encode_with_bos(bench.tokenizer, read_utf8(arguments.text), /*parse_special=*/false);
  const auto tokens = static_cast<size_t>(arguments.one_pass_tokens);
  if (ids.size() < tokens)
    throw ConfigError(
        fmt::format("--text {}: has {} tokens, --tokens asks for {}", arguments.text, ids.size(), tokens));
  if (arguments.one_pass_tokens > bench.llama.config().max_positions)
    throw ConfigError(fmt::format("--tokens {}: the model allows {}", tokens, bench.llama.config().max_positions));
  std::vector<OnePassCost> costs;
  for (const Scheme* scheme : bench.schemes)
    scheme->make_cache(bench.llama.cache_context(0));  // refuses before minutes pass
  for (const Scheme* scheme : bench.schemes)
    costs.push_back(bench_one_pass(bench.llama, *scheme, {ids.begin(), ids.begin() + arguments.one_pass_tokens}));
  bench.print(fmt::format("one-pass: {} tokens scored as_decoded, in one pass and token by token", tokens),
              one_pass_table(costs, bench.rows));
}

void all(const Bench& bench) {
  for (const auto body : {encode, decode, itl, factorial, concurrency}) body(bench);
}

std::string parameters(const Point& point) {
  std::string text;
  for (const auto& [key, value] : point.scheme_params)
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", key, value);
  return text;
}

void run(const BenchArguments& arguments, const Body& body) {
  const c10::InferenceMode no_autograd;
  watch_interrupts();
  const SweepTables tables{scheme_table(), task_table(),
                           [](const std::string& argument) { return resolve_model(argument).name; }};
  const Sweep sweep = load_sweep(arguments.sweep, tables);
  std::string before;
  for (const SweepGroup& group : sweep.groups) {
    if (group.model == before) continue;  // models vary slowest; every group of one has the same schemes
    before = group.model;
    const LoadedModel model = load_model(resolve_model(group.model));
    Bench bench{arguments, *model.llama, *model.tokenizer, {}, {}};
    for (const SweepPoint& point : group.points) {
      bench.schemes.push_back(point.scheme.get());
      bench.rows.push_back({point.point.scheme, parameters(point.point)});
    }
    fmt::print("{}{}, {}, {} threads, kvsweep {}, medians and quartiles of {} turns\n\n",
               arguments.format == "csv" ? "# " : "", model.spec.name, model.llama->options().device.str(),
               at::get_num_threads(), program_version(), arguments.repeats);
    body(bench);
  }
}

void add_common(CLI::App* command, BenchArguments& arguments) {
  command->add_option("sweep", arguments.sweep, "A sweep's YAML file: its models and schemes are used");
  command->add_option("--repeats", arguments.repeats, "Turns to take the median of (default: 5)")
      ->check(CLI::Range(1, 1000));
  command->add_option("--format", arguments.format, "terminal, markdown or csv")->check([](const std::string& given) {
    return kFormats.contains(given) ? std::string() : "'" + given + "' is not one of terminal, markdown, csv";
  });
}

void add_lengths(CLI::App* command, std::vector<int64_t>& tokens) {
  command
      ->add_option("--tokens", tokens,
                   fmt::format("Lengths of the context, as in 512,1024 (default: {})", fmt::join(tokens, ",")))
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::Range(1, 1 << 24));
}

}  // namespace

void add_bench(CLI::App& app, std::function<int()>& action) {
  static BenchArguments arguments;
  CLI::App* bench = app.add_subcommand("bench", "Time and bytes of each scheme of a sweep, alone; all of these");
  const auto start = [&action](const Body& body) {
    if (arguments.sweep.empty()) throw CLI::RequiredError("sweep");
    action = [body] {
      try {
        run(arguments, body);
        return kExitOk;
      } catch (const Interrupted&) {
        return kExitInterrupted;
      }
    };
  };
  const auto add = [&](const char* name, const char* help, const Body& body) {
    CLI::App* command = bench->add_subcommand(name, help);
    add_common(command, arguments);
    command->callback([start, body] { start(body); });
    return command;
  };
  add_common(bench, arguments);
  bench->callback([bench, start] {
    if (bench->get_subcommands().empty()) start(all);
  });
  add_lengths(add("encode", "Storing a context, beside its prefill", encode), arguments.encode_tokens);
  add_lengths(add("decode", "Attention of one query over a context", decode), arguments.decode_tokens);
  add_lengths(add("itl", "A decoded token of one sequence, as a line over the context", itl), arguments.itl_tokens);
  CLI::App* bits =
      add("factorial", "What a bit of keys and a bit of values cost a token: uniform at {16, 8, 4, 2}^2", factorial);
  add_lengths(bits, arguments.itl_tokens);
  bits->add_option("--group", arguments.group, "Values that share a scale (default: 64)")->check(CLI::Range(2, 1024));
  CLI::App* scored =
      add("one-pass", "Scoring a text in one pass, against token by token: time and difference", one_pass);
  scored->add_option("--text", arguments.text, "A text file")->required();
  scored->add_option("--tokens", arguments.one_pass_tokens, "Its first so many tokens (default: 2048)")
      ->check(CLI::Range(2, 1 << 24));
  CLI::App* batch =
      add("concurrency", "Sequences that fit a budget of bytes, and what a batch of them decodes", concurrency);
  batch->add_option("--tokens", arguments.concurrency_tokens, "Length of a sequence (default: 1024)")
      ->check(CLI::Range(1, 1 << 24));
  batch->add_option("--budget", arguments.budget, "Bytes for caches, as in 1GiB (default: 256MiB)")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 50));
  batch->add_option("--max-rows", arguments.max_rows, "Rows of a batch at most (default: 64)")
      ->check(CLI::Range(1, 1 << 16));
}

}  // namespace kvsweep
