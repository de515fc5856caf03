// contract: what the engine promises of batches, for every scheme: a row is bit for bit the row alone, one pass equals
// token-by-token decoding, checking full precision's text in chunks changes nothing; faults stay in their row.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <atomic>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>
#include <mutex>
#include <new>

#include "harness/run/engine.h"
#include "harness/run/reference.h"
#include "schemes/codec/affine.h"
#include "schemes/parts/streamed_cache.h"
#include "tests/support/torch/evaluate.h"
#include "tests/support/torch/scheme_probe.h"
#include "tests/support/torch/tiny_model.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep::testing {
namespace {

// Head dim 64, which every scheme takes.
LlamaConfig wide_config() {
  LlamaConfig config = tiny_config();
  config.head_dim = 64;
  return config;
}

const Llama& wide_llama() {
  static const Llama llama = tiny_llama(wide_config());
  return llama;
}

class NumberTokenizer : public Tokenizer {
 public:
  std::vector<int32_t> ends;
  std::vector<int32_t> encode(std::string_view, bool) const override { return {}; }
  std::string decode(const std::vector<int32_t>& ids, bool) const override {
    std::string text;
    for (const int32_t id : ids) text += std::to_string(id) + " ";
    return text;
  }
  int64_t vocab_size() const override { return 97; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::vector<int32_t> end_tokens() const override { return ends; }
  bool adds_bos() const override { return false; }
  std::string piece(int32_t id) const override { return std::to_string(id); }
};

// Every scheme of the table with its defaults, and with a short window where it has one.
std::vector<SchemeCase> cases() {
  static const std::vector<SchemeCase> all = [] {
    std::vector<SchemeCase> out;
    const CacheContext context = wide_llama().cache_context(64);
    for (const SchemeEntry& entry : scheme_table()) {
      const auto usable = usable_cases(entry, {}, context);
      out.insert(out.end(), usable.begin(), usable.end());
      for (const ParamDeclaration& declared : declarations_of(entry))
        for (const char* key : {"window", "residual"})
          if (declared.name == key) {
            const auto windowed = usable_cases(entry, {{key, "32"}}, context);
            out.insert(out.end(), windowed.begin(), windowed.end());
          }
    }
    return out;
  }();
  return all;
}

struct Schemes {
  std::vector<std::unique_ptr<Scheme>> owned;
  std::vector<const Scheme*> pointers;
  std::vector<std::string> labels;
  Schemes() {
    for (const SchemeCase& one : cases()) {
      owned.push_back(one.scheme());
      pointers.push_back(owned.back().get());
      labels.push_back(one.label());
    }
  }
};

Sample sample_of(const std::string& kind, int64_t context, int64_t query, uint64_t seed) {
  Sample sample;
  sample.id = kind + std::to_string(seed);
  sample.context = random_tokens(context, 97, seed);
  sample.query = random_tokens(query, 97, seed + 1000);
  if (kind == "generate") sample.max_new_tokens = 24;
  if (kind == "choose")
    sample.choices = {random_tokens(1, 97, seed + 1), random_tokens(3, 97, seed + 2), random_tokens(2, 97, seed + 3)};
  return sample;
}

std::vector<Sample> mixed_samples() {
  return {sample_of("generate", 150, 9, 1), sample_of("score", 90, 40, 2),  sample_of("choose", 131, 5, 3),
          sample_of("generate", 0, 70, 4),  sample_of("score", 40, 120, 5), sample_of("generate", 97, 1, 6)};
}

void check_same(const RowResult& a, const RowResult& b) {
  CHECK(a.output.tokens == b.output.tokens);
  CHECK(a.output.text == b.output.text);
  CHECK(a.output.nll == b.output.nll);
  REQUIRE(a.output.choices.size() == b.output.choices.size());
  for (size_t i = 0; i < a.output.choices.size(); ++i) {
    CHECK(a.output.choices[i].log_likelihood == b.output.choices[i].log_likelihood);
    CHECK(a.output.choices[i].greedy == b.output.choices[i].greedy);
  }
  CHECK(a.kl == b.kl);
  CHECK(a.top1_flips == b.top1_flips);
  CHECK(a.first_divergence == b.first_divergence);
  CHECK(a.compressed_reads == b.compressed_reads);
  CHECK(a.bytes.live == b.bytes.live);
  CHECK(a.bytes.tokens == b.bytes.tokens);
}

// Log-probabilities of the tokens after each of `tokens`, fed one at a time from an empty cache.
std::vector<at::Tensor> streamed(const Scheme& scheme, const std::vector<int32_t>& tokens) {
  const Llama& llama = wide_llama();
  const auto cache = scheme.make_cache(llama.cache_context(std::ssize(tokens)));
  std::vector<at::Tensor> out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    Row row;
    row.cache = cache.get();
    row.tokens = {tokens[i]};
    row.position = static_cast<int64_t>(i);
    row.slabs = {1};
    out.push_back(at::log_softmax(llama.logits(llama.step({&row, 1})).squeeze(0), -1));
  }
  return out;
}

Engine engine_with(const Tokenizer& tokenizer) {
  static const Reference reference = find_reference();
  return Engine(wide_llama(), tokenizer, *reference.scheme);
}

}  // namespace

TEST_CASE("a row is bit for bit the row alone, whatever scheme and sample it is batched with") {
  const c10::InferenceMode guard;
  if (!wide_llama().row_invariant()) SKIP("this CPU has no kernels that keep rows apart");
  const NumberTokenizer tokenizer;
  const Engine engine = engine_with(tokenizer);
  const Schemes schemes;
  const std::vector<Sample> samples = mixed_samples();
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  const auto together = evaluate_all(engine, samples, {}, schemes.pointers);
  EngineOptions few;
  few.rows = 3;
  const auto in_threes = evaluate_all(engine, samples, {}, schemes.pointers, few);
  at::set_num_threads(threads);
  EngineOptions one;
  one.rows = 1;
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t scheme = 0; scheme < schemes.pointers.size(); ++scheme) {
      INFO(samples[i].id << ", " << schemes.labels[scheme]);
      const auto alone = evaluate(engine, samples[i], {}, {schemes.pointers[scheme]}, one);
      check_same(together[i][0], alone[0]);
      check_same(together[i][scheme + 1], alone[1]);
      check_same(in_threes[i][scheme + 1], alone[1]);
    }
}

TEST_CASE("attention drift is that of weights over the decoded keys, and none for full precision") {
  const c10::InferenceMode guard;
  const NumberTokenizer tokenizer;
  const Engine engine = engine_with(tokenizer);
  const auto two = make_scheme("uniform", {{"k_bits", "2"}, {"v_bits", "2"}, {"group", "16"}});
  const auto eight = make_scheme("uniform", {{"k_bits", "8"}, {"v_bits", "8"}, {"group", "16"}});
  EngineOptions options;
  options.attention_layers = {0, 1};
  const View view = GENERATE(View{}, View{.as_decoded = true});
  const auto rows = evaluate(engine, sample_of("score", 90, 30, 25), view, {two.get(), eight.get()}, options);
  for (const RowResult& row : rows) REQUIRE(row.attention.has_value());
  CHECK(rows[0].attention->kl == 0);
  CHECK(rows[0].attention->overlap == 1);
  CHECK(rows[0].attention->oldest == rows[0].attention->full_oldest);
  CHECK(rows[1].attention->full_oldest == rows[0].attention->full_oldest);
  CHECK(rows[1].attention->kl > 10 * rows[2].attention->kl);
  CHECK(rows[2].attention->kl > 0);
  CHECK(rows[1].attention->overlap < rows[2].attention->overlap);
  CHECK(rows[2].attention->overlap > 0.9);
  CHECK_FALSE(evaluate(engine, sample_of("score", 90, 30, 25), view, {two.get()})[1].attention.has_value());
}

TEST_CASE("where rows depend on their batch, full precision runs once more and tells how far it is from itself") {
  const c10::InferenceMode guard;
  const LlamaConfig config = wide_config();
  const Llama llama(config, TinyWeights(config), {.deterministic = false});
  CHECK_FALSE(llama.row_invariant());
  const NumberTokenizer tokenizer;
  const Reference reference = find_reference();
  const Engine engine(llama, tokenizer, *reference.scheme);
  const auto four = make_scheme("uniform", {{"k_bits", "4"}, {"v_bits", "4"}, {"group", "16"}});
  const std::vector<Sample> samples = mixed_samples();
  EngineWork work{{}, {}, {four.get(), reference.scheme.get()}, {}};
  for (const Sample& sample : samples) work.samples.push_back(&sample);
  int64_t seen = 0;
  engine.run(work, {}, [&](SampleOutcome&& outcome) {
    REQUIRE(outcome.rows.size() == 3);
    for (const RowOutcome& row : outcome.rows) CHECK(row.error.empty());
    REQUIRE(outcome.noise.has_value());
    CHECK(outcome.noise->kl.size() == outcome.rows[0].result.kl.size());
    for (const float kl : outcome.noise->kl) CHECK(std::abs(kl) < 1e-5);
    CHECK(outcome.noise->output.tokens == outcome.rows[0].result.output.tokens);
    check_same(outcome.rows[2].result, outcome.rows[0].result);  // lossless: the reference, not the noise row
    ++seen;
  });
  CHECK(seen == std::ssize(samples));
}

TEST_CASE("checking full precision's text in chunks gives what decoding gives") {
  const c10::InferenceMode guard;
  NumberTokenizer tokenizer;
  const Engine engine = engine_with(tokenizer);
  const Schemes schemes;
  std::vector<Sample> samples = {sample_of("generate", 150, 9, 11), sample_of("generate", 64, 3, 12),
                                 sample_of("generate", 130, 20, 13)};
  for (Sample& sample : samples) sample.max_new_tokens = 50;
  const View view = GENERATE(View{}, View{.as_decoded = true}, View{.chunk_tokens = 32});
  INFO(view.text());
  EngineOptions off;
  off.greedy_reuse = false;
  const auto with = evaluate_all(engine, samples, view, schemes.pointers);
  const auto without = evaluate_all(engine, samples, view, schemes.pointers, off);
  int64_t reused = 0, rolled_back = 0;
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t row = 1; row < with[i].size(); ++row) {
      INFO(samples[i].id << ", " << schemes.labels[row - 1]);
      const RowResult &a = with[i][row], &b = without[i][row];
      CHECK(a.output.tokens == b.output.tokens);
      CHECK(a.first_divergence == b.first_divergence);
      CHECK(a.top1_flips == b.top1_flips);
      CHECK(a.compressed_reads == b.compressed_reads);
      CHECK(a.bytes.by_role == b.bytes.by_role);
      REQUIRE(a.kl.size() == b.kl.size());
      for (size_t j = 0; j < a.kl.size(); ++j) CHECK(a.kl[j] == Catch::Approx(b.kl[j]).margin(2e-5));
      CHECK(b.reused_tokens == 0);
      reused += a.reused_tokens;
      rolled_back += a.first_divergence > 0;
    }
  CHECK(reused > 100);
  CHECK(rolled_back > 5);  // the test sees both ends of a chunk
}

TEST_CASE("a choice has the log-likelihood of its tokens, each after what comes before") {
  const c10::InferenceMode guard;
  const NumberTokenizer tokenizer;
  const Engine engine = engine_with(tokenizer);
  const auto scheme = make_scheme("uniform", {{"k_bits", "3"}, {"v_bits", "3"}, {"group", "16"}});
  Sample sample = sample_of("choose", 60, 7, 31);
  const RowResult result = evaluate(engine, sample, {.as_decoded = true}, {scheme.get()})[1];
  REQUIRE(result.output.choices.size() == sample.choices.size());
  for (size_t i = 0; i < sample.choices.size(); ++i) {
    std::vector<int32_t> all = sample.context;
    all.insert(all.end(), sample.query.begin(), sample.query.end());
    const size_t before = all.size();
    all.insert(all.end(), sample.choices[i].begin(), sample.choices[i].end());
    const auto expected = streamed(*scheme, all);
    double sum = 0;
    bool greedy = true;
    for (size_t j = 0; j < sample.choices[i].size(); ++j) {
      const at::Tensor& log_probs = expected[before - 1 + j];
      sum += log_probs[sample.choices[i][j]].item<double>();
      greedy = greedy && log_probs.argmax().item<int64_t>() == sample.choices[i][j];
    }
    CHECK(result.output.choices[i].log_likelihood == Catch::Approx(sum).margin(1e-4));
    CHECK(result.output.choices[i].greedy == greedy);
  }
  // The most likely continuation is greedy.
  Sample text = sample;
  text.choices.clear();
  text.max_new_tokens = 3;
  sample.choices = {evaluate(engine, text, {}, {})[0].output.tokens, {5, 6}};
  const Output chosen = evaluate(engine, sample, {}, {})[0].output;
  CHECK(chosen.choices[0].greedy);
  CHECK_FALSE(chosen.choices[1].greedy);
}

TEST_CASE("sampled texts are a function of the sample's seed, and schemes draw the same numbers") {
  const c10::InferenceMode guard;
  const NumberTokenizer tokenizer;
  const Engine engine = engine_with(tokenizer);
  const auto eight = make_scheme("uniform", {{"k_bits", "8"}, {"v_bits", "8"}, {"group", "16"}});
  Sample sample = sample_of("generate", 60, 7, 41);
  const auto greedy = evaluate(engine, sample, {}, {})[0].output.tokens;
  sample.sampling = {.temperature = 1.0, .top_p = 1.0, .seed = 7};
  const auto first = evaluate(engine, sample, {}, {eight.get()});
  const auto again = evaluate(engine, sample, {}, {eight.get()});
  CHECK(first[0].output.tokens == again[0].output.tokens);
  CHECK(first[0].output.tokens != greedy);
  // Nearly the same distribution and the same numbers: the same tokens, until a number falls between the two.
  CHECK((first[1].first_divergence == -1 || first[1].first_divergence > 5));
  sample.sampling.seed = 8;
  CHECK(evaluate(engine, sample, {}, {})[0].output.tokens != first[0].output.tokens);
  sample.sampling.top_p = 1e-9;  // one token is left
  CHECK(evaluate(engine, sample, {}, {})[0].output.tokens == greedy);
}

TEST_CASE("the share of sampled tokens is their probability") {
  const c10::InferenceMode guard;
  const NumberTokenizer tokenizer;
  const Engine engine = engine_with(tokenizer);
  const double temperature = GENERATE(1.0, 0.5);
  Sample sample = sample_of("generate", 20, 4, 51);
  sample.max_new_tokens = 1;
  std::vector<int32_t> all = sample.context;
  all.insert(all.end(), sample.query.begin(), sample.query.end());
  const at::Tensor probs =
      at::softmax(streamed(*find_reference().scheme, all).back().to(at::kDouble) / temperature, -1);
  std::vector<Sample> draws(600, sample);
  std::vector<int64_t> counts(97, 0);
  for (size_t i = 0; i < draws.size(); ++i) draws[i].sampling = {temperature, 1.0, i};
  for (const auto& rows : evaluate_all(engine, draws, {}, {})) ++counts[static_cast<size_t>(rows[0].output.tokens[0])];
  double chi2 = 0;
  for (int64_t token = 0; token < 97; ++token) {
    const double expected = 600 * probs[token].item<double>();
    chi2 += std::pow(static_cast<double>(counts[static_cast<size_t>(token)]) - expected, 2) / expected;
  }
  CHECK(chi2 < 96 + 5 * std::sqrt(2 * 96.0));
}

TEST_CASE("samples whose rows still run keep no other sample waiting") {
  const c10::InferenceMode guard;
  const NumberTokenizer tokenizer;
  const Engine engine = engine_with(tokenizer);
  const auto scheme = make_scheme("uniform", {{"k_bits", "4"}, {"v_bits", "4"}, {"group", "64"}});
  std::vector<Sample> samples;
  for (uint64_t i = 0; i < 6; ++i) samples.push_back(sample_of("generate", 30, 3, 600 + i));
  for (Sample& sample : samples) sample.max_new_tokens = 80;
  const size_t slow = samples.size();
  for (uint64_t i = 0; i < 12; ++i) samples.push_back(sample_of("score", 30, 8, 700 + i));
  EngineWork work;
  for (const Sample& sample : samples) work.samples.push_back(&sample);
  work.schemes = {scheme.get()};
  EngineOptions options;
  options.greedy_reuse = false;   // every generated token is a step
  options.rows = GENERATE(0, 8);  // contexts of 32 samples are held, of 4
  std::vector<size_t> order;
  engine.run(work, options, [&](SampleOutcome&& outcome) { order.push_back(outcome.sample); });
  REQUIRE(order.size() == samples.size());
  for (size_t i = 0; i < order.size(); ++i) CHECK((order[i] >= slow) == (i < samples.size() - slow));
}

TEST_CASE("what a context has in common with one before it is not prefilled again, and the results are the same") {
  const c10::InferenceMode guard;
  const NumberTokenizer tokenizer;
  const Engine engine = engine_with(tokenizer);
  const auto scheme = make_scheme("kivi", {{"k_bits", "2"}, {"v_bits", "2"}, {"residual", "32"}});
  // What each has in common with a text: nothing, some of it, all of it and more tokens behind, all of it, a little,
  // too little to be worth it.
  const std::vector<int32_t> text = random_tokens(90, 97, 60);
  const std::vector<int64_t> common = {0, 64, 85, 90, 90, 90, 30, 8};
  std::vector<Sample> samples;
  for (size_t i = 0; i < common.size(); ++i) {
    samples.push_back(sample_of("score", i == 4 ? 95 : 90, 40, 61 + i));
    std::copy_n(text.begin(), common[i], samples[i].context.begin());
  }
  std::vector<const Sample*> all;
  for (const Sample& sample : samples) all.push_back(&sample);
  const bool budget = GENERATE(false, true);
  EngineWork work{all, {}, {scheme.get()}, {}};
  EngineOptions options;
  if (budget) {  // that has room for one row alone: what is held gives way
    work.cache_bytes = {1 << 20, 1 << 20};
    options.cache_budget = 1 << 20;
  }
  std::vector<SampleOutcome> outcomes(samples.size());
  engine.run(work, options, [&](SampleOutcome&& outcome) { outcomes[outcome.sample] = std::move(outcome); });
  std::vector<int64_t> prefilled;
  for (size_t i = 0; i < samples.size(); ++i) {
    INFO(i);
    const auto alone = evaluate(engine, samples[i], {}, {scheme.get()});
    check_same(outcomes[i].rows[0].result, alone[0]);
    check_same(outcomes[i].rows[1].result, alone[1]);
    prefilled.push_back(outcomes[i].prefilled_tokens);
  }
  if (!budget) CHECK(prefilled == std::vector<int64_t>{90, 90, 26, 5, 5, 0, 60, 90});
}

namespace {

// Counts what is asked of its caches and throws at the n-th time.
struct Fault {
  std::string at;
  int64_t after = 0;
  bool memory = false;
  int64_t alive_limit = 0;  // memory: only while more caches than this are alive
  std::map<std::string, int64_t> calls;
  int64_t alive = 0, peak = 0;  // caches
  std::mutex mutex;             // rows run side by side

  void live(int64_t caches) {
    const std::lock_guard lock(mutex);
    peak = std::max(peak, alive += caches);
  }

  void call(const std::string& name) {
    const std::lock_guard lock(mutex);
    if (alive_limit > 0 && alive <= alive_limit) return;
    if (++calls[name] <= after || name != at) return;
    if (memory) throw std::bad_alloc();
    throw std::runtime_error("broken " + name);
  }
};

class FaultyCache final : public KvCache {
 public:
  FaultyCache(std::unique_ptr<KvCache> inner, Fault& fault) : inner_(std::move(inner)), fault_(fault) {
    fault_.live(1);
  }
  ~FaultyCache() override { fault_.live(-1); }
  void append(int64_t layer, const KvSlab& slab) override {
    fault_.call("append");
    inner_->append(layer, slab);
  }
  void finish_context() override {
    fault_.call("finish_context");
    inner_->finish_context();
  }
  KvView read(int64_t layer) const override {
    fault_.call("read");
    return inner_->read(layer);
  }
  void account(ByteLedger& ledger) const override {
    fault_.call("account");
    inner_->account(ledger);
  }
  std::unique_ptr<KvCache> clone() const override {
    fault_.call("clone");
    return std::make_unique<FaultyCache>(inner_->clone(), fault_);
  }

 private:
  std::unique_ptr<KvCache> inner_;
  Fault& fault_;
};

class FaultyScheme final : public Scheme {
 public:
  FaultyScheme(std::unique_ptr<Scheme> inner, Fault& fault) : inner_(std::move(inner)), fault_(fault) {}
  SchemeTraits traits() const override { return inner_->traits(); }
  NominalBits nominal_bits(int64_t layers) const override { return inner_->nominal_bits(layers); }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    fault_.call("compressed_from");
    return inner_->compressed_from(context_tokens, tokens);
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    fault_.call("make_cache");
    return std::make_unique<FaultyCache>(inner_->make_cache(context), fault_);
  }

 private:
  std::unique_ptr<Scheme> inner_;
  Fault& fault_;
};

std::unique_ptr<Scheme> four_bits() {
  return make_scheme("uniform", {{"k_bits", "4"}, {"v_bits", "4"}, {"group", "16"}});
}

std::vector<SampleOutcome> outcomes(const std::vector<Sample>& samples, const std::vector<const Scheme*>& schemes,
                                    const EngineOptions& options = {}, std::vector<int64_t> cache_bytes = {}) {
  const NumberTokenizer tokenizer;
  EngineWork work{{}, {}, schemes, std::move(cache_bytes)};
  for (const Sample& sample : samples) work.samples.push_back(&sample);
  std::vector<SampleOutcome> all(samples.size());
  engine_with(tokenizer).run(work, options, [&](SampleOutcome&& one) {
    const size_t sample = one.sample;
    all[sample] = std::move(one);
  });
  return all;
}

}  // namespace

TEST_CASE("a scheme that throws, wherever it does, fails alone") {
  const c10::InferenceMode guard;
  const std::string at =
      GENERATE("make_cache", "append", "finish_context", "read", "clone", "account", "compressed_from");
  EngineOptions options;
  options.alone = GENERATE(false, true);
  const std::vector<Sample> samples = {sample_of("generate", 60, 7, 71), sample_of("choose", 60, 7, 72),
                                       sample_of("generate", 40, 9, 73)};
  Fault count;
  const FaultyScheme sound(four_bits(), count);
  const auto four = four_bits();
  const auto two = make_scheme("uniform", {{"k_bits", "2"}, {"v_bits", "2"}, {"group", "16"}});
  const auto expected = outcomes(samples, {two.get(), &sound, four.get()}, options);
  const int64_t calls = count.calls[at];
  REQUIRE(calls > 0);
  // The first call, the last, and some between.
  for (const int64_t after : {int64_t{0}, calls / 3, calls / 2, calls - 1}) {
    INFO(at << " throws after " << after << " calls");
    Fault fault;
    fault.at = at;
    fault.after = after;
    const FaultyScheme broken(four_bits(), fault);
    const auto came = outcomes(samples, {two.get(), &broken, four.get()}, options);
    int64_t errors = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      REQUIRE(came[i].rows.size() == 4);
      for (const size_t row : {size_t{0}, size_t{1}, size_t{3}}) {
        CHECK(came[i].rows[row].error.empty());
        check_same(came[i].rows[row].result, expected[i].rows[row].result);
      }
      const std::string& error = came[i].rows[2].error;  // of samples that were done before it: none
      errors += error.ends_with(": broken " + at);
      CHECK((error.empty() || error.ends_with(": broken " + at)));
    }
    CHECK(errors >= 1);
    CHECK(fault.alive == 0);
  }
}

TEST_CASE("alone, every scheme of every sample has a prefill and full precision's continuation of its own") {
  const c10::InferenceMode guard;
  std::vector<Sample> samples = {sample_of("generate", 60, 7, 74), sample_of("generate", 60, 9, 75),
                                 sample_of("score", 50, 30, 76)};
  samples[1].context = samples[0].context;
  Fault count;
  const FaultyScheme full(find_reference().scheme, count);
  const NumberTokenizer tokenizer;
  const Engine engine(wide_llama(), tokenizer, full);
  const auto four = four_bits();
  const auto two = make_scheme("uniform", {{"k_bits", "2"}, {"v_bits", "2"}, {"group", "16"}});
  EngineWork work{{}, {}, {four.get(), &full, two.get()}, {}};
  for (const Sample& sample : samples) work.samples.push_back(&sample);
  const auto ran = [&](const EngineOptions& options) {
    count.calls.clear();
    std::vector<SampleOutcome> all(samples.size());
    engine.run(work, options, [&](SampleOutcome&& one) { all[one.sample] = std::move(one); });
    return std::pair(std::move(all), count.calls["make_cache"]);
  };
  const auto [together, shared] = ran({});
  EngineOptions options;
  options.alone = true;
  const auto [alone, own] = ran(options);
  CHECK(shared == 3);
  CHECK(own == 9);
  CHECK(together[1].prefilled_tokens == 0);
  for (size_t i = 0; i < samples.size(); ++i) {
    INFO(samples[i].id);
    CHECK(alone[i].prefilled_tokens == std::ssize(samples[i].context));
    CHECK_FALSE(alone[i].noise.has_value());
    REQUIRE(alone[i].rows.size() == 4);
    for (size_t row = 0; row < 4; ++row) {
      check_same(alone[i].rows[row].result, together[i].rows[row].result);
      CHECK(alone[i].rows[row].result.reused_tokens == 0);
    }
  }
  // Full precision is read also where every scheme has failed.
  Fault fault;
  fault.at = "append";
  const FaultyScheme broken(four_bits(), fault);
  work.schemes = {&broken};
  const auto [failed, once] = ran(options);
  CHECK(once == 3);
  for (size_t i = 0; i < samples.size(); ++i) {
    CHECK(failed[i].rows[0].error.empty());
    check_same(failed[i].rows[0].result, together[i].rows[0].result);
    CHECK(failed[i].rows[1].error == "sample " + samples[0].id + ": broken append");
  }
}

TEST_CASE("too little memory for all rows at once means fewer rows, too little for one is that row's error") {
  const c10::InferenceMode guard;
  const std::vector<Sample> samples = {sample_of("generate", 60, 7, 81), sample_of("generate", 40, 9, 82),
                                       sample_of("score", 50, 30, 83)};
  Fault fault;
  fault.at = GENERATE("append", "make_cache", "clone");
  fault.memory = true;
  fault.alive_limit = GENERATE(2, 3);
  const FaultyScheme first(four_bits(), fault), second(four_bits(), fault), third(four_bits(), fault);
  const auto four = four_bits();
  const auto expected = outcomes(samples, {four.get(), four.get(), four.get()});
  const auto came = outcomes(samples, {&first, &second, &third});
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t row = 0; row < 4; ++row) {
      INFO(fault.at << ", sample " << i << ", row " << row);
      CHECK(came[i].rows[row].error == "");
      check_same(came[i].rows[row].result, expected[i].rows[row].result);
    }
  fault.alive_limit = 0;
  const auto starved = outcomes(samples, {&first, four.get()});
  CHECK(starved[0].rows[1].error.ends_with(": out of memory"));
  CHECK(starved[0].rows[2].error.empty());
  CHECK(fault.alive == 0);
}

TEST_CASE("caches stay within the budget, and the results are the same") {
  const c10::InferenceMode guard;
  const std::vector<Sample> samples = {sample_of("generate", 60, 7, 91), sample_of("generate", 60, 9, 92),
                                       sample_of("generate", 60, 5, 93), sample_of("score", 60, 30, 94)};
  Fault count;
  const FaultyScheme scheme(four_bits(), count);
  const std::vector<const Scheme*> six(6, &scheme);
  const auto expected = outcomes(samples, six);
  CHECK(count.peak > 12);
  count.peak = 0;
  // 1 MiB a cache: room for two rows that may branch, beside a prefill of 61 KB for each sample.
  EngineOptions options;
  options.cache_budget = (4 << 20) + (1 << 19);
  const auto came = outcomes(samples, six, options, std::vector<int64_t>(7, 1 << 20));
  CHECK(count.peak <= 4);
  for (size_t i = 0; i < samples.size(); ++i)
    for (size_t row = 0; row < 7; ++row) {
      CHECK(came[i].rows[row].error == "");
      check_same(came[i].rows[row].result, expected[i].rows[row].result);
    }
}

}  // namespace kvsweep::testing
