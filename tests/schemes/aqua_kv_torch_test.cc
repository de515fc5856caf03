// Oracle and golden: AQUA-KV's chain of predictions, its cache and its calibrator.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <regex>

#include "harness/core/error.h"
#include "harness/files/artifact.h"
#include "schemes/codec/lattice.h"
#include "schemes/parts/predictor.h"
#include "tests/support/golden.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

struct Maps {
  AffineMap keys, values;
};

Maps zero_maps(int64_t channels) {
  return {{at::zeros({channels, channels}), at::zeros({channels})},
          {at::zeros({channels, 2 * channels}), at::zeros({channels})}};
}

Maps random_maps(int64_t channels, uint64_t seed) {
  const double scale = 1 / std::sqrt(static_cast<double>(channels));
  return {{normals({channels, channels}, seed) * scale, normals({channels}, seed + 1)},
          {normals({channels, 2 * channels}, seed + 2) * scale, normals({channels}, seed + 3)}};
}

Maps in_bfloat16(const Maps& maps) {
  const auto cast = [](const AffineMap& map) {
    return AffineMap{map.weight.to(at::kBFloat16), map.bias.to(at::kBFloat16)};
  };
  return {cast(maps.keys), cast(maps.values)};
}

// Artifacts of this file's tests. maps: of layers from 1 on.
std::string artifact(const CacheContext& context, const std::vector<Maps>& maps, const Settings& settings = {},
                     const std::string& scheme = "aqua_kv") {
  static TemporaryDirectory directory;
  static int64_t made = 0;
  ArtifactHeader header;
  header.scheme = scheme;
  for (const auto& [key, value] : Settings{{"k_bits", "2"},
                                           {"v_bits", "2"},
                                           {"grid", "EDEN2-16"},
                                           {"hadamard_group", "0"},
                                           {"norm_type", "fp32"},
                                           {"first_layer", "quantized"},
                                           {"predictor_type", "fp32"}})
    header.params.emplace_back(key, settings.contains(key) ? settings.at(key) : value);
  header.model = "random";
  header.weights_sha256 = context.weights_sha256;
  header.layers = context.layers;
  header.kv_heads = context.kv_heads;
  header.head_dim = context.head_dim;
  TensorMap tensors;
  for (size_t i = 0; i < maps.size(); ++i) {
    const std::string layer = fmt::format("layers.{}.", i + 1);
    tensors[layer + "key_weight"] = maps[i].keys.weight;
    tensors[layer + "key_bias"] = maps[i].keys.bias;
    tensors[layer + "value_weight"] = maps[i].values.weight;
    tensors[layer + "value_bias"] = maps[i].values.bias;
  }
  const auto path = directory.path() / fmt::format("{}.safetensors", made++);
  write_artifact(path, header, tensors);
  return path.string();
}

// The settings with an artifact of these maps.
Settings with(const CacheContext& context, const std::vector<Maps>& maps, Settings settings = {}) {
  settings["artifact"] = artifact(context, maps, settings);
  return settings;
}

CacheContext context_of(int64_t layers, int64_t heads, int64_t dim, int64_t tokens = 0) {
  return {layers, heads, dim, at::kFloat, at::kCPU, nullptr, tokens};
}

std::unique_ptr<KvCache> filled(const Scheme& scheme, const CacheContext& context, const Trace& trace, int64_t tokens) {
  auto cache = scheme.make_cache(context);
  for (int64_t layer = 0; layer < context.layers; ++layer) {
    const auto at = static_cast<size_t>(layer);
    cache->append(layer, {trace.k[at].narrow(1, 0, tokens), trace.v[at].narrow(1, 0, tokens), 0});
  }
  cache->finish_context();
  return cache;
}

at::Tensor keys_of(const KvCache& cache, int64_t layer) {
  return merged(decode_runs(cache.read(layer).keys));
}
at::Tensor values_of(const KvCache& cache, int64_t layer) {
  return merged(decode_runs(cache.read(layer).values));
}

HiggsCodec codec_of(int64_t bits, int64_t channels, int64_t group) {
  return {{2, int64_t{1} << 2 * bits, group, at::kFloat, true}, 1, channels};
}

at::Tensor recoded(const HiggsCodec& codec, const at::Tensor& rows) {
  return codec.decode(codec.encode(rows.unsqueeze(0)))[0];
}

at::Tensor beside(const at::Tensor& keys, const at::Tensor& values) {
  return at::cat({keys, values}, 1);
}

TEST_CASE("without predictions AQUA-KV is HIGGS with a first layer of 4 bits") {
  const CacheContext context = context_of(3, 3, 64);
  const Trace trace = random_trace(3, 3, 200, 64, 1);
  const auto aqua = make_scheme("aqua_kv", with(context, {zero_maps(192), zero_maps(192)}));
  Params params("higgs", "", {{"k_bits", {"2", 0, {{0, 0, "4", 0}}}}, {"v_bits", {"2", 0, {{0, 0, "4", 0}}}}});
  std::unique_ptr<Scheme> higgs;
  for (const SchemeEntry& entry : scheme_table())
    if (entry.name == "higgs") higgs = entry.make(params);
  const auto a = filled(*aqua, context, trace, 200), b = filled(*higgs, context, trace, 200);
  for (int64_t layer = 0; layer < 3; ++layer) {
    CHECK(keys_of(*a, layer).equal(keys_of(*b, layer)));
    CHECK(values_of(*a, layer).equal(values_of(*b, layer)));
  }
  const NominalBits ours = aqua->nominal_bits(3), theirs = higgs->nominal_bits(3);
  CHECK(ours.k == theirs.k);
  CHECK(ours.v == theirs.v);
}

// The maps' directions: keys from keys of the layer before, values from this layer's keys and the values before.
TEST_CASE("what is predicted without error is read without error") {
  const std::string rebuild = GENERATE("once", "each_read");
  INFO(rebuild);
  const CacheContext context = context_of(4, 2, 32);
  Trace trace = random_trace(4, 2, 150, 32, 2);
  std::vector<Maps> maps;
  for (size_t layer = 1; layer < 4; ++layer) {
    maps.push_back(random_maps(64, 10 * layer));
    const at::Tensor keys = maps.back().keys.apply(merged(trace.k[layer - 1]));
    trace.k[layer] = split_heads(keys, 32);
    trace.v[layer] = split_heads(maps.back().values.apply(beside(keys, merged(trace.v[layer - 1]))), 32);
  }
  const auto scheme = make_scheme("aqua_kv", with(context, maps, {{"first_layer", "exact"}, {"rebuild", rebuild}}));
  const auto cache = filled(*scheme, context, trace, 150);
  CHECK(keys_of(*cache, 0).equal(merged(trace.k[0])));
  for (int64_t layer = 0; layer < 4; ++layer) {
    CHECK(nmse(merged(trace.k[static_cast<size_t>(layer)]), keys_of(*cache, layer)) < 1e-12);
    CHECK(nmse(merged(trace.v[static_cast<size_t>(layer)]), values_of(*cache, layer)) < 1e-12);
  }
}

TEST_CASE("a layer's error is that of its own residual's codes: it does not grow with depth") {
  constexpr int64_t kLayers = 10, kTokens = 160;
  const CacheContext context = context_of(kLayers, 2, 64);
  const Trace trace = random_trace(kLayers, 2, kTokens, 64, 3);
  std::vector<Maps> maps;
  for (uint64_t layer = 1; layer < kLayers; ++layer) maps.push_back(random_maps(128, 10 * layer));
  const auto scheme = make_scheme("aqua_kv", with(context, maps, {{"sink", "0"}, {"v_bits", "3"}}));
  const auto cache = filled(*scheme, context, trace, kTokens);
  for (int64_t layer = 1; layer < kLayers; ++layer) {
    INFO("layer " << layer);
    const auto at = static_cast<size_t>(layer);
    const Maps& map = maps[at - 1];
    const at::Tensor keys = merged(trace.k[at]), values = merged(trace.v[at]);
    const at::Tensor key_residual = keys - map.keys.apply(keys_of(*cache, layer - 1));
    const at::Tensor value_residual =
        values - map.values.apply(beside(keys_of(*cache, layer), values_of(*cache, layer - 1)));
    CHECK((keys - keys_of(*cache, layer))
              .allclose(key_residual - recoded(codec_of(2, 128, 128), key_residual), 1e-4, 1e-5));
    CHECK((values - values_of(*cache, layer))
              .allclose(value_residual - recoded(codec_of(3, 128, 128), value_residual), 1e-4, 1e-5));
    // Random maps predict nothing: residuals are twice (three times) as large as the keys (values), plus the biases.
    const double share =
        (keys - keys_of(*cache, layer)).square().sum().item<double>() / key_residual.square().sum().item<double>();
    CHECK(share == Catch::Approx(.1077).epsilon(.1));
  }
}

TEST_CASE("keys and values rebuilt for each read are those rebuilt once") {
  const Settings more = GENERATE(Settings{}, Settings{{"recent_rule", "slide"}, {"k_bits", "3"}},
                                 Settings{{"first_layer", "exact"}, {"predictor_type", "bf16"}});
  INFO(describe("aqua_kv", more));
  constexpr int64_t kLayers = 6, kTokens = 120;
  const CacheContext context = context_of(kLayers, 2, 32);
  const Trace trace = random_trace(kLayers, 2, kTokens, 32, 4);
  std::vector<Maps> maps;
  for (uint64_t layer = 1; layer < kLayers; ++layer) maps.push_back(random_maps(64, 20 * layer));
  if (more.contains("predictor_type"))
    for (Maps& map : maps) map = in_bfloat16(map);
  Settings settings = more;
  settings["recent"] = "16";
  Settings each = with(context, maps, settings);
  const auto once = make_scheme("aqua_kv", each)->make_cache(context);
  each["rebuild"] = "each_read";
  const auto scheme = make_scheme("aqua_kv", each);
  auto anew = scheme->make_cache(context);
  const auto compare = [&] {  // last layer first: nothing of an earlier read may be taken for it
    for (int64_t layer = kLayers - 1; layer >= 0; --layer) {
      const auto off = [](const at::Tensor& a, const at::Tensor& b) {
        return (a - b).abs().max().item<double>() / b.abs().max().item<double>();
      };
      CHECK(off(keys_of(*anew, layer), keys_of(*once, layer)) < 1e-5);
      CHECK(off(values_of(*anew, layer), values_of(*once, layer)) < 1e-5);
    }
  };
  for (int64_t first = 0, count = 50; first < kTokens; first += count, count = 1 + (5 * first) % 13) {
    count = std::min(count, kTokens - first);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const auto at = static_cast<size_t>(layer);
      const KvSlab slab{trace.k[at].narrow(1, first, count), trace.v[at].narrow(1, first, count), first};
      once->append(layer, slab);
      anew->append(layer, slab);
    }
    compare();
    if (first == 0) {
      once->finish_context();
      anew->finish_context();
      compare();
    }
    const auto branch = anew->clone();
    CHECK(keys_of(*branch, kLayers - 1).equal(keys_of(*anew, kLayers - 1)));
    if (first > 60) anew = branch->clone();
  }
  ByteLedger with_rebuilt, without;
  once->account(with_rebuilt);
  anew->clone()->account(without);
  CHECK(with_rebuilt.live_bytes() == without.live_bytes());
}

// Project's specification, section 0.3: (sink, coded, waiting) after chunks of 32, and of one prompt.
TEST_CASE("all that wait are coded at once when 128 do") {
  const CacheContext context = context_of(2, 1, 64);
  const auto scheme = make_scheme("aqua_kv", with(context, {zero_maps(64)}));
  const Trace trace = random_trace(2, 1, 320, 64, 5);
  const auto counts = [](const KvCache& cache, int64_t layer) {
    const auto settled = cache.clone();  // the code compresses after the step that filled its buffer
    settled->finish_context();
    std::vector<int64_t> exact, coded = {0};
    for (const KvRun& run : settled->read(layer).values) (run.codec->exact() ? exact : coded).push_back(run.tokens);
    exact.resize(2);
    return std::vector<int64_t>{exact[0], coded.back(), exact[1]};
  };
  const std::vector<std::vector<int64_t>> wanted = {{4, 0, 28},   {4, 0, 60},   {4, 0, 92},   {4, 0, 124}, {4, 156, 0},
                                                    {4, 156, 32}, {4, 156, 64}, {4, 156, 96}, {4, 284, 0}};
  const auto cache = scheme->make_cache(context);
  for (size_t chunk = 0; chunk < wanted.size(); ++chunk) {
    const auto first = 32 * static_cast<int64_t>(chunk);
    for (int64_t layer = 0; layer < 2; ++layer) {
      const auto at = static_cast<size_t>(layer);
      cache->append(layer, {trace.k[at].narrow(1, first, 32), trace.v[at].narrow(1, first, 32), first});
    }
    INFO("chunk " << chunk);
    CHECK(counts(*cache, 0) == wanted[chunk]);
    CHECK(counts(*cache, 1) == wanted[chunk]);
  }
  CHECK(counts(*filled(*scheme, context, trace, 131), 1) == std::vector<int64_t>{4, 0, 127});
  CHECK(counts(*filled(*scheme, context, trace, 132), 1) == std::vector<int64_t>{4, 128, 0});
}

TEST_CASE("bytes: codes, norms, sink and window are live, rebuilt tensors reserved, predictors shared") {
  constexpr int64_t kLayers = 3, kChannels = 3 * 64, kTokens = 340, kCoded = 300, kExact = 40;
  const CacheContext context = context_of(kLayers, 3, 64, kTokens);
  Settings settings = with(context, {zero_maps(kChannels), zero_maps(kChannels)}, {{"v_bits", "3"}});
  const Trace trace = random_trace(kLayers, 3, kTokens, 64, 6);
  const auto bytes = [&](const std::string& rebuild) {
    settings["rebuild"] = rebuild;
    const auto cache = filled(*make_scheme("aqua_kv", settings), context, trace, 304);  // 4 sink, 300 coded
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const auto at = static_cast<size_t>(layer);
      cache->append(layer, {trace.k[at].narrow(1, 304, 36), trace.v[at].narrow(1, 304, 36), 304});
      cache->read(layer);
    }
    ByteLedger ledger;
    cache->account(ledger);
    return ledger;
  };
  const ByteLedger once = bytes("once"), each_read = bytes("each_read");
  // Two values a code. Layer 0: 8 bits a code; the others: keys 4, values 6.
  constexpr int64_t kCodes = kCoded * kChannels / 2 * (2 * 8 + (kLayers - 1) * (4 + 6)) / 8;
  for (const ByteLedger* ledger : {&once, &each_read}) {
    CHECK(ledger->live(ByteRole::kCodes) == kCodes);
    CHECK(ledger->live(ByteRole::kScales) == 2 * kLayers * kCoded * kChannels / 64 * 4);  // a float32 for 64 channels
    CHECK(ledger->live(ByteRole::kWindow) == 2 * kLayers * kExact * kChannels * 4);       // 4 sink and 36 waiting
    CHECK(ledger->live_bytes() ==
          ledger->live(ByteRole::kCodes) + ledger->live(ByteRole::kScales) + ledger->live(ByteRole::kWindow));
  }
  // Once: room for K and V of all layers and expected tokens. Each read: rows of the layer that was read last.
  CHECK(once.reserved_bytes() - each_read.reserved_bytes() == 2 * (kLayers * kTokens - kCoded) * kChannels * 4);
  const int64_t maps = (kLayers - 1) * (kChannels * (kChannels + 1) + kChannels * (2 * kChannels + 1));
  const std::string type = GENERATE("fp32", "bf16");
  Maps map = zero_maps(kChannels);
  if (type == "bf16") map = in_bfloat16(map);
  ByteLedger shared;
  make_scheme("aqua_kv", with(context, {map, map}, {{"predictor_type", type}}))->account_shared(shared);
  CHECK(shared.live(ByteRole::kCodebook) == maps * (type == "bf16" ? 2 : 4));
  CHECK(shared.live_bytes() == shared.live(ByteRole::kCodebook));
}

TEST_CASE("an exact first layer is billed as it came") {
  const CacheContext context = context_of(2, 1, 64, 100);
  const auto scheme =
      make_scheme("aqua_kv", with(context, {zero_maps(64)}, {{"first_layer", "exact"}, {"recent", "50"}}));
  const auto cache = filled(*scheme, context, random_trace(2, 1, 100, 64, 7), 100);
  ByteLedger ledger;
  cache->account(ledger);
  CHECK(ledger.live(ByteRole::kWindow) == 2 * (100 + 4) * 64 * 4);  // all of layer 0, the sink of layer 1
  CHECK(ledger.live(ByteRole::kCodes) == 2 * 96 * 64 * 2 / 8);      // K and V of layer 1 at 2 bits
  CHECK(scheme->nominal_bits(2).k == (16 + 2) / 2.0);
  for (const KvRun& run : cache->read(0).keys) CHECK(run.codec->exact());
}

// Project's specification, section 4 (b): b (L - 1) / L + 4 / L + 16 / h bits a value; 2.0871 for Llama-3.2-3B.
TEST_CASE("effective bits are the published formula") {
  constexpr int64_t kLayers = 28, kTokens = 64;
  const CacheContext context = context_of(kLayers, 2, 32, kTokens);
  const std::vector<Maps> maps(kLayers - 1, zero_maps(64));
  const auto scheme =
      make_scheme("aqua_kv", with(context, maps, {{"norm_type", "fp16"}, {"sink", "0"}, {"recent", "64"}}));
  ByteLedger ledger;
  filled(*scheme, context, random_trace(kLayers, 2, kTokens, 32, 8), kTokens)->account(ledger);
  const double bits = 8.0 * static_cast<double>(ledger.live_bytes()) / (2 * kLayers * kTokens * 64);
  CHECK(bits == Catch::Approx((27 * 2 + 4) / 28.0 + 16 / 64.0));
  CHECK(scheme->nominal_bits(kLayers).k + 16 / 1024.0 == Catch::Approx(2.0871).margin(5e-5));
}

TEST_CASE("half-precision models are read in their type, finite at its ends") {
  const at::ScalarType dtype = GENERATE(at::kHalf, at::kBFloat16);
  CacheContext context = context_of(2, 1, 64);
  context.dtype = dtype;
  const auto scheme = make_scheme("aqua_kv", with(context, {random_maps(64, 1)}, {{"sink", "0"}, {"recent", "20"}}));
  Trace trace = random_trace(2, 1, 40, 64, 9);
  for (auto* side : {&trace.k, &trace.v})
    for (at::Tensor& x : *side) x = x.sign().mul(60000).to(dtype);
  const auto cache = filled(*scheme, context, trace, 40);
  const KvView view = cache->read(1);
  REQUIRE(view.keys.size() == 1);
  CHECK(view.keys[0].parts[0].scalar_type() == dtype);
  CHECK(keys_of(*cache, 1).isfinite().all().item<bool>());
  CHECK(values_of(*cache, 1).isfinite().all().item<bool>());
}

TEST_CASE("artifacts that do not fit are refused by name") {
  CacheContext context = context_of(2, 1, 64);
  context.weights_sha256 = std::string(64, 'a');
  const auto refused = [](const auto& make, const std::vector<std::string>& words) {
    try {
      make();
      FAIL_CHECK("accepted");
    } catch (const ConfigError& error) {
      for (const std::string& word : words) CHECK_THAT(error.what(), ContainsSubstring(word));
    }
  };
  const Settings fits = with(context, {zero_maps(64)});
  CHECK_NOTHROW(make_scheme("aqua_kv", fits)->make_cache(context));
  refused([&] { make_scheme("aqua_kv", {}); }, {"aqua_kv.artifact is required"});
  refused([&] { make_scheme("aqua_kv", {{"artifact", "nowhere.safetensors"}}); }, {"nowhere.safetensors"});
  for (const auto& [key, value] : Settings{{"k_bits", "3"},
                                           {"v_bits", "4"},
                                           {"grid", "EDEN4-256"},
                                           {"hadamard_group", "32"},
                                           {"norm_type", "fp16"},
                                           {"first_layer", "exact"},
                                           {"predictor_type", "bf16"}}) {
    Settings other = fits;
    other[key] = value;
    const std::string theirs = with(context, {}, {{key, "theirs"}}).at("artifact");
    refused([&] { make_scheme("aqua_kv", other); }, {"aqua_kv." + key + " = " + value, fits.at("artifact")});
    refused([&] { make_scheme("aqua_kv", {{"artifact", theirs}}); }, {key + " = theirs"});
  }
  // What is read with is free.
  for (const auto& [key, value] : Settings{{"sink", "0"}, {"recent", "7"}, {"rebuild", "each_read"}}) {
    Settings other = fits;
    other[key] = value;
    CHECK_NOTHROW(make_scheme("aqua_kv", other));
  }
  refused(
      [&] {
        make_scheme("aqua_kv", {{"artifact", artifact(context, {zero_maps(64)}, {}, "skvq")}});
      },
      {"skvq", "aqua_kv"});
  refused([&] { make_scheme("aqua_kv", fits)->make_cache(context_of(3, 1, 64)); },
          {"2 layers of 1 kv-heads", "3 layers of 1 kv-heads"});
  CacheContext foreign = context;
  foreign.weights_sha256 = std::string(64, 'b');
  refused([&] { make_scheme("aqua_kv", fits)->make_cache(foreign); }, {"aaaa", "bbbb"});
  CHECK_THROWS_MATCHES(make_scheme("aqua_kv", with(context, {zero_maps(32)})), DataError,
                       MessageMatches(ContainsSubstring("key predictor of layer 1")));
  CHECK_THROWS_MATCHES(make_scheme("aqua_kv", with(context, {})), DataError,
                       MessageMatches(ContainsSubstring("layers.1.key_weight")));
}

TEST_CASE("maps of layers name layers that predictors have") {
  const SchemeEntry& entry = *std::find_if(scheme_table().begin(), scheme_table().end(),
                                           [](const SchemeEntry& one) { return one.name == "aqua_kv"; });
  const auto calibrator = [&](int64_t layer) {
    Params params("aqua_kv", "night.yaml", {{"k_bits", {"2", 3, {{layer, layer, "3", 3}}}}});
    return entry.calibrate(params);
  };
  CHECK_THROWS_MATCHES(calibrator(0), ConfigError,
                       MessageMatches(ContainsSubstring("night.yaml:3: aqua_kv.k_bits") &&
                                      ContainsSubstring("layer 0 is stored as first_layer says")));
  CHECK_NOTHROW(calibrator(1));
}

TEST_CASE("a layer may get all of its tokens before the next one gets any") {
  const std::string rebuild = GENERATE("once", "each_read");
  const CacheContext context = context_of(3, 1, 64);
  const auto scheme = make_scheme(
      "aqua_kv", with(context, {random_maps(64, 1), random_maps(64, 2)}, {{"recent", "8"}, {"rebuild", rebuild}}));
  const Trace trace = random_trace(3, 1, 60, 64, 11);
  const auto append = [&](KvCache& cache, int64_t layer, int64_t first) {
    const auto at = static_cast<size_t>(layer);
    cache.append(layer, {trace.k[at].narrow(1, first, 12), trace.v[at].narrow(1, first, 12), first});
  };
  const auto by_layers = scheme->make_cache(context), by_tokens = scheme->make_cache(context);
  for (int64_t layer = 0; layer < 3; ++layer)
    for (int64_t first = 0; first < 60; first += 12) append(*by_layers, layer, first);
  for (int64_t first = 0; first < 60; first += 12)
    for (int64_t layer = 0; layer < 3; ++layer) append(*by_tokens, layer, first);
  for (int64_t layer = 0; layer < 3; ++layer) {
    CHECK(keys_of(*by_layers, layer).allclose(keys_of(*by_tokens, layer), 1e-5, 1e-5));
    CHECK(values_of(*by_layers, layer).allclose(values_of(*by_tokens, layer), 1e-5, 1e-5));
  }
}

TEST_CASE("layers that come out of order are refused") {
  const CacheContext context = context_of(2, 1, 64);
  const auto scheme = make_scheme("aqua_kv", with(context, {zero_maps(64)}, {{"recent", "8"}}));
  const Trace trace = random_trace(2, 1, 40, 64, 10);
  const auto cache = scheme->make_cache(context);
  const auto slab = [&](int64_t first, int64_t count) {
    return KvSlab{trace.k[0].narrow(1, first, count), trace.v[0].narrow(1, first, count), first};
  };
  cache->append(1, slab(0, 20));
  CHECK_THROWS_WITH(cache->append(1, slab(20, 1)), ContainsSubstring("layers come in order"));
}

// ---- calibrator

std::unique_ptr<Calibrator> calibrator(const Settings& settings) {
  for (const SchemeEntry& entry : scheme_table())
    if (entry.name == "aqua_kv") {
      std::map<std::string, ParamValue> values;
      for (const auto& [key, value] : settings) values[key] = {value, 0};
      Params params("aqua_kv", "", values);
      return entry.calibrate(params);
    }
  FAIL("no aqua_kv");
  return nullptr;
}

// Layers whose keys and values follow from those of the layer before, and noise. One trace a sequence.
std::vector<Trace> correlated(int64_t layers, const std::vector<int64_t>& tokens, uint64_t seed) {
  std::vector<Maps> maps;
  for (int64_t layer = 1; layer < layers; ++layer) maps.push_back(random_maps(64, 900 + 10 * layer));
  std::vector<Trace> traces;
  for (const int64_t count : tokens) {
    Trace trace = random_trace(layers, 2, count, 32, seed += 50);
    for (size_t layer = 1; layer < static_cast<size_t>(layers); ++layer) {
      const at::Tensor keys = maps[layer - 1].keys.apply(merged(trace.k[layer - 1])) + .3 * merged(trace.k[layer]);
      const at::Tensor values =
          maps[layer - 1].values.apply(beside(keys, merged(trace.v[layer - 1]))) + .3 * merged(trace.v[layer]);
      trace.k[layer] = split_heads(keys, 32);
      trace.v[layer] = split_heads(values, 32);
    }
    traces.push_back(trace);
  }
  return traces;
}

CalibrationLayer layer_of(const std::vector<Trace>& traces, int64_t index) {
  CalibrationLayer layer;
  layer.index = index;
  for (const Trace& trace : traces) {
    layer.keys.push_back(trace.k[static_cast<size_t>(index)]);
    layer.values.push_back(trace.v[static_cast<size_t>(index)]);
  }
  return layer;
}

at::Tensor rows_of(const std::vector<at::Tensor>& sequences) {
  std::vector<at::Tensor> rows;
  for (const at::Tensor& x : sequences) rows.push_back(merged(x));
  return at::cat(rows);
}

Maps maps_in(const std::map<std::string, at::Tensor>& tensors) {
  return {{tensors.at("key_weight"), tensors.at("key_bias")}, {tensors.at("value_weight"), tensors.at("value_bias")}};
}

TEST_CASE("the calibrator fits to what readers get of the layer before, without the held-out sequences") {
  const std::vector<Trace> traces = correlated(3, {150, 90, 200, 120}, 1), trained(traces.begin(), traces.end() - 1);
  const auto calibrate = calibrator({{"k_bits", "3"}});
  at::Tensor keys, values;  // K~, V~ of the layer before
  for (int64_t layer = 0; layer < 3; ++layer) {
    INFO("layer " << layer);
    const auto tensors = calibrate->layer(layer_of(traces, layer));
    const CalibrationLayer train = layer_of(trained, layer);
    const at::Tensor k = rows_of(train.keys), v = rows_of(train.values);
    if (layer == 0) {
      CHECK(tensors.empty());
      keys = recoded(codec_of(4, 64, 64), k);
      values = recoded(codec_of(4, 64, 64), v);
      continue;
    }
    RidgeFit key_fit(64, 64, at::kCPU), value_fit(128, 64, at::kCPU);
    key_fit.add(keys, k);
    const AffineMap key_map = key_fit.solve(1e-3);
    const Maps maps = maps_in(tensors);
    CHECK(maps.keys.weight.allclose(key_map.weight, 1e-5, 1e-6));
    CHECK(maps.keys.bias.allclose(key_map.bias, 1e-5, 1e-6));
    at::Tensor predicted = maps.keys.apply(keys);
    keys = predicted + recoded(codec_of(3, 64, 64), k - predicted);
    value_fit.add(beside(keys, values), v);
    const AffineMap value_map = value_fit.solve(1e-3);
    CHECK(maps.values.weight.allclose(value_map.weight, 1e-4, 1e-5));
    CHECK(maps.values.bias.allclose(value_map.bias, 1e-4, 1e-5));
    predicted = maps.values.apply(beside(keys, values));
    values = predicted + recoded(codec_of(2, 64, 64), v - predicted);
  }
}

TEST_CASE("a calibration that was stopped ends in the same tensors and report") {
  const std::vector<Trace> traces = correlated(4, {100, 60, 80}, 2);
  const Settings settings = GENERATE(Settings{}, Settings{{"first_layer", "exact"}, {"predictor_type", "bf16"}});
  const auto whole = calibrator(settings);
  auto stopped = calibrator(settings);
  for (int64_t layer = 0; layer < 4; ++layer) {
    const auto a = whole->layer(layer_of(traces, layer)), b = stopped->layer(layer_of(traces, layer));
    REQUIRE(a.size() == b.size());
    for (const auto& [name, tensor] : a) CHECK(tensor.equal(b.at(name)));
    const auto state = stopped->state();
    stopped = calibrator(settings);
    stopped->restore(state);
  }
  CHECK(stopped->report() == whole->report());
  REQUIRE(whole->report().size() == 1 + 3 + 1);  // a head, layers 1 to 3, the mean
  CHECK_THAT(whole->report()[2], ContainsSubstring("layer 2"));
}

TEST_CASE("equivalent bits are those of the predictions' relative error") {
  const std::vector<Trace> traces = correlated(2, {400, 300}, 3);
  const auto calibrate = calibrator({{"first_layer", "exact"}});
  calibrate->layer(layer_of(traces, 0));
  const Maps maps = maps_in(calibrate->layer(layer_of(traces, 1)));
  const auto bits = [](const at::Tensor& y, const at::Tensor& prediction) {
    return -std::log(nmse(y, prediction)) / std::log(4.0);
  };
  const double train = bits(merged(traces[0].k[1]), maps.keys.apply(merged(traces[0].k[0])));
  const double held_out = bits(merged(traces[1].k[1]), maps.keys.apply(merged(traces[1].k[0])));
  CHECK_THAT(calibrate->report()[1], ContainsSubstring(fmt::format("keys {:5.2f} {:5.2f}", train, held_out)));
  CHECK(train > held_out);
  CHECK(held_out > 1);
}

TEST_CASE("calibrated predictors make AQUA-KV better than HIGGS alone where layers resemble one another") {
  const std::vector<Trace> traces = correlated(4, {600, 600, 600}, 4);
  const CacheContext context = context_of(4, 2, 32);
  const auto calibrate = calibrator({});
  std::vector<Maps> maps;
  for (int64_t layer = 0; layer < 4; ++layer) {
    const auto tensors = calibrate->layer(layer_of(traces, layer));
    if (layer > 0) maps.push_back(maps_in(tensors));
  }
  const Trace fresh = correlated(4, {300}, 777)[0];
  const auto aqua = filled(*make_scheme("aqua_kv", with(context, maps)), context, fresh, 300);
  const auto higgs = filled(*make_scheme("higgs", {}), context, fresh, 300);
  for (int64_t layer = 1; layer < 4; ++layer) {
    const auto at = static_cast<size_t>(layer);
    CHECK(nmse(merged(fresh.k[at]), keys_of(*aqua, layer)) < .5 * nmse(merged(fresh.k[at]), keys_of(*higgs, layer)));
    CHECK(nmse(merged(fresh.v[at]), values_of(*aqua, layer)) <
          .5 * nmse(merged(fresh.v[at]), values_of(*higgs, layer)));
  }
}

// ---- golden

constexpr const char* kChain = "train_predictors.get_predictor / get_dequant_values in the order of its main()";
constexpr const char* kCache =
    "TreatPrefixSeparately(PredictorHiggsCache(SingleChunkQuantizedCacheWithPredictors)).update";

TEST_CASE("every golden case of AQUA-KV is one that some test checks", "[golden]") {
  for (const auto& manifest : golden_manifests_or_skip("aquakv"))
    for (const GoldenCase& c : manifest->cases()) {
      INFO(c.label() << ": " << c.function());
      // Grids and HIGGS codes: lattice; ridge: predictor; the chain and the cache: below.
      const std::vector<std::string> known = {
          "edenn.GRIDS", "HiggsQuantizer.quantize/dequantize", "stored input", "fit_linear_regression", kChain, kCache};
      CHECK(std::find(known.begin(), known.end(), c.function()) != known.end());
    }
}

HiggsCodec codec_of(const std::vector<double>& grid, int64_t channels, int64_t group) {
  return {{static_cast<int64_t>(grid.at(0)), static_cast<int64_t>(grid.at(1)), group, at::kFloat, false}, 1, channels};
}

// Rows whose values are farther off than `share` of the row's norm.
int64_t rows_off(const at::Tensor& ours, const at::Tensor& wanted, double share) {
  REQUIRE(ours.sizes() == wanted.sizes());
  const at::Tensor off = (ours - wanted).abs().amax(1), norm = wanted.norm(2, 1);
  return off.gt(norm * share).sum().item<int64_t>();
}

double relative_distance(const at::Tensor& x, const at::Tensor& wanted) {
  return std::sqrt(nmse(wanted, x));
}

at::Tensor sample_rows(const at::Tensor& samples, int64_t length) {
  return (samples.unsqueeze(1) * length + at::arange(length).unsqueeze(0)).flatten();
}

AffineMap stored_map(const GoldenCase& c, const std::string& name) {
  return {c.output(name + "_weight"), c.output(name + "_bias")};
}

// One flipped code moves its row by more than the tolerance; rows of 64 channels have 32 codes.
constexpr int64_t kRowsPerFlip = 200;

TEST_CASE("predictors and reconstructions are the original's, layer by layer", "[golden]") {
  int64_t checked = 0, rows = 0, flipped = 0;
  for (const auto& manifest : golden_manifests_or_skip("aquakv"))
    for (const GoldenCase& c : manifest->cases()) {
      if (c.function() != kChain) continue;
      INFO(c.label());
      const std::vector<double> grid = {c.number("edenn_d"), c.number("edenn_n")};
      const int64_t group = c.integer("hadamard_groupsize"), length = c.integer("seqlen");
      const at::Tensor train = sample_rows(c.output("train_sample_ids"), length);
      // No grid: stored as it came.
      const auto reconstruct = [&](const at::Tensor& x, const at::Tensor& prediction, const std::vector<double>& codes,
                                   const std::string& name) {
        const at::Tensor ours =
            codes.empty() ? x : prediction + recoded(codec_of(codes, x.size(1), group), x - prediction);
        flipped += rows_off(ours, c.output(name + "_recon"), 5e-4);
        rows += x.size(0);
      };
      const auto regress = [&](const at::Tensor& x, const at::Tensor& y, const std::string& name) {
        INFO(name);
        RidgeFit fit(x.size(1), y.size(1), at::kCPU);
        const at::Tensor inputs = x.index_select(0, train), targets = y.index_select(0, train);
        fit.add(inputs, targets);
        const AffineMap ours = fit.solve(c.number("percdamp")), wanted = stored_map(c, name);
        CHECK(relative_distance(ours.weight, wanted.weight) < 1e-2);
        CHECK(relative_distance(ours.apply(x), wanted.apply(x)) < 3e-3);
        CHECK(nmse(targets, ours.apply(inputs)) ==
              Catch::Approx(c.output(name + "_relmse")[0].item<double>()).epsilon(1e-3));
        return wanted.apply(x);
      };
      const auto layers = static_cast<int64_t>(c.numbers("layers").size());
      for (int64_t layer = 0; layer < layers; ++layer) {
        const auto input = static_cast<size_t>(2 * layer);
        const at::Tensor k = merged(c.input(input)), v = merged(c.input(input + 1));
        const std::string here = fmt::format("layer{}_", layer), before = fmt::format("layer{}_", layer - 1);
        if (layer == 0) {
          const auto first = c.has("first_layer") ? c.numbers("first_layer") : std::vector<double>();
          reconstruct(k, at::zeros_like(k), first, here + "k");
          reconstruct(v, at::zeros_like(v), first, here + "v");
          continue;
        }
        const at::Tensor keys_before = c.output(before + "k_recon"), values_before = c.output(before + "v_recon");
        reconstruct(k, regress(keys_before, k, here + "key"), grid, here + "k");
        const at::Tensor inputs = beside(c.output(here + "k_recon"), values_before);
        reconstruct(v, regress(inputs, v, here + "value"), grid, here + "v");
      }
      ++checked;
    }
  WARN(checked << " chains, " << flipped << " of " << rows << " rows hold a near tie");
  CHECK(checked > 0);
  CHECK(flipped * kRowsPerFlip <= rows);
}

std::vector<double> numbers_in(const std::string& text) {
  static const std::regex number(R"(-?\d+(\.\d+)?)");
  std::vector<double> all;
  for (std::sregex_iterator at(text.begin(), text.end(), number), end; at != end; ++at)
    all.push_back(std::stod(at->str()));
  return all;
}

// The calibrator itself, told what the original rebuilt of the layer before. Values follow from keys that it rebuilt on
// its own: one near tie there moves their weights (see the manifest), so keys are compared.
TEST_CASE("the calibrator's key predictors are the original's", "[golden]") {
  int64_t checked = 0;
  for (const auto& manifest : golden_manifests_or_skip("aquakv"))
    for (const GoldenCase& c : manifest->cases()) {
      if (c.function() != kChain) continue;
      INFO(c.label());
      const int64_t length = c.integer("seqlen"), samples = c.integer("nsamples"), held_out = c.integer("valid");
      if (held_out != std::max<int64_t>(samples / 8, 1) || c.number("percdamp") != 1e-3) {
        WARN(c.name() << " holds out " << held_out << " of " << samples << " samples");
        continue;
      }
      const at::Tensor order = at::cat({c.output("train_sample_ids"), c.output("valid_sample_ids")});
      const auto cut = [&](const at::Tensor& rows, int64_t i) {
        return rows.narrow(0, order[i].item<int64_t>() * length, length);
      };
      const int64_t bits = std::lround(std::log2(c.number("edenn_n")) / c.number("edenn_d"));
      Settings settings = {{"hadamard_group", std::to_string(c.integer("hadamard_groupsize"))}};
      settings["k_bits"] = settings["v_bits"] = std::to_string(bits);
      if (c.integer("edenn_d") == 4) settings["grid"] = "EDEN4-256";
      const auto layers = static_cast<int64_t>(c.numbers("layers").size());
      for (int64_t layer = 1; layer < layers; ++layer) {
        const std::string here = fmt::format("layer{}_", layer), before = fmt::format("layer{}_", layer - 1);
        std::map<std::string, at::Tensor> state = {{"errors", at::zeros({4 * (layer - 1)}, at::kDouble)}};
        CalibrationLayer input;
        input.index = layer;
        const at::Tensor k = merged(c.input(static_cast<size_t>(2 * layer))),
                         v = merged(c.input(static_cast<size_t>(2 * layer + 1)));
        for (int64_t i = 0; i < samples; ++i) {
          state[fmt::format("keys.{}", i)] = cut(c.output(before + "k_recon"), i);
          state[fmt::format("values.{}", i)] = cut(c.output(before + "v_recon"), i);
          input.keys.push_back(cut(k, i).unsqueeze(0));
          input.values.push_back(cut(v, i).unsqueeze(0));
        }
        const auto calibrate = calibrator(settings);
        calibrate->restore(state);
        const Maps maps = maps_in(calibrate->layer(input));
        const AffineMap wanted = stored_map(c, here + "key");
        CHECK(relative_distance(maps.keys.weight, wanted.weight) < 1e-2);
        CHECK(relative_distance(maps.keys.apply(c.output(before + "k_recon")),
                                wanted.apply(c.output(before + "k_recon"))) < 3e-3);
        const std::vector<double> equivalent = numbers_in(calibrate->report()[static_cast<size_t>(layer)]);
        for (int64_t i = 0; i < 2; ++i)  // train, held out; printed with two digits
          CHECK(equivalent.at(static_cast<size_t>(i) + 1) ==
                Catch::Approx(-std::log2(c.output(here + "key_relmse")[i].item<double>()) / 2).margin(.02));
        ++checked;
      }
    }
  CHECK(checked > 0);
}

// The chain whose predictors a cache uses: the same grid and channels.
const GoldenCase& chain_of(const GoldenManifest& manifest, const GoldenCase& cache) {
  for (const GoldenCase& c : manifest.cases())
    if (c.function() == kChain && c.integer("edenn_n") == cache.integer("edenn_n") &&
        c.integer("edenn_d") == cache.integer("edenn_d") &&
        c.output("layer1_key_bias").size(0) == merged(cache.input(0)).size(1))
      return c;
  FAIL(cache.label() << " has no chain with its predictors");
  return cache;
}

TEST_CASE("the cache returns what the original's returns at every step that is kept", "[golden]") {
  int64_t checked = 0, rows = 0, flipped = 0;
  for (const auto& manifest : golden_manifests_or_skip("aquakv"))
    for (const GoldenCase& c : manifest->cases()) {
      if (c.function() != kCache) continue;
      INFO(c.label());
      const GoldenCase& chain = chain_of(*manifest, c);
      const at::Tensor frequencies = manifest->tensor("rope_inv_freq").to(at::kFloat).contiguous();
      const Rope rope({frequencies.const_data_ptr<float>(), frequencies.const_data_ptr<float>() + frequencies.numel()},
                      1, at::kCPU, 1024);
      const int64_t dim = rope.head_dim(), layers = c.integer("layers");
      Trace trace;
      for (size_t i = 0; i < c.inputs().size(); i += 2) {
        trace.k.push_back(split_heads(merged(c.input(i)), dim));
        trace.v.push_back(split_heads(merged(c.input(i + 1)), dim));
      }
      const CacheContext context{layers, trace.k[0].size(0), dim, at::kFloat, at::kCPU, &rope, 0};
      std::vector<Maps> maps;
      for (int64_t layer = 1; layer < layers; ++layer)
        maps.push_back({stored_map(chain, fmt::format("layer{}_key", layer)),
                        stored_map(chain, fmt::format("layer{}_value", layer))});
      Settings settings = {{"sink", std::to_string(c.integer("prefix"))},
                           {"recent", std::to_string(c.integer("buffer"))},
                           {"hadamard_group", std::to_string(chain.integer("hadamard_groupsize"))},
                           {"first_layer", c.flag("quantize_first_layer") ? "quantized" : "exact"}};
      settings["k_bits"] = settings["v_bits"] =
          std::to_string(std::lround(std::log2(c.number("edenn_n")) / c.number("edenn_d")));
      if (c.integer("edenn_d") == 4) settings["grid"] = "EDEN4-256";
      const auto cache = make_scheme("aqua_kv", with(context, maps, settings))->make_cache(context);
      const at::Tensor residency = c.output("residency");
      for (int64_t step = 0, held = 0; step < residency.size(0); ++step) {
        INFO("step " << step);
        const int64_t tokens = residency[step][0].item<int64_t>();
        for (int64_t layer = 0; layer < layers; ++layer) {
          const auto at = static_cast<size_t>(layer);
          cache->append(layer,
                        {trace.k[at].narrow(1, held, tokens - held), trace.v[at].narrow(1, held, tokens - held), held});
        }
        held = tokens;
        const auto compare = [&](const char* name, int64_t layer, const at::Tensor& ours) {
          const std::string output = fmt::format("ret_{}_l{}_step{}", name, layer, step);
          if (!c.has_output(output)) return;
          INFO(output);
          const int64_t off = rows_off(ours, c.output(output), 5e-4);
          flipped += off;
          rows += ours.size(0);
        };
        for (int64_t layer = 0; layer < layers; ++layer) {
          compare("k", layer, merged(rope.apply(decode_runs(cache->read(layer).keys), 0)));
          compare("v", layer, values_of(*cache, layer));
        }
        // The original compresses at the end of a step, the cache before the next one.
        const auto settled = cache->clone();
        settled->finish_context();
        int64_t coded = 0;
        for (const KvRun& run : settled->read(layers - 1).keys)
          if (!run.codec->exact()) coded += run.tokens;
        CHECK(coded == residency[step][2].item<int64_t>());
        const int64_t sink = std::min(tokens, c.integer("prefix"));
        CHECK(sink == residency[step][1].item<int64_t>());
        CHECK(tokens - sink - coded == residency[step][3].item<int64_t>());
      }
      ++checked;
    }
  WARN(checked << " caches, " << flipped << " of " << rows << " rows hold a near tie");
  CHECK(checked > 0);
  CHECK(flipped * kRowsPerFlip <= rows);
}

}  // namespace
}  // namespace kvsweep::testing
