// Contract: what every scheme of the table promises, with its defaults and at the ends of its parameters.
#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 64, kTokens = 131;

const Rope& rope() {
  static const Rope table = [] {
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < kDim / 2; ++i)
      inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / kDim)));
    return Rope(inv_freq, 1, at::kCPU, 512);
  }();
  return table;
}

CacheContext context(int64_t expected_tokens = kTokens) {
  return {kLayers, kHeads, kDim, at::kFloat, at::kCPU, &rope(), expected_tokens};
}

struct Case {
  std::string name;
  Settings settings;
};

// Every scheme with its defaults; then each of its parameters, alone, at every end and choice that its declaration
// shows, where the scheme accepts it.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const SchemeEntry& entry : scheme_table()) {
    Params params = Params::describe(entry.name);
    entry.make(params);
    all.push_back({entry.name, {}});
    for (const ParamDeclaration& declared : params.declarations()) {
      std::vector<std::string> values;
      if (declared.type == "flag") values = {"true", "false"};
      std::string allowed = declared.allowed;
      const bool range = allowed.starts_with("[");
      if (range) allowed = allowed.substr(1, allowed.size() - 2);
      if (range || declared.type == "choice") {
        const std::string separator = range ? ", " : "|";
        for (size_t at = 0; at <= allowed.size();) {
          const size_t stop = std::min(allowed.find(separator, at), allowed.size());
          values.push_back(allowed.substr(at, stop - at));
          at = stop + separator.size();
        }
      }
      for (const std::string& value : values) {
        if (value == declared.default_value) continue;
        try {
          make_scheme(entry.name, {{declared.name, value}})->make_cache(context());
        } catch (const ConfigError&) {
          continue;
        }
        all.push_back({entry.name, {{declared.name, value}}});
      }
    }
  }
  // Combinations that single parameters do not reach.
  const Settings channels = {{"k_axis", "channel"}, {"v_axis", "channel"}, {"group", "16"}};
  all.push_back({"uniform", channels});
  for (const Settings& more : {Settings{{"sink", "4"}, {"window", "20"}}, Settings{{"window", "1"}, {"k_bits", "2"}},
                               Settings{{"sink", "5"}, {"symmetric", "true"}, {"v_bits", "3"}}}) {
    Settings both = channels;
    both.insert(more.begin(), more.end());
    all.push_back({"uniform", both});
    all.push_back({"uniform", more});
  }
  return all;
}

const std::vector<Case>& all_cases() {
  static const std::vector<Case> all = cases();
  return all;
}

struct Trace {
  std::vector<at::Tensor> k, v;  // one a layer, [H, T, D], views on larger tensors as a model's are
};

Trace random_trace(uint64_t seed, int64_t tokens = kTokens) {
  Trace trace;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const at::Tensor both = normals({tokens, 2 * kHeads, kDim}, seed + static_cast<uint64_t>(layer)).transpose(0, 1);
    trace.k.push_back(both.narrow(0, 0, kHeads));
    trace.v.push_back(both.narrow(0, kHeads, kHeads));
  }
  return trace;
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
  INFO(describe(c.name, c.settings));
  const auto scheme = make_scheme(c.name, c.settings);
  if (!scheme->traits().append_invariant) {
    WARN(c.name << " declares that slabs matter");
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
  INFO(describe(c.name, c.settings));
  const auto scheme = make_scheme(c.name, c.settings);
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
  INFO(describe(c.name, c.settings) << ", " << tokens << " tokens from position " << first);
  const auto scheme = make_scheme(c.name, c.settings);
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
  INFO(describe(c.name, c.settings) << ", " << tokens << " tokens");
  const auto cache = make_scheme(c.name, c.settings)->make_cache(context(GENERATE(0, kTokens)));
  append(*cache, random_trace(4), 0, tokens);
  ByteLedger ledger;
  cache->account(ledger);
  int64_t shown = 0;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const KvView view = cache->read(layer);
    for (const auto* runs : {&view.keys, &view.values})
      for (const KvRun& run : *runs)
        for (const at::Tensor& part : run.parts) shown += part.numel() * part.element_size();
  }
  CHECK(ledger.live_bytes() == shown);
  CHECK(ledger.reserved_bytes() >= ledger.live_bytes());
}

TEST_CASE("compressed_from says when each token sits in a lossy run") {
  const Case& c = generated_case();
  const int64_t slab = GENERATE(0, 1, 7, 64, 131);
  INFO(describe(c.name, c.settings) << ", context of " << slab);
  const auto scheme = make_scheme(c.name, c.settings);
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
  INFO(describe(c.name, c.settings));
  const auto scheme = make_scheme(c.name, c.settings);
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
  INFO(describe(c.name, c.settings) << ", " << kind);
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
  const auto cache = make_scheme(c.name, c.settings)->make_cache(context());
  append(*cache, trace, 0, 100);
  append(*cache, trace, 100, 101);
  const Decoded decoded = decode(*cache);
  for (size_t layer = 0; layer < kLayers; ++layer) {
    CHECK(decoded.k[layer].isfinite().all().item<bool>());
    CHECK(decoded.v[layer].isfinite().all().item<bool>());
  }
}

TEST_CASE("a slab is copied, not kept") {
  const Case& c = generated_case();
  INFO(describe(c.name, c.settings));
  const auto cache = make_scheme(c.name, c.settings)->make_cache(context());
  Trace trace = random_trace(9);
  append(*cache, trace, 0, 50);
  const Decoded before = decode(*cache);
  for (const at::Tensor& x : trace.k) x.fill_(7);
  for (const at::Tensor& x : trace.v) x.fill_(7);
  CHECK(same(decode(*cache), before));
}

}  // namespace
}  // namespace kvsweep::testing
