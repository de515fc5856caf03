// Contract: what every scheme of the table promises, with its defaults and at the ends of its parameters.
#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 64, kTokens = 131;

const Rope& rope() {
  static const Rope table = [] {
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < kDim / 2; ++i)
      inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / kDim)));
    return Rope(inv_freq, 1, at::kCPU, 1024);
  }();
  return table;
}

CacheContext context(int64_t expected_tokens = kTokens) {
  return {kLayers, kHeads, kDim, at::kFloat, at::kCPU, &rope(), expected_tokens};
}

using Case = SchemeCase;

const std::vector<Case>& all_cases() {
  static const std::vector<Case> all = scheme_cases(context());
  return all;
}

Trace random_trace(uint64_t seed, int64_t tokens = kTokens) {
  return testing::random_trace(kLayers, kHeads, tokens, kDim, seed);
}

void append(KvCache& cache, const Trace& trace, int64_t from, int64_t to, int64_t shift = 0) {
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const auto at = static_cast<size_t>(layer);
    cache.append(layer, {trace.k[at].narrow(1, from, to - from), trace.v[at].narrow(1, from, to - from), from + shift});
  }
}

struct Decoded {
  std::vector<at::Tensor> k, v;
};

Decoded decode(const KvCache& cache) {
  Decoded all;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const KvView view = cache.read(layer);
    all.k.push_back(decode_runs(view.keys).clone());
    all.v.push_back(decode_runs(view.values).clone());
  }
  return all;
}

bool same(const Decoded& a, const Decoded& b) {
  for (size_t i = 0; i < a.k.size(); ++i)
    if (!a.k[i].equal(b.k[i]) || !a.v[i].equal(b.v[i])) return false;
  return true;
}

const Case& generated_case() {
  const size_t at = GENERATE(range(size_t{0}, all_cases().size()));
  return all_cases()[at];
}

TEST_CASE("the cut of a context into slabs changes no bit") {
  const Case& c = generated_case();
  INFO(c.label());
  const auto scheme = c.scheme();
  if (!scheme->traits().append_invariant) {
    WARN(c.entry->name << " declares that slabs matter");
    return;
  }
  const Trace trace = random_trace(1);
  const auto whole = scheme->make_cache(context()), single = scheme->make_cache(context(0));
  append(*whole, trace, 0, kTokens);
  for (int64_t t = 0; t < kTokens; ++t) append(*single, trace, t, t + 1);
  const Decoded expected = decode(*whole);
  CHECK(same(decode(*single), expected));
  Rng rng(5);
  for (int trial = 0; trial < 3; ++trial) {
    const auto cut = scheme->make_cache(context());
    for (int64_t t = 0; t < kTokens;) {
      const int64_t next = std::min(kTokens, t + rng.between(0, 40));
      append(*cut, trace, t, next);
      t = next;
    }
    CHECK(same(decode(*cut), expected));
  }
}

TEST_CASE("branches of one context diverge freely") {
  const Case& c = generated_case();
  INFO(c.label());
  const auto scheme = c.scheme();
  const Trace trace = random_trace(2), other = random_trace(20);
  const int64_t cut = GENERATE(0, 3, 64, 100);
  const auto original = scheme->make_cache(context()), alone = scheme->make_cache(context());
  append(*original, trace, 0, cut);
  append(*alone, trace, 0, cut);
  const auto branch = original->clone();
  const Decoded before = decode(*original);
  for (int64_t t = cut; t < kTokens; ++t) append(*branch, other, t, t + 1);
  CHECK(same(decode(*original), before));
  const Decoded of_branch = decode(*branch);
  for (int64_t t = cut; t < kTokens; ++t) {
    append(*original, trace, t, t + 1);
    append(*alone, trace, t, t + 1);
  }
  CHECK(same(decode(*branch), of_branch));
  CHECK(same(decode(*original), decode(*alone)));
}

TEST_CASE("a view covers every token once, in order") {
  const Case& c = generated_case();
  const int64_t tokens = GENERATE(0, 1, 7, 64, 131);
  const int64_t first = GENERATE(0, 9);
  INFO(c.label() << ", " << tokens << " tokens from position " << first);
  const auto scheme = c.scheme();
  const auto cache = scheme->make_cache(context());
  append(*cache, random_trace(3), 0, tokens, first);
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const KvView view = cache->read(layer);
    int64_t values = 0;
    for (const KvRun& run : view.values) values += run.tokens;
    if (!view.positions.defined()) {
      CHECK(view.tokens() == tokens);
      if (tokens > 0) CHECK(view.position == first);
    } else {
      CHECK(view.positions.size(0) == view.tokens());
    }
    CHECK(values == view.tokens());
    if (tokens == 0) continue;
    CHECK(decode_runs(view.keys).sizes() == at::IntArrayRef({kHeads, view.tokens(), kDim}));
    CHECK(decode_runs(view.values).sizes() == at::IntArrayRef({kHeads, view.tokens(), kDim}));
  }
}

TEST_CASE("the ledger bills what the view shows") {
  const Case& c = generated_case();
  const int64_t tokens = GENERATE(0, 1, 7, 64, 131);
  INFO(c.label() << ", " << tokens << " tokens");
  const auto cache = c.scheme()->make_cache(context(GENERATE(0, kTokens)));
  append(*cache, random_trace(4), 0, tokens);
  ByteLedger ledger;
  cache->account(ledger);
  int64_t shown = 0;
  bool rebuilt = false;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const KvView view = cache->read(layer);
    for (const auto* runs : {&view.keys, &view.values})
      for (const KvRun& run : *runs)
        if (run.codec->rebuilt()) {
          rebuilt = true;
        } else {
          for (const at::Tensor& part : run.parts) shown += part.numel() * part.element_size();
        }
  }
  if (rebuilt) {
    CHECK(ledger.live_bytes() > shown);  // what they were made from; the scheme's own test writes those bytes out
  } else {
    CHECK(ledger.live_bytes() == shown);
  }
  CHECK(ledger.reserved_bytes() >= ledger.live_bytes());
}

TEST_CASE("compressed_from says when each token sits in a lossy run") {
  const Case& c = generated_case();
  const int64_t slab = GENERATE(0, 1, 7, 64, 131);
  INFO(c.label() << ", context of " << slab);
  const auto scheme = c.scheme();
  const auto cache = scheme->make_cache(context());
  const CompressedFrom from = scheme->compressed_from(slab, kTokens);
  REQUIRE(from.keys.sizes() == at::IntArrayRef({kTokens}));
  REQUIRE(from.values.sizes() == at::IntArrayRef({kTokens}));
  const Trace trace = random_trace(6);
  append(*cache, trace, 0, slab);
  for (int64_t tokens = slab; tokens <= kTokens; ++tokens) {
    if (tokens > slab) append(*cache, trace, tokens - 1, tokens);
    const KvView view = cache->read(kLayers - 1);
    if (view.positions.defined()) continue;
    INFO(tokens << " tokens held");
    CHECK(lossy_tokens(view.keys).equal(from.keys.narrow(0, 0, tokens).le(tokens - 1)));
    CHECK(lossy_tokens(view.values).equal(from.values.narrow(0, 0, tokens).le(tokens - 1)));
  }
}

TEST_CASE("a sequence does not feel other sequences of the same scheme") {
  const Case& c = generated_case();
  INFO(c.label());
  const auto scheme = c.scheme();
  const Trace mine = random_trace(7), theirs = random_trace(70);
  const auto alone = scheme->make_cache(context()), beside = scheme->make_cache(context()),
             other = scheme->make_cache(context());
  for (int64_t t = 0; t < kTokens; ++t) {
    append(*beside, mine, t, t + 1);
    append(*other, theirs, t, t + 1);
  }
  for (int64_t t = 0; t < kTokens; ++t) append(*alone, mine, t, t + 1);
  CHECK(same(decode(*beside), decode(*alone)));
}

TEST_CASE("hard inputs decode to finite values") {
  const Case& c = generated_case();
  const std::string kind = GENERATE("constant", "zero", "huge offset", "fp16 maximum", "beyond fp16", "tiny");
  INFO(c.label() << ", " << kind);
  Trace trace = random_trace(8);
  for (std::vector<at::Tensor>* side : {&trace.k, &trace.v})
    for (at::Tensor& x : *side) {
      if (kind == "constant") x = at::full_like(x, 1.25);
      if (kind == "zero") x = at::zeros_like(x);
      if (kind == "huge offset") x = x + 30000;
      if (kind == "fp16 maximum") x = x.sign() * 65504;
      if (kind == "beyond fp16") x = x * 1e6;
      if (kind == "tiny") x = x * 1e-9;
    }
  const auto cache = c.scheme()->make_cache(context());
  append(*cache, trace, 0, 100);
  append(*cache, trace, 100, 101);
  const Decoded decoded = decode(*cache);
  for (size_t layer = 0; layer < kLayers; ++layer) {
    CHECK(decoded.k[layer].isfinite().all().item<bool>());
    CHECK(decoded.v[layer].isfinite().all().item<bool>());
  }
}

TEST_CASE("NaN and infinity are refused with their number and place") {
  const Case& c = generated_case();
  const double poison = GENERATE(std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity());
  INFO(c.label() << ", " << poison);
  const auto scheme = c.scheme();
  if (scheme->traits().lossless) return;  // hands on what came
  const auto cache = scheme->make_cache(context());
  Trace trace = random_trace(11);
  trace.v[0][2][30][5] = poison;
  trace.v[0][2][31][6] = poison;
  CHECK_THROWS_MATCHES(append(*cache, trace, 0, 100), c10::Error,
                       MessageMatches(ContainsSubstring("2 of 19200 values of layer 0") &&
                                      ContainsSubstring("head 2, position 30, channel 5")));
}

// What a scheme stores of decoded tokens is as lossy as what it stores of a prompt: neither nothing (a group of one
// token is exact whatever its bits) nor something else.
TEST_CASE("tokens that came one by one lose what tokens of a slab lose") {
  const Case& c = generated_case();
  INFO(c.label());
  const auto scheme = c.scheme();
  if (scheme->traits().lossless) return;
  constexpr int64_t kLong = 400;
  const Trace trace = random_trace(12, kLong);
  const auto slab = scheme->make_cache(context(kLong)), single = scheme->make_cache(context(kLong));
  append(*slab, trace, 0, kLong);
  slab->finish_context();
  append(*single, trace, 0, 1);
  single->finish_context();
  for (int64_t t = 1; t < kLong; ++t) append(*single, trace, t, t + 1);
  for (const bool keys : {true, false}) {
    INFO((keys ? "keys" : "values"));
    const auto loss = [&](const KvCache& cache) {
      const KvView view = cache.read(1);
      const auto& runs = keys ? view.keys : view.values;
      const at::Tensor lossy = lossy_tokens(runs).nonzero().squeeze(1);
      if (lossy.numel() == 0) return 0.0;
      at::Tensor exact = keys ? trace.k[1] : trace.v[1];
      if (keys && runs[0].rotation == KeyRotation::kApplied) exact = rope().apply(exact, 0);
      return nmse(exact.index_select(1, lossy), restored_runs(runs).index_select(1, lossy));
    };
    const double of_slab = loss(*slab), of_single = loss(*single);
    const KvView view = slab->read(1);
    if (lossy_tokens(keys ? view.keys : view.values).any().item<bool>()) CHECK(of_slab > 0);
    if (of_slab > 0 && of_single > 0) {
      // Where a flush packs old tokens anew in other groups, their errors add up.
      CHECK(of_single < (scheme->traits().append_invariant ? 2 : 5) * of_slab);
      CHECK(of_single > of_slab / 2);
    }
  }
}

TEST_CASE("more bits lose less") {
  int64_t compared = 0;
  for (const SchemeEntry& entry : scheme_table())
    for (const ParamDeclaration& declared : declarations_of(entry)) {
      if (declared.name.find("bits") == std::string::npos) continue;
      double before = std::numeric_limits<double>::infinity();
      for (int64_t bits = 1; bits <= 8; ++bits) {
        const auto usable = usable_cases(entry, {{declared.name, std::to_string(bits)}}, context());
        if (usable.empty()) continue;
        INFO(usable[0].label());
        const auto cache = usable[0].scheme()->make_cache(context());
        const Trace trace = random_trace(13, 512);
        append(*cache, trace, 0, 512);
        cache->finish_context();
        const KvView view = cache->read(1);
        at::Tensor keys = trace.k[1];
        if (view.keys[0].rotation == KeyRotation::kApplied) keys = rope().apply(keys, 0);
        const double loss = nmse(keys, restored_runs(view.keys)) + nmse(trace.v[1], restored_runs(view.values));
        CHECK(loss < before);
        before = loss;
        ++compared;
      }
    }
  CHECK(compared > 8);
}

TEST_CASE("a map of layers changes the layers that it names and no others") {
  int64_t compared = 0;
  for (const SchemeEntry& entry : scheme_table())
    for (const ParamDeclaration& declared : declarations_of(entry)) {
      if (!declared.type.ends_with("or map")) continue;
      std::vector<std::string> values = values_of(declared);
      for (size_t i = 0; i + 1 < values.size(); ++i) {
        const auto first = usable_cases(entry, {{declared.name, values[i]}}, context());
        const auto second = usable_cases(entry, {{declared.name, values[i + 1]}}, context());
        if (first.empty() || second.empty() || first[0].settings.contains("artifact")) continue;
        INFO(entry.name << "." << declared.name << " = " << values[i] << ", layer 1: " << values[i + 1]);
        const auto params = [&](int64_t layer) {
          ParamValue map{values[i], 0, {{layer, layer, values[i + 1], 0}}};
          Params mixed(entry.name, "night.yaml", {{declared.name, map}});
          return entry.make(mixed);
        };
        const Trace trace = random_trace(14, 300);
        const auto decoded = [&](const Scheme& scheme) {
          const auto cache = scheme.make_cache(context());
          append(*cache, trace, 0, 300);
          cache->finish_context();
          return decode(*cache);
        };
        const Decoded mixed = decoded(*params(1)), a = decoded(*first[0].scheme()), b = decoded(*second[0].scheme());
        CHECK(mixed.k[0].equal(a.k[0]));
        CHECK(mixed.v[0].equal(a.v[0]));
        CHECK(mixed.k[1].equal(b.k[1]));
        CHECK(mixed.v[1].equal(b.v[1]));
        CHECK_FALSE((a.k[1].equal(b.k[1]) && a.v[1].equal(b.v[1])));
        CHECK_THROWS_MATCHES(params(2)->make_cache(context()), ConfigError,
                             MessageMatches(ContainsSubstring(declared.name) && ContainsSubstring("layer 2") &&
                                            ContainsSubstring("layers 0 to 1")));
        ++compared;
      }
    }
  CHECK(compared > 0);
}

TEST_CASE("a slab is copied, not kept") {
  const Case& c = generated_case();
  INFO(c.label());
  const auto cache = c.scheme()->make_cache(context());
  Trace trace = random_trace(9);
  append(*cache, trace, 0, 50);
  const Decoded before = decode(*cache);
  for (const at::Tensor& x : trace.k) x.fill_(7);
  for (const at::Tensor& x : trace.v) x.fill_(7);
  CHECK(same(decode(*cache), before));
}

}  // namespace
}  // namespace kvsweep::testing
