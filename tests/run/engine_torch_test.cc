// oracle: the engine against a plain concatenated cache, token by token; contract: what it promises of rows and views.
#include "harness/run/engine.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>

#include "harness/core/random.h"
#include "harness/run/reference.h"
#include "schemes/parts/streamed_cache.h"
#include "tests/support/torch/evaluate.h"
#include "tests/support/torch/exact_cache.h"
#include "tests/support/torch/tiny_model.h"

namespace kvsweep {
namespace {

using testing::evaluate;
using testing::random_tokens;
using testing::tiny_llama;

// Token ids as letters; nothing ends a text unless a test says so.
class LetterTokenizer : public Tokenizer {
 public:
  std::vector<int32_t> ends;
  std::vector<int32_t> encode(std::string_view text, bool) const override { return {text.begin(), text.end()}; }
  std::string decode(const std::vector<int32_t>& ids, bool) const override {
    std::string text;
    for (const int32_t id : ids) text += static_cast<char>('!' + id % 90);
    return text;
  }
  int64_t vocab_size() const override { return 97; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::vector<int32_t> end_tokens() const override { return ends; }
  bool adds_bos() const override { return false; }
  std::string piece(int32_t id) const override { return decode({id}, false); }
};

std::unique_ptr<Scheme> scheme(const std::string& name, std::map<std::string, std::string> values) {
  for (const SchemeEntry& entry : scheme_table()) {
    if (entry.name != name) continue;
    std::map<std::string, ParamValue> given;
    for (const auto& [key, value] : values) given[key] = {value, 1};
    Params params(name, "test", given);
    return entry.make(params);
  }
  throw std::runtime_error("no scheme " + name);
}

// Lossy without a step: what is read compressed is half of what was stored. A wrong residency shows at once, and
// rounding differences between batches stay as small as they are.
class HalvingCodec final : public Codec {
 public:
  std::string name() const override { return "halving"; }
  double nominal_bits() const override { return 16; }
  std::vector<PartSpec> parts() const override { return {{"values", ByteRole::kCodes}}; }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override { return {x.to(at::kFloat)}; }
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override { return parts[0] * 0.5; }
};

class HalvingScheme final : public Scheme {
 public:
  HalvingScheme(Residency keys, Residency values) : keys_(keys), values_(values) {}
  SchemeTraits traits() const override { return {.append_invariant = !keys_.whole && !values_.whole}; }
  NominalBits nominal_bits(int64_t) const override { return {}; }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    return {keys_.compressed_from(context_tokens, tokens), values_.compressed_from(context_tokens, tokens)};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const auto codec = std::make_shared<HalvingCodec>();
    const LayerPlan plan{{codec, keys_}, {codec, values_}, KeyRotation::kApplied};
    return std::make_unique<StreamedCache>(context, std::vector<LayerPlan>(static_cast<size_t>(context.layers), plan));
  }

 private:
  Residency keys_, values_;
};

// The textbook loop: keys and values of all tokens in one tensor that grows by cat, softmax over it, one token at a
// time.
class ConcatenatedCache : public KvCache {
 public:
  explicit ConcatenatedCache(const CacheContext& context)
      : rope_(context.rope), k_(context.layers), v_(context.layers) {}
  void append(int64_t layer, const KvSlab& slab) override {
    at::Tensor& k = k_[static_cast<size_t>(layer)];
    at::Tensor& v = v_[static_cast<size_t>(layer)];
    const at::Tensor rotated = rope_->apply(slab.k.contiguous(), slab.position);
    k = k.defined() ? at::cat({k, rotated}, 1) : rotated.clone();
    v = v.defined() ? at::cat({v, slab.v}, 1) : slab.v.clone();
  }
  KvView read(int64_t layer) const override {
    KvView view;
    const at::Tensor& k = k_[static_cast<size_t>(layer)];
    view.keys.push_back({&codec_, {k}, k.size(1), KeyRotation::kApplied, {}});
    view.values.push_back({&codec_, {v_[static_cast<size_t>(layer)]}, k.size(1), KeyRotation::kApplied, {}});
    return view;
  }
  void account(ByteLedger&) const override {}
  std::unique_ptr<KvCache> clone() const override { return std::make_unique<ConcatenatedCache>(*this); }

 private:
  static inline const testing::PlainCodec codec_;
  const Rope* rope_;
  std::vector<at::Tensor> k_, v_;
};

Sample generation_sample(int64_t context, int64_t query, int64_t made, uint64_t seed) {
  Sample sample;
  sample.id = "s";
  sample.context = random_tokens(context, 97, seed);
  sample.query = random_tokens(query, 97, seed + 1);
  sample.max_new_tokens = made;
  return sample;
}

std::vector<at::Tensor> decode_logits(const Llama& llama, KvCache& cache, const Sample& sample,
                                      const std::vector<int32_t>& answer) {
  if (!sample.context.empty())
    llama.prefill(
        sample.context, [&](int64_t layer, const KvSlab& slab) { cache.append(layer, slab); }, 0);
  std::vector<int32_t> tokens = sample.query;
  tokens.insert(tokens.end(), answer.begin(), answer.end());
  std::vector<at::Tensor> logits;
  for (size_t i = 0; i < tokens.size(); ++i) {
    Row row;
    row.cache = &cache;
    row.tokens = {tokens[i]};
    row.position = static_cast<int64_t>(sample.context.size() + i);
    row.slabs = {1};
    logits.push_back(llama.logits(llama.step({&row, 1})));
  }
  return logits;
}

}  // namespace

TEST_CASE("full through the cache interface equals decoding with a plain concatenated cache bit for bit") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const Reference reference = find_reference();
  const Sample sample = generation_sample(GENERATE(0, 1, 37, 200), 5, 0, 7);
  const std::vector<int32_t> answer = random_tokens(20, 97, 3);
  const std::unique_ptr<KvCache> cache = reference.scheme->make_cache(llama.cache_context(64));
  ConcatenatedCache plain(llama.cache_context(64));
  const std::vector<at::Tensor> ours = decode_logits(llama, *cache, sample, answer);
  const std::vector<at::Tensor> theirs = decode_logits(llama, plain, sample, answer);
  for (size_t i = 0; i < ours.size(); ++i) {
    INFO("step " << i);
    CHECK(at::equal(ours[i], theirs[i]));
  }
}

TEST_CASE("the reference row has no divergence from itself and a lossless scheme is the reference") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  const Engine engine(llama, tokenizer, *reference.scheme);
  const Sample sample = generation_sample(50, 4, 12, 11);
  const std::vector<RowResult> results = evaluate(engine, sample, {}, {reference.scheme.get()});
  REQUIRE(results.size() == 2);
  CHECK(results[0].output.tokens.size() == 12);
  CHECK(results[1].output.tokens == results[0].output.tokens);
  CHECK(results[0].kl == std::vector<float>(12, 0.0F));
  CHECK(results[0].top1_flips == 0);
  CHECK(results[0].first_divergence == -1);
  CHECK(results[0].compressed_reads == 0);
}

TEST_CASE("generation is greedy decoding, token by token") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  const Sample sample = generation_sample(30, 6, 10, 23);
  const Engine engine(llama, tokenizer, *reference.scheme);
  const std::vector<int32_t> made = evaluate(engine, sample, {}, {})[0].output.tokens;
  REQUIRE(made.size() == 10);
  ConcatenatedCache plain(llama.cache_context(64));
  const std::vector<at::Tensor> logits = decode_logits(llama, plain, sample, made);
  for (size_t i = 0; i < made.size(); ++i)
    CHECK(logits[sample.query.size() - 1 + i].argmax().item<int64_t>() == made[i]);
}

TEST_CASE("a query chunk reads what token-by-token decoding would have left it, for every residency") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  const Engine engine(llama, tokenizer, *reference.scheme);
  const Residency keys = GENERATE(Residency{0, 0, 1}, Residency{3, 5, 1}, Residency{0, 1, 16}, Residency{2, 32, 8},
                                  Residency{0, 0, 16, true});
  const Residency values = GENERATE(Residency{0, 0, 1}, Residency{0, 17, 1}, Residency{0, 0, 16, true});
  INFO("keys " << keys.sink << " " << keys.window << " " << keys.block << " " << keys.whole << ", values "
               << values.window << " " << values.whole);
  const HalvingScheme scheme(keys, values);
  const Sample sample = generation_sample(45, 40, 0, 5);
  const RowResult result = evaluate(engine, sample, {}, {&scheme})[1];
  const std::unique_ptr<KvCache> cache = scheme.make_cache(llama.cache_context(100));
  const std::vector<at::Tensor> logits = decode_logits(llama, *cache, sample, {});
  REQUIRE(result.output.nll.size() == sample.query.size() - 1);
  for (size_t i = 0; i + 1 < sample.query.size(); ++i) {
    const at::Tensor log_probs = at::log_softmax(logits[i].squeeze(0), -1);
    CHECK(result.output.nll[i] == Catch::Approx(-log_probs[sample.query[i + 1]].item<float>()).margin(2e-5));
  }
}

TEST_CASE("as_decoded is token-by-token decoding of context and query, for every residency") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  const Engine engine(llama, tokenizer, *reference.scheme);
  const Residency keys = GENERATE(Residency{0, 0, 1}, Residency{3, 5, 1}, Residency{0, 1, 16}, Residency{2, 200, 8},
                                  Residency{4, 0, 16, true});
  const Residency values = GENERATE(Residency{0, 0, 1}, Residency{0, 17, 1}, Residency{0, 0, 16, true});
  INFO("keys " << keys.sink << " " << keys.window << " " << keys.block << " " << keys.whole << ", values "
               << values.window << " " << values.whole);
  const HalvingScheme scheme(keys, values);
  const Sample sample = generation_sample(45, GENERATE(10, 240), 0, 5);  // one block of queries, and several
  const RowResult result = evaluate(engine, sample, {.as_decoded = true}, {&scheme})[1];
  const std::unique_ptr<KvCache> cache = scheme.make_cache(llama.cache_context(300));
  Sample all = sample;
  all.query.insert(all.query.begin(), sample.context.begin(), sample.context.end());
  all.context.clear();
  const std::vector<at::Tensor> logits = decode_logits(llama, *cache, all, {});
  REQUIRE(result.output.nll.size() == sample.query.size() - 1);
  for (size_t i = 0; i + 1 < sample.query.size(); ++i) {
    const at::Tensor log_probs = at::log_softmax(logits[sample.context.size() + i].squeeze(0), -1);
    CHECK(result.output.nll[i] == Catch::Approx(-log_probs[sample.query[i + 1]].item<float>()).margin(2e-5));
  }
}

TEST_CASE("KL, flips and NLL of a scored query are those of plain double loops") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  const Engine engine(llama, tokenizer, *reference.scheme);
  const std::unique_ptr<Scheme> uniform = scheme("uniform", {{"k_bits", "2"}, {"v_bits", "2"}, {"group", "16"}});
  const Sample sample = generation_sample(GENERATE(1, 40), 90, 0, 31);  // more positions than one block of logits
  const std::vector<RowResult> results = evaluate(engine, sample, {}, {uniform.get()});
  ConcatenatedCache plain(llama.cache_context(200));
  const std::vector<at::Tensor> full = decode_logits(llama, plain, sample, {});
  const std::unique_ptr<KvCache> cache = uniform->make_cache(llama.cache_context(200));
  const std::vector<at::Tensor> lossy = decode_logits(llama, *cache, sample, {});
  int64_t flips = 0;
  for (size_t i = 0; i + 1 < sample.query.size(); ++i) {
    const at::Tensor p = at::log_softmax(full[i].squeeze(0).to(at::kDouble), -1);
    const at::Tensor q = at::log_softmax(lossy[i].squeeze(0).to(at::kDouble), -1);
    double kl = 0;
    for (int64_t j = 0; j < p.numel(); ++j) {
      const double pj = p[j].item<double>();
      kl += std::exp(pj) * (pj - q[j].item<double>());
    }
    CHECK(results[1].kl[i] == Catch::Approx(kl).epsilon(1e-3).margin(1e-5));
    CHECK(results[0].output.nll[i] == Catch::Approx(-p[sample.query[i + 1]].item<double>()).margin(2e-5));
    flips += p.argmax().item<int64_t>() != q.argmax().item<int64_t>() ? 1 : 0;
  }
  CHECK(results[1].top1_flips == flips);
  CHECK(flips > 0);
}

TEST_CASE("a row of a batch is what it is alone") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  const Engine engine(llama, tokenizer, *reference.scheme);
  const auto two = scheme("uniform", {{"k_bits", "2"}, {"v_bits", "2"}, {"group", "16"}});
  const auto four = scheme("uniform", {{"k_bits", "4"}, {"v_bits", "4"}, {"group", "16"}});
  const Sample sample = generation_sample(64, 30, 0, 41);
  const auto together = evaluate(engine, sample, {}, {two.get(), four.get()});
  const auto alone = evaluate(engine, sample, {}, {four.get()});
  for (size_t i = 0; i < alone[1].output.nll.size(); ++i)
    CHECK(together[2].output.nll[i] == Catch::Approx(alone[1].output.nll[i]).margin(2e-5));
}

TEST_CASE("the compressed reads of a sample are those that were counted by hand") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  const Engine engine(llama, tokenizer, *reference.scheme);
  const auto windowed =
      scheme("uniform", {{"k_bits", "4"}, {"v_bits", "4"}, {"group", "16"}, {"window", "32"}, {"sink", "2"}});
  const Sample sample = generation_sample(50, 3, 0, 1);
  // Query position i sees i + 1 tokens; all but 2 sink and 32 window tokens are compressed: 17 + 18 + 19.
  CHECK(evaluate(engine, sample, {}, {windowed.get()})[1].compressed_reads == 17 + 18 + 19);
  const Sample tiny = generation_sample(20, 3, 0, 1);
  CHECK(evaluate(engine, tiny, {}, {windowed.get()})[1].compressed_reads == 0);
}

TEST_CASE("chunked:1 is token-by-token decoding of context and query, and large chunks differ from exact") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  const LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  const Engine engine(llama, tokenizer, *reference.scheme);
  const HalvingScheme halving({0, 8, 1}, {0, 8, 1});
  const Sample sample = generation_sample(40, 20, 0, 77);
  Sample all_query = sample;
  all_query.query.insert(all_query.query.begin(), sample.context.begin(), sample.context.end());
  all_query.context.clear();
  const std::unique_ptr<KvCache> cache = halving.make_cache(llama.cache_context(100));
  const std::vector<at::Tensor> logits = decode_logits(llama, *cache, all_query, {});
  const auto streamed = evaluate(engine, sample, {.chunk_tokens = 1}, {&halving})[1];
  for (size_t i = 0; i + 1 < sample.query.size(); ++i) {
    const at::Tensor log_probs = at::log_softmax(logits[sample.context.size() + i].squeeze(0), -1);
    CHECK(streamed.output.nll[i] == Catch::Approx(-log_probs[sample.query[i + 1]].item<float>()).margin(2e-5));
  }
  const auto exact = evaluate(engine, sample, {}, {&halving})[1];
  CHECK(exact.output.nll != streamed.output.nll);
}

TEST_CASE("generation stops at an end token and is cut at a stop string") {
  const c10::InferenceMode guard;
  const Llama llama = tiny_llama();
  LetterTokenizer tokenizer;
  const Reference reference = find_reference();
  Sample sample = generation_sample(30, 6, 12, 23);
  const std::vector<int32_t> made =
      evaluate(Engine(llama, tokenizer, *reference.scheme), sample, {}, {})[0].output.tokens;
  const int32_t third = made[2];
  const auto first = std::find(made.begin(), made.end(), third) - made.begin();
  sample.stop = {tokenizer.decode({third}, false)};
  const Output stopped = evaluate(Engine(llama, tokenizer, *reference.scheme), sample, {}, {})[0].output;
  CHECK(stopped.text == tokenizer.decode({made.begin(), made.begin() + first}, false));
  CHECK(stopped.tokens.size() == static_cast<size_t>(first) + 1);
  sample.stop.clear();
  tokenizer.ends = {third};
  const Output ended = evaluate(Engine(llama, tokenizer, *reference.scheme), sample, {}, {})[0].output;
  CHECK(ended.tokens == std::vector<int32_t>(made.begin(), made.begin() + first));
}

TEST_CASE("slabs are cut exactly where an earlier token is first read compressed") {
  const auto from = [](std::vector<int64_t> values) { return at::tensor(values, at::kLong); };
  // Tokens 0..3 are context. 1 and 4 change sides at query 6, value 2 at query 5; 5 is compressed from its own query
  // on.
  const CompressedFrom when{from({0, 6, 9, kNeverCompressed, 6, 5, 6, 7}), from({0, 0, 5, 0, 4, 5, 6, 7})};
  CHECK(streaming_slabs(when, 4, 4) == std::vector<int64_t>{1, 1, 2});
  CHECK(streaming_slabs(when, 6, 2) == std::vector<int64_t>{2});
}

}  // namespace kvsweep
