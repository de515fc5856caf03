// Contract and golden: norms, allocations, artifacts and bytes of kv_adaquant, and which settings it refuses.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "harness/files/artifact.h"
#include "models/weight_source.h"
#include "tests/support/golden.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 64, kPrompt = 100;

const SchemeEntry& entry() {
  for (const SchemeEntry& one : scheme_table())
    if (one.name == "kv_adaquant") return one;
  throw std::logic_error("no kv_adaquant");
}

std::unique_ptr<Calibrator> calibrator(const Settings& settings) {
  std::map<std::string, ParamValue> values;
  for (const auto& [key, value] : settings) values[key] = {value, 0};
  Params params("kv_adaquant", "", values);
  return entry().calibrate(params);
}

struct Fixture {
  Rope rope{std::vector<float>(kDim / 2, 0.01F), 1, at::kCPU, 256};
  CacheContext context{kLayers, kHeads, kDim, at::kFloat, at::kCPU, &rope, kPrompt};
  at::Tensor k = normals({kHeads, kPrompt, kDim}, 1), v = normals({kHeads, kPrompt, kDim}, 2);

  // Norms of K and V of both layers, Frobenius; the spectral ones are the other way round.
  Settings with_norms(const std::vector<double>& norms, Settings settings) {
    ArtifactHeader header{"kv_adaquant", {}, "toy", "", kLayers, kHeads, kDim, "", "", 0, 0, "test"};
    TensorMap tensors;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const double a = norms[static_cast<size_t>(2 * layer)], b = norms[static_cast<size_t>(2 * layer + 1)];
      tensors[fmt::format("layers.{}.norms", layer)] = at::tensor({a, b, b, a}, at::kDouble).view({2, 2});
    }
    path = folder.path() / "norms.safetensors";
    write_artifact(path, header, tensors);
    settings["artifact"] = path.string();
    return settings;
  }
  ByteLedger bytes(const Settings& settings) const {
    const auto cache = make_scheme("kv_adaquant", settings)->make_cache(context);
    for (int64_t layer = 0; layer < kLayers; ++layer) cache->append(layer, {k, v, 0});
    cache->finish_context();
    ByteLedger ledger;
    cache->account(ledger);
    return ledger;
  }

  TemporaryDirectory folder;
  std::filesystem::path path;
};

constexpr int64_t kValues = kHeads * kPrompt * kDim;  // of K or V of a layer

TEST_CASE_METHOD(Fixture, "a budget goes to the tensors of large norm, and is billed in hqq's slots") {
  // Mean 3 of 2 and 4 bits: two of four tensors get 4.
  const Settings settings = with_norms({9, 1, 8, 2}, {{"budget", "3"}, {"bit_range", "2,4"}});
  const auto scheme = make_scheme("kv_adaquant", settings);
  CHECK(scheme->traits().calibrated);
  CHECK(scheme->nominal_bits(kLayers).k == 4);
  CHECK(scheme->nominal_bits(kLayers).v == 2);
  const ByteLedger ledger = bytes(settings);
  CHECK(ledger.live(ByteRole::kCodes) == kLayers * kValues * (4 + 2) / 8);
  CHECK(ledger.live(ByteRole::kScales) == 2 * kLayers * kValues / 64 * 2);  // one for 64 values, bfloat16
  CHECK(ledger.live(ByteRole::kZeros) == ledger.live(ByteRole::kScales));
  CHECK(ledger.live(ByteRole::kWindow) == 0);
}

TEST_CASE_METHOD(Fixture, "one artifact serves every budget, score and backend") {
  Settings settings = with_norms({9, 1, 8, 2}, {{"budget", "3"}, {"bit_range", "2,4"}, {"score", "spectral"}});
  CHECK(make_scheme("kv_adaquant", settings)->nominal_bits(kLayers).k == 2);
  CHECK(make_scheme("kv_adaquant", settings)->nominal_bits(kLayers).v == 4);
  settings = with_norms({9, 1, 8, 2}, {{"budget", "2.5"}, {"backend", "quanto"}});
  CHECK(make_scheme("kv_adaquant", settings)->nominal_bits(kLayers).k == 3);  // only 9 goes from 2 to 4
  CHECK(make_scheme("kv_adaquant", settings)->nominal_bits(kLayers).v == 2);
  CHECK(bytes(settings).live(ByteRole::kCodes) == kValues * (4 + 2 + 2 + 2) / 8);
  settings = with_norms({100, 1, 90, 1}, {{"budget", "3.79"}, {"bit_range", "1.58, 6"}});
  CHECK(make_scheme("kv_adaquant", settings)->nominal_bits(kLayers).v == Catch::Approx(1.58));
  CHECK(bytes(settings).live(ByteRole::kCodes) == kLayers * kValues * (8 + 2) / 8);  // slots of 6 and 1.58 bits
}

TEST_CASE_METHOD(Fixture, "group sizes follow the norms when they have a budget") {
  const Settings settings =
      with_norms({16, 1, 16, 1}, {{"budget", "0"}, {"k_bits", "4"}, {"v_bits", "2"}, {"group_budget", "64"}});
  const ByteLedger ledger = bytes(settings);
  // 1 / sqrt(16) to 1 at a mean of 1 / 64 a tensor: 40 and 160, so 32 or 64 and 128 or 256.
  const int64_t k_groups = kLayers * kValues / 64, v_groups = kLayers * kValues / 64;
  CHECK(ledger.live(ByteRole::kScales) <= 2 * (k_groups + v_groups));
  const auto cache = make_scheme("kv_adaquant", settings)->make_cache(context);
  for (int64_t layer = 0; layer < kLayers; ++layer) cache->append(layer, {k, v, 0});
  cache->finish_context();
  const KvView view = cache->read(0);
  CHECK(view.keys[0].parts[1].numel() >= 2 * view.values[0].parts[1].numel());
}

TEST_CASE_METHOD(Fixture, "fixed bits need no artifact and may differ from layer to layer") {
  ParamValue map{"4", 0, {{1, 1, "8", 0}}};
  Params params("kv_adaquant", "", {{"budget", {"0", 0}}, {"k_bits", map}, {"v_bits", {"1.58", 0}}});
  const auto scheme = entry().make(params);
  CHECK_FALSE(scheme->traits().calibrated);
  CHECK(scheme->nominal_bits(kLayers).k == 6);
  CHECK(scheme->nominal_bits(kLayers).v == Catch::Approx(1.58));
  const auto cache = scheme->make_cache(context);
  for (int64_t layer = 0; layer < kLayers; ++layer) cache->append(layer, {k, v, 0});
  cache->finish_context();
  ByteLedger ledger;
  cache->account(ledger);
  CHECK(ledger.live(ByteRole::kCodes) == kValues * (4 + 8 + 2 + 2) / 8);
}

at::Tensor weight(double spectral, double second, int64_t rows, int64_t columns) {
  // Two orthogonal rows: singular values `spectral` and `second`.
  at::Tensor w = at::zeros({rows, columns});
  w[0].narrow(0, 0, 4).fill_(spectral / 2);
  w[1].narrow(0, 4, 4).fill_(second / 2);
  return w;
}

TEST_CASE("calibration takes both norms, allocates, reports and goes on where it was stopped") {
  const Settings settings = {{"budget", "3"}, {"bit_range", "2,4"}, {"group_budget", "64"}};
  const auto whole = calibrator(settings), first = calibrator(settings), second = calibrator(settings);
  CHECK_FALSE(whole->reads_text());
  CHECK(whole->state().empty());
  std::map<std::string, at::Tensor> last;
  for (int64_t index = 0; index < 2; ++index) {
    CalibrationLayer layer;
    layer.index = index;
    layer.key_weight = weight(40, 30, 8, index == 0 ? 16 : 40);
    layer.value_weight = weight(1, 1, 64, 10);  // more rows than columns
    last = whole->layer(layer);
    Calibrator& part = index == 0 ? *first : *second;
    if (index == 1) second->restore(first->state());
    CHECK(part.layer(layer).at("norms").equal(last.at("norms")));
  }
  const at::Tensor norms = last.at("norms");
  CHECK(norms.scalar_type() == at::kDouble);
  CHECK(norms[0][0].item<double>() == Catch::Approx(50));  // Frobenius of 40 and 30
  CHECK(norms[0][1].item<double>() == Catch::Approx(40));
  CHECK(norms[1][0].item<double>() == Catch::Approx(std::sqrt(2.0)));
  CHECK(norms[1][1].item<double>() == Catch::Approx(1));
  const auto made = whole->finish(), resumed = second->finish();
  CHECK(made.at("k_bits").equal(at::tensor({4, 4}, at::kDouble)));
  CHECK(made.at("v_bits").equal(at::tensor({2, 2}, at::kDouble)));
  CHECK(made.at("k_group").lt(made.at("v_group")).all().item<bool>());
  REQUIRE(made.size() == resumed.size());
  for (const auto& [name, tensor] : made) CHECK(resumed.at(name).equal(tensor));
  const std::vector<std::string> lines = whole->report();
  REQUIRE(lines.size() == 4);  // head, two layers, mean
  CHECK_THAT(lines[0], ContainsSubstring("Frobenius"));
  CHECK_THAT(lines[1], ContainsSubstring(" 50 ") && ContainsSubstring(" 1.414 "));
  CHECK_THAT(lines[3], ContainsSubstring("mean bits 3 of a budget of 3"));
}

TEST_CASE_METHOD(Fixture, "kv_adaquant refuses what it lacks, and foreign artifacts, by name") {
  const Settings made = with_norms({9, 1, 8, 2}, {});
  const auto refused = [&](Settings settings, const std::string& why) {
    INFO(describe("kv_adaquant", settings));
    CHECK_THROWS_MATCHES(make_scheme("kv_adaquant", settings)->make_cache(context), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  };
  const auto with = [&](Settings more) {
    more.insert(made.begin(), made.end());
    return more;
  };
  refused({}, "kv_adaquant.artifact is required");
  refused(with({{"budget", "9"}}), "kv_adaquant.budget = 9 is outside [0, 8]");
  refused(with({{"budget", "1.5"}, {"bit_range", "2,4"}}), "kv_adaquant.budget = 1.5: is below the fewest bits");
  refused(with({{"bit_range", "2,3.5"}}), "kv_adaquant.bit_range = 2,3.5: '3.5' is none of 1, 1.58, 2");
  refused(with({{"bit_range", "2,8"}, {"backend", "quanto"}}), "'8' is none of 2, 4");
  refused(with({{"k_bits", "4"}}), "kv_adaquant.k_bits = 4: bits are allocated under `budget`");
  refused({{"budget", "0"}}, "kv_adaquant.k_bits = auto: a budget of 0 needs bits here");
  refused({{"budget", "0"}, {"k_bits", "8"}, {"v_bits", "2"}, {"backend", "quanto"}}, "quanto lacks 8 bits");
  refused(with({{"group_budget", "8"}}), "kv_adaquant.group_budget = 8: allowed: 0 and [16, 256]");
  refused(with({{"axis", "0"}, {"backend", "quanto"}}), "kv_adaquant.axis = 0");
  context.kv_heads = 1;
  refused(made, "2 layers of 3 kv-heads x 64 dims");
  CHECK_THROWS_AS(calibrator({{"budget", "0"}, {"k_bits", "4"}, {"v_bits", "2"}}), ConfigError);
}

TEST_CASE("the norms of SmolLM2's projections are those of the original", "[golden]") {
  const auto& manifests = golden_manifests_or_skip("kv_adaquant");
  const auto weights = open_weights(smollm2_or_skip());
  const auto made = calibrator({});
  std::vector<at::Tensor> norms;
  for (int64_t index = 0; weights->has(fmt::format("model.layers.{}.self_attn.k_proj.weight", index)); ++index) {
    const auto read = [&](const char* name) {
      const std::string full = fmt::format("model.layers.{}.self_attn.{}.weight", index, name);
      at::Tensor w = at::empty(weights->shape(full), at::kFloat);
      weights->read(full, w.mutable_data_ptr<float>());
      return w;
    };
    CalibrationLayer layer;
    layer.index = index;
    layer.key_weight = read("k_proj");
    layer.value_weight = read("v_proj");
    norms.push_back(made->layer(layer).at("norms"));
  }
  const at::Tensor all = at::stack(norms).view({-1, 2});
  int64_t checked = 0;
  for (const auto& manifest : manifests)
    for (const GoldenCase& golden : manifest->cases()) {
      const std::string input = golden.inputs().empty() ? "" : golden.inputs()[0];
      const bool spectral = input == "spectral norm of the same";
      if (!spectral && !input.starts_with("Frobenius norm of k_proj/v_proj of SmolLM2")) continue;
      INFO(golden.label());
      CHECK(all.select(1, spectral ? 1 : 0).allclose(golden.output("sensitivities"), 1e-6, 0));
      ++checked;
    }
  CHECK(checked > 0);
}

}  // namespace
}  // namespace kvsweep::testing
