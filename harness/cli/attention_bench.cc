#include "harness/cli/attention_bench.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>

#include "harness/attention/attention.h"
#include "harness/attention/fused.h"
#include "harness/core/error.h"
#include "harness/core/stopwatch.h"
#include "harness/report/text_table.h"
#include "harness/run/interrupt.h"
#include "harness/run/provenance.h"
#include "harness/run/runner.h"
#include "schemes/codec/affine.h"
#include "schemes/codec/exact.h"

namespace kvsweep {
namespace {

struct Arguments {
  int64_t kv_heads = 2, groups = 4, dim = 128, queries = 1;
  std::vector<int64_t> tokens = {4096, 16384, 32768};
  std::string kernels = "best";
  int rounds = 9;
  int64_t megabytes = 160;
};

// How K and V of one side are stored. No bits: float32.
struct Storage {
  std::string name;
  int64_t bits = 0;
  GroupAxis key_axis = GroupAxis::kToken;
  at::ScalarType arithmetic = at::kFloat;
};

enum class Path { kFused, kReference, kAten };

struct Contender {
  std::string name;
  Storage storage;
  Path path;
};

const std::vector<Contender> kContenders = {
    {"float32, fused", {"float32"}, Path::kFused},
    {"float32, matrix products", {"float32"}, Path::kReference},
    {"float32, ATen's flash", {"float32"}, Path::kAten},
    {"K4V4, decoded first", {"K4V4", 4}, Path::kReference},
    {"K8V8, fused", {"K8V8", 8}, Path::kFused},
    {"K4V4, fused", {"K4V4", 4}, Path::kFused},
    {"K3V3, fused", {"K3V3", 3}, Path::kFused},
    {"K2V2, fused", {"K2V2", 2}, Path::kFused},
    {"K4V4, keys by channel", {"K4V4c", 4, GroupAxis::kChannel}, Path::kFused},
    {"K2V2, fp16 arithmetic (KIVI)", {"K2V2h", 2, GroupAxis::kChannel, at::kHalf}, Path::kFused},
};
constexpr size_t kFloats = 0, kProducts = 1, kFlash = 2, kDecoded = 3;

struct Stored {
  std::unique_ptr<Codec> keys, values;
  std::vector<KvView> views;  // as many as one step's layers, so that none is still in a cache when its turn comes
  double bytes_a_token = 0;   // of one kv-head
};

Stored store(const Storage& storage, const Arguments& arguments, int64_t tokens) {
  Stored stored;
  if (storage.bits == 0) {
    stored.keys = std::make_unique<ExactCodec>(at::kFloat);
    stored.values = std::make_unique<ExactCodec>(at::kFloat);
  } else {
    AffineOptions options{storage.bits, 64};
    options.arithmetic = storage.arithmetic;
    stored.values = std::make_unique<AffineCodec>(options, arguments.dim);
    options.axis = storage.key_axis;
    stored.keys = std::make_unique<AffineCodec>(options, arguments.dim);
  }
  int64_t bytes = 0;
  while (stored.views.empty() || bytes < arguments.megabytes << 20) {
    KvView view;
    for (const bool keys : {true, false}) {
      KvRun& run = (keys ? view.keys : view.values).emplace_back();
      run.codec = (keys ? stored.keys : stored.values).get();
      run.tokens = tokens;
      run.parts = run.codec->encode(at::randn({arguments.kv_heads, tokens, arguments.dim}));
      for (const at::Tensor& part : run.parts) bytes += static_cast<int64_t>(part.nbytes());
    }
    stored.views.push_back(std::move(view));
  }
  stored.bytes_a_token = static_cast<double>(bytes) / static_cast<double>(stored.views.size()) /
                         static_cast<double>(arguments.kv_heads * tokens);
  return stored;
}

const cpu::Kernels& kernels_named(const std::string& name, int64_t dim) {
  const cpu::Kernels* kernels = name == "best"     ? best_kernels(dim)
                                : name == "avx512" ? cpu::avx512_kernels()
                                : name == "avx2"   ? cpu::avx2_kernels()
                                                   : cpu::portable_kernels();
  if (kernels == nullptr) throw ConfigError(fmt::format("--kernels {}: this CPU has none for --dim {}", name, dim));
  if (dim % kernels->dim_multiple != 0)
    throw ConfigError(
        fmt::format("--dim {} is not a multiple of {}, which --kernels {} need", dim, kernels->dim_multiple, name));
  return *kernels;
}

// ns for each cached token and kv-head.
double time_one(const Contender& contender, const Arguments& arguments, const KvView& view, const at::Tensor& q,
                const Rope& rope, const cpu::Kernels& kernels) {
  const int64_t tokens = view.tokens(), position = tokens - arguments.queries;
  Stopwatch watch(at::kCPU);
  at::Tensor out;
  switch (contender.path) {
    case Path::kFused:
      out = attend_fused(view, q, position, rope, kernels)->output;
      break;
    case Path::kReference:
      out = attend_reference(view, q, position, rope).output;
      break;
    case Path::kAten:
      out = at::scaled_dot_product_attention(q.unsqueeze(0), view.keys[0].parts[0].unsqueeze(0),
                                             view.values[0].parts[0].unsqueeze(0), {}, 0, false, {}, true);
      break;
  }
  const double ms = watch.ms();
  TORCH_CHECK(out.defined());
  return 1e6 * ms / static_cast<double>(tokens * arguments.kv_heads);
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

struct Limits {
  double products_ns = 0;  // of one fused multiply-add instruction of the kernels' width
  double read_gb_s = 0;
};

Limits measure_limits(const cpu::Kernels& kernels) {
  Limits limits{1e9, 0};
  const at::Tensor memory = at::ones({48 << 20});  // 192 MiB
  for (int i = 0; i < 5; ++i) {
    Stopwatch watch(at::kCPU);
    constexpr int64_t kInstructions = 24'000'000;
    kernels.multiply_and_add(kInstructions);
    limits.products_ns = std::min(limits.products_ns, 1e6 * watch.ms() / static_cast<double>(kInstructions));
    watch.restart();
    memory.sum();
    limits.read_gb_s = std::max(limits.read_gb_s, static_cast<double>(memory.nbytes()) / 1e6 / watch.ms());
  }
  return limits;
}

void bench_tokens(const Arguments& arguments, int64_t tokens, const Rope& rope, const cpu::Kernels& kernels) {
  std::vector<Stored> stored;
  for (const Contender& contender : kContenders) {
    const bool again = !stored.empty() && contender.storage.bits == 0;  // one set of float32 serves all
    stored.push_back(again ? Stored{} : store(contender.storage, arguments, tokens));
    if (again) stored.back().bytes_a_token = stored[kFloats].bytes_a_token;
  }
  const at::Tensor q = at::randn({arguments.kv_heads * arguments.groups, arguments.queries, arguments.dim});
  std::vector<std::vector<double>> times(kContenders.size());
  std::vector<size_t> turn(kContenders.size());
  Limits limits{1e9, 0};
  for (int round = -1; round < arguments.rounds; ++round) {
    check_interrupt();
    const Limits now = measure_limits(kernels);
    limits = {std::min(limits.products_ns, now.products_ns), std::max(limits.read_gb_s, now.read_gb_s)};
    for (size_t i = 0; i < kContenders.size(); ++i) {
      const Stored& from = stored[i].views.empty() ? stored[kFloats] : stored[i];
      size_t& at = from.views.empty() ? turn[i] : turn[&from - stored.data()];
      double best = 1e30;
      for (int repeat = 0; repeat < 3; ++repeat)
        best =
            std::min(best, time_one(kContenders[i], arguments, from.views[at++ % from.views.size()], q, rope, kernels));
      if (round >= 0) times[i].push_back(best);
    }
  }
  TextTable table{{{"tokens", true},
                   {"attention", true},
                   {"B/token"},
                   {"ns/token min"},
                   {"median"},
                   {"GB/s"},
                   {"% of FMA limit"},
                   {"x float32 fused"},
                   {"x float32 products"},
                   {"x ATen flash"},
                   {"x decoded first"}},
                  {}};
  const double width = static_cast<double>(kernels.dim_multiple) / 2;
  const double products =
      2 * static_cast<double>(arguments.dim * arguments.groups * arguments.queries) / width * limits.products_ns;
  for (size_t i = 0; i < kContenders.size(); ++i) {
    const auto ratio = [&](size_t base) {
      std::vector<double> ratios;
      for (size_t round = 0; round < times[i].size(); ++round) ratios.push_back(times[base][round] / times[i][round]);
      return fmt::format("{:.2f}", median(ratios));
    };
    const double least = *std::min_element(times[i].begin(), times[i].end());
    table.rows.push_back(
        {fmt::format("{}", tokens), kContenders[i].name, fmt::format("{:.0f}", stored[i].bytes_a_token),
         fmt::format("{:.2f}", least), fmt::format("{:.2f}", median(times[i])),
         fmt::format("{:.1f}", stored[i].bytes_a_token / least), fmt::format("{:.0f}", 100 * products / least),
         ratio(kFloats), ratio(kProducts), ratio(kFlash), ratio(kDecoded)});
  }
  fmt::print(
      "fused multiply-add {:.3f} ns an instruction of {:.0f} lanes ({:.0f} GFLOP/s), read {:.1f} GB/s, "
      "products alone {:.2f} ns a token and kv-head\n\n{}\n",
      limits.products_ns, width, 2 * width / limits.products_ns, limits.read_gb_s, products, to_terminal(table));
  std::fflush(stdout);
}

int bench(const Arguments& arguments) {
  const c10::InferenceMode no_autograd;
  watch_interrupts();
  if (arguments.dim % 64 != 0)
    throw ConfigError(fmt::format("--dim {} is not a multiple of 64, the group of the codecs", arguments.dim));
  const cpu::Kernels& kernels = kernels_named(arguments.kernels, arguments.dim);
  const Rope rope(std::vector<float>(static_cast<size_t>(arguments.dim / 2), 1.0F), 1.0F, at::kCPU, 1);
  at::manual_seed(1);
  fmt::print(
      "{} kv-heads x {} query heads, D = {}, {} queries, {} lanes, {} threads, kvsweep {}; ns a cached token and "
      "kv-head, ratios are medians of {} rounds, at least {} MiB a side in turn\n\n",
      arguments.kv_heads, arguments.groups, arguments.dim, arguments.queries, kernels.dim_multiple / 2,
      at::get_num_threads(), program_version(), arguments.rounds, arguments.megabytes);
  for (const int64_t tokens : arguments.tokens) bench_tokens(arguments, tokens / 64 * 64, rope, kernels);
  return kExitOk;
}

}  // namespace

void add_attention_bench(CLI::App& app, std::function<int()>& action) {
  static Arguments arguments;
  CLI::App* command = app.add_subcommand(
      "bench-attention", "Time of one step's attention over packed tokens, beside float32 and beside decoding first");
  command->add_option("--kv-heads", arguments.kv_heads, "kv-heads (default: 2)")->check(CLI::Range(1, 1024));
  command->add_option("--groups", arguments.groups, "Query heads of each (default: 4)")->check(CLI::Range(1, 64));
  command->add_option("--dim", arguments.dim, "Head dim, a multiple of 64 (default: 128)")->check(CLI::Range(64, 1024));
  command->add_option("--queries", arguments.queries, "Queries of a call (default: 1)")->check(CLI::Range(1, 4096));
  command->add_option("--tokens", arguments.tokens, "Cached tokens (default: 4096,16384,32768)")
      ->delimiter(',')
      ->check(CLI::Range(4096, 1 << 22));
  command->add_option("--kernels", arguments.kernels, "avx512, avx2, portable, or best (default)")
      ->check(CLI::IsMember({"best", "avx512", "avx2", "portable"}));
  command->add_option("--rounds", arguments.rounds, "Turns of every side (default: 9)")->check(CLI::Range(1, 1000));
  command
      ->add_option("--mib", arguments.megabytes, "Memory that each side goes through, beyond any cache (default: 160)")
      ->check(CLI::Range(1, 1 << 16));
  command->callback([&] {
    action = [] {
      try {
        return bench(arguments);
      } catch (const Interrupted&) {
        return kExitInterrupted;
      }
    };
  });
}

}  // namespace kvsweep
