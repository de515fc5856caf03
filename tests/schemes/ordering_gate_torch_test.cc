// Gate: on SmolLM2 and real text, schemes stand in the order that the papers agree on, by more than chance.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <fstream>
#include <iterator>
#include <numeric>

#include "harness/run/calibration.h"
#include "harness/run/engine.h"
#include "harness/run/reference.h"
#include "models/load_model.h"
#include "tests/support/golden.h"
#include "tests/support/torch/evaluate.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWindows = 4, kContext = 512, kQuery = 96;

// The first tokens of a text of a data root, cut into sequences; a visible skip where no root has it.
std::vector<std::vector<int32_t>> sequences_or_skip(const Tokenizer& tokenizer, const fs::path& file, int64_t count,
                                                    int64_t tokens) {
  for (const fs::path& root : data_roots()) {
    if (!fs::exists(root / file)) continue;
    std::ifstream in(root / file, std::ios::binary);
    std::string text(static_cast<size_t>(count * tokens * 8), '\0');
    in.read(text.data(), std::ssize(text));
    text.resize(static_cast<size_t>(in.gcount()));
    const std::vector<int32_t> ids = tokenizer.encode(text, false);
    REQUIRE(std::ssize(ids) >= count * tokens);
    std::vector<std::vector<int32_t>> sequences;
    for (int64_t i = 0; i < count; ++i)
      sequences.emplace_back(ids.begin() + i * tokens, ids.begin() + (i + 1) * tokens);
    return sequences;
  }
  SKIP("no " << file.string() << " in a data root");
  return {};
}

struct Comparison {
  const char* claim;
  Settings better, worse;  // "name" and the scheme's own
};

std::unique_ptr<Scheme> make(Settings settings) {
  const std::string name = settings.extract("name").mapped();
  return make_scheme(name, settings);
}

// Mean KL to full precision over the scored positions of each window.
std::vector<std::vector<double>> kl_by_window(const Engine& engine, const std::vector<std::vector<int32_t>>& windows,
                                              const std::vector<const Scheme*>& schemes) {
  std::vector<std::vector<double>> means(schemes.size());
  for (const std::vector<int32_t>& window : windows) {
    Sample sample;
    sample.id = "window";
    sample.context.assign(window.begin(), window.begin() + kContext);
    sample.query.assign(window.begin() + kContext, window.end());
    const std::vector<RowResult> rows = evaluate(engine, sample, View{}, schemes);
    for (size_t i = 0; i < schemes.size(); ++i) {
      const std::vector<float>& kl = rows[i + 1].kl;
      means[i].push_back(std::accumulate(kl.begin(), kl.end(), 0.0) / static_cast<double>(kl.size()));
    }
  }
  return means;
}

TEST_CASE("published orderings hold on SmolLM2 and WikiText-2") {
  const c10::InferenceMode no_autograd;
  ModelSpec spec;
  spec.name = "smollm2-135m";
  spec.path = smollm2_or_skip();
  const LoadedModel model = load_model(spec);
  const auto windows =
      sequences_or_skip(*model.tokenizer, "wikitext2_raw/wikitext-test.hfjoin.txt", kWindows, kContext + kQuery);
  // Other text than what is scored.
  const auto book = sequences_or_skip(*model.tokenizer, "public_domain_books/frankenstein.txt", 16, 256);
  const TemporaryDirectory directory;
  const auto artifact = [&](const std::string& name, const Settings& settings) {
    const auto entry = std::find_if(scheme_table().begin(), scheme_table().end(),
                                    [&](const SchemeEntry& one) { return one.name == name; });
    std::map<std::string, ParamValue> values;
    for (const auto& [key, value] : settings) values[key] = {value, 0};
    Params params(name, "", values);
    const std::unique_ptr<Calibrator> calibrator = entry->calibrate(params);
    ArtifactHeader header;
    header.scheme = name;
    header.params = params.resolved();
    header.model = spec.name;
    const fs::path out = directory.path() / (name + ".safetensors");
    calibrate(*model.llama, *calibrator, header, calibrator->reads_text() ? book : std::vector<std::vector<int32_t>>{},
              out, [](int64_t, double) {});
    return out.string();
  };
  const std::string skvq = artifact("skvq", {{"group", "64"}});
  const std::string aqua = artifact("aqua_kv", {});
  const Settings uniform = {{"name", "uniform"}, {"group", "32"}, {"v_bits", "8"}, {"k_bits", "2"}};
  const auto with = [](Settings settings, const Settings& more) {
    for (const auto& [key, value] : more) settings[key] = value;
    return settings;
  };
  const std::vector<Comparison> comparisons = {
      {"KIVI: keys of 2 bits along tokens beat keys of 2 bits along channels",
       {{"name", "kivi"}, {"k_bits", "2"}, {"v_bits", "8"}, {"residual", "32"}},
       with(uniform, {{"window", "32"}})},
      {"KIVI at 4 bits beats KIVI at 2 bits",
       {{"name", "kivi"}, {"k_bits", "4"}, {"v_bits", "4"}, {"residual", "32"}},
       {{"name", "kivi"}, {"k_bits", "2"}, {"v_bits", "2"}, {"residual", "32"}}},
      {"KV-AdaQuant: K4V2 beats K2V4",
       {{"name", "hf_quanto"}, {"k_bits", "4"}, {"v_bits", "2"}},
       {{"name", "hf_quanto"}, {"k_bits", "2"}, {"v_bits", "4"}}},
      {"AQUA-KV at 2 bits beats its quantizer alone at 2 bits",
       {{"name", "aqua_kv"}, {"artifact", aqua}},
       {{"name", "higgs"}}},
      {"SKVQ: reordered and clipped channels beat neighbours as they come",
       {{"name", "skvq"}, {"group", "64"}, {"window", "32"}, {"artifact", skvq}},
       {{"name", "skvq"}, {"group", "64"}, {"window", "32"}, {"reorder", "false"}, {"clip", "1"}}},
      {"llama.cpp: rotated q4_0 beats q4_0",
       {{"name", "ggml"}, {"k_type", "q4_0"}, {"v_type", "q4_0"}, {"rotation", "auto"}},
       {{"name", "ggml"}, {"k_type", "q4_0"}, {"v_type", "q4_0"}, {"rotation", "off"}}},
      {"INT8 beats INT4",
       {{"name", "lmdeploy"}, {"k_bits", "8"}, {"v_bits", "8"}},
       {{"name", "lmdeploy"}, {"k_bits", "4"}, {"v_bits", "4"}}},
  };
  std::vector<std::unique_ptr<Scheme>> schemes;
  std::vector<const Scheme*> pointers;
  for (const Comparison& comparison : comparisons)
    for (const Settings& settings : {comparison.better, comparison.worse}) {
      schemes.push_back(make(settings));
      pointers.push_back(schemes.back().get());
    }
  const Reference reference = find_reference();
  const Engine engine(*model.llama, *model.tokenizer, *reference.scheme);
  const auto kl = kl_by_window(engine, windows, pointers);
  for (size_t i = 0; i < comparisons.size(); ++i) {
    double sum = 0, squares = 0;
    for (int64_t w = 0; w < kWindows; ++w) {
      // KL differs by factors from window to window: the logarithm of the ratio is what is compared.
      const double ratio = std::log(kl[2 * i + 1][static_cast<size_t>(w)] / kl[2 * i][static_cast<size_t>(w)]);
      sum += ratio;
      squares += ratio * ratio;
    }
    const double mean = sum / kWindows;
    const double standard_error = std::sqrt((squares / kWindows - mean * mean) / (kWindows - 1));
    UNSCOPED_INFO(comparisons[i].claim << ": KL " << kl[2 * i][0] << " against " << kl[2 * i + 1][0]
                                       << " in the first window, ratio " << std::exp(mean) << " +- "
                                       << std::exp(mean) * standard_error);
    CHECK(mean > 3 * standard_error);
  }
}

}  // namespace
}  // namespace kvsweep::testing
