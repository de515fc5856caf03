// contract: calibration shows a calibrator what the model computes, goes on where it was stopped to the same artifact,
// and refuses what does not belong to it.
#include "harness/run/calibration.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <limits>

#include "harness/core/error.h"
#include "harness/files/tensor_file.h"
#include "harness/run/interrupt.h"
#include "tests/support/golden.h"
#include "tests/support/process.h"
#include "tests/support/torch/model_directory.h"
#include "tests/support/torch/scheme_probe.h"
#include "tests/support/torch/tiny_model.h"

namespace kvsweep::testing {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Texts = std::vector<std::vector<int32_t>>;

// Sums of what it is shown, each layer's added to the one before, as a scheme that predicts from the layer before.
class SummingCalibrator : public Calibrator {
 public:
  explicit SummingCalibrator(bool reads_text = true) : reads_text_(reads_text) {}
  bool reads_text() const override { return reads_text_; }
  TensorMap layer(const CalibrationLayer& layer) override {
    shown.push_back(layer);
    at::Tensor own = layer.key_weight.sum(1) + 2 * layer.value_weight.sum(1);
    for (size_t i = 0; i < layer.keys.size(); ++i)
      own = own + (layer.keys[i] + 3 * layer.values[i]).sum(1).flatten() / static_cast<double>(i + 1);
    sum_ = sum_.defined() ? sum_ + own : own;
    return {{"sum", sum_.clone()}, {"index", at::tensor({layer.index})}};
  }
  TensorMap finish() override { return {{"total", sum_ * 2}}; }
  TensorMap state() const override { return {{"sum", sum_}}; }
  void restore(const TensorMap& state) override { sum_ = state.at("sum"); }

  std::vector<CalibrationLayer> shown;

 private:
  bool reads_text_;
  at::Tensor sum_;
};

LlamaConfig four_layers() {
  LlamaConfig config = tiny_config();
  config.layers = 4;
  return config;
}

Texts random_texts(int64_t sequences, int64_t tokens, int64_t vocab = 97) {
  Texts texts;
  for (int64_t i = 0; i < sequences; ++i) texts.push_back(random_tokens(tokens, vocab, 40 + static_cast<uint64_t>(i)));
  return texts;
}

ArtifactHeader header(const std::string& scheme = "summing") {
  ArtifactHeader header;
  header.scheme = scheme;
  header.params = {{"bits", "2"}, {"group", "32"}};
  header.model = "tiny";
  header.text = "a text";
  header.text_sha256 = "ab12";
  header.program = "0.0.0";
  return header;
}

const CalibrationProgress kIgnore = [](int64_t, double) {};

// Not a comparison of texts, which would be printed.
bool same_bytes(const fs::path& a, const fs::path& b) {
  return read_text(a) == read_text(b);
}

// Calls until the layer is done, or half done.
CalibrationProgress interrupt_at(int64_t layer, double done) {
  return [layer, done](int64_t at, double share) {
    if (at == layer && share >= done) throw Interrupted();
  };
}

}  // namespace

TEST_CASE("a calibrator is shown every layer's keys before RoPE, values and weights, as a prefill makes them") {
  const LlamaConfig config = GENERATE(from_range(tiny_configs()));
  const TinyWeights weights(config);
  const Llama llama(config, weights, {});
  const Texts texts = random_texts(3, 20, config.vocab);
  const TemporaryDirectory directory;
  SummingCalibrator calibrator;
  calibrate(llama, calibrator, header(), texts, directory.path() / "a", kIgnore);
  REQUIRE(std::ssize(calibrator.shown) == config.layers);
  for (int64_t i = 0; i < config.layers; ++i) {
    const CalibrationLayer& shown = calibrator.shown[static_cast<size_t>(i)];
    INFO("layer " << i << " of " << config.layers << ", " << config.kv_heads << " kv-heads");
    CHECK(shown.index == i);
    CHECK(shown.keys.size() == 3);
    const auto weight = [&](const char* name) {
      const std::string full = fmt::format("model.layers.{}.self_attn.{}_proj.weight", i, name);
      at::Tensor values = at::empty(weights.shape(full));
      weights.read(full, values.mutable_data_ptr<float>());
      return values;
    };
    CHECK(at::equal(shown.key_weight, weight("k")));
    CHECK(at::equal(shown.value_weight, weight("v")));
  }
  for (size_t sequence = 0; sequence < texts.size(); ++sequence)
    llama.prefill(
        texts[sequence],
        [&](int64_t layer, const KvSlab& slab) {
          const CalibrationLayer& shown = calibrator.shown[static_cast<size_t>(layer)];
          CHECK(at::equal(shown.keys[sequence], slab.k));
          CHECK(at::equal(shown.values[sequence], slab.v));
        },
        0);
}

TEST_CASE("keys and values come as float32 whatever the model computes in") {
  const LlamaConfig config = tiny_config();
  const Llama llama(config, TinyWeights(config), {.dtype = at::kBFloat16});
  const TemporaryDirectory directory;
  SummingCalibrator calibrator;
  calibrate(llama, calibrator, header(), random_texts(2, 9), directory.path() / "a", kIgnore);
  CHECK(calibrator.shown[1].keys[1].scalar_type() == at::kFloat);
  CHECK(calibrator.shown[1].key_weight.scalar_type() == at::kBFloat16);
}

TEST_CASE("an artifact holds the layers' tensors, those of the model, and where they come from") {
  const LlamaConfig config = four_layers();
  const Llama llama(config, TinyWeights(config), {.weights_sha256 = "feed"});
  const TemporaryDirectory directory;
  const fs::path out = directory.path() / "new/folder/a.safetensors";
  SummingCalibrator calibrator;
  calibrate(llama, calibrator, header(), random_texts(3, 20), out, kIgnore);
  const Artifact artifact = read_artifact(out, "summing");
  CHECK(artifact.tensors.size() == 4 * 2 + 1);
  for (int64_t i = 0; i < 4; ++i) CHECK(artifact.tensor(i, "index").item<int64_t>() == i);
  CHECK(at::equal(artifact.tensor("total"), 2 * artifact.tensor(3, "sum")));
  CHECK(artifact.header.params == header().params);
  CHECK(artifact.header.model == "tiny");
  CHECK(artifact.header.weights_sha256 == "feed");
  CHECK(artifact.header.layers == 4);
  CHECK(artifact.header.kv_heads == 2);
  CHECK(artifact.header.head_dim == 16);
  CHECK(artifact.header.text == "a text");
  CHECK(artifact.header.text_sha256 == "ab12");
  CHECK(artifact.header.sequences == 3);
  CHECK(artifact.header.tokens == 20);
  CHECK(artifact.header.program == "0.0.0");
  CHECK_FALSE(fs::exists(out.string() + ".partial"));
  CHECK_NOTHROW(artifact.check_model(llama.cache_context(8)));
}

TEST_CASE("an artifact that was interrupted at any layer is bit for bit one that was not") {
  const auto dtype = GENERATE(at::kFloat, at::kBFloat16);
  const bool reads_text = GENERATE(true, false);
  const LlamaConfig config = four_layers();
  const Llama llama(config, TinyWeights(config), {.dtype = dtype});
  const Texts texts = reads_text ? random_texts(3, 20) : Texts{};
  const TemporaryDirectory directory;
  SummingCalibrator whole(reads_text);
  calibrate(llama, whole, header(), texts, directory.path() / "whole", kIgnore);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (const double done : {0.5, 1.0}) {
      if (!reads_text && done < 1) continue;  // nothing happens within a layer
      INFO("stopped at " << done << " of layer " << layer);
      const fs::path out = directory.path() / "stopped";
      SummingCalibrator first(reads_text), second(reads_text);
      CHECK_THROWS_AS(calibrate(llama, first, header(), texts, out, interrupt_at(layer, done)), Interrupted);
      CHECK_FALSE(fs::exists(out));
      calibrate(llama, second, header(), texts, out, kIgnore);
      // Nothing that is on disk is computed again.
      CHECK(std::ssize(second.shown) == config.layers - layer - (done == 1 ? 1 : 0));
      CHECK(same_bytes(out, directory.path() / "whole"));
      CHECK_FALSE(fs::exists(out.string() + ".partial"));
      fs::remove(out);
    }
  }
}

TEST_CASE("an artifact stopped at every single layer is the same too") {
  const LlamaConfig config = four_layers();
  const Llama llama = tiny_llama(config);
  const Texts texts = random_texts(2, 12);
  const TemporaryDirectory directory;
  SummingCalibrator whole;
  calibrate(llama, whole, header(), texts, directory.path() / "whole", kIgnore);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    SummingCalibrator stopped;
    CHECK_THROWS_AS(calibrate(llama, stopped, header(), texts, directory.path() / "a", interrupt_at(layer, 1)),
                    Interrupted);
    CHECK(stopped.shown.size() == 1);
  }
  SummingCalibrator last;
  calibrate(llama, last, header(), texts, directory.path() / "a", kIgnore);
  CHECK(last.shown.empty());
  CHECK(same_bytes(directory.path() / "a", directory.path() / "whole"));
}

TEST_CASE("what another calibration left is refused with all that differs") {
  const LlamaConfig config = four_layers();
  const Llama llama(config, TinyWeights(config), {.weights_sha256 = "feed"});
  const Texts texts = random_texts(3, 20);
  const TemporaryDirectory directory;
  const fs::path out = directory.path() / "a";
  SummingCalibrator first;
  CHECK_THROWS_AS(calibrate(llama, first, header(), texts, out, interrupt_at(1, 1)), Interrupted);
  const auto check = [&](const Llama& other, const ArtifactHeader& asked, const Texts& text,
                         const std::string& message) {
    INFO(message);
    SummingCalibrator calibrator;
    CHECK_THROWS_MATCHES(
        calibrate(other, calibrator, asked, text, out, kIgnore), ConfigError,
        MessageMatches(ContainsSubstring("a.partial: was left by another calibration") && ContainsSubstring(message)));
    CHECK(calibrator.shown.empty());
    CHECK_FALSE(fs::exists(out));
  };
  ArtifactHeader asked = header("other");
  check(llama, asked, texts, "its scheme is 'summing', here it is 'other'");
  asked = header();
  asked.params[0].second = "3";
  check(llama, asked, texts, "its parameters is 'bits=2 group=32', here it is 'bits=3 group=32'");
  asked = header();
  asked.text_sha256 = "cd34";
  check(llama, asked, texts, "its text's sha256 is 'ab12', here it is 'cd34'");
  asked.text = "b text";
  check(llama, asked, texts, "its text is 'a text', here it is 'b text'; its text's sha256");
  asked = header();
  asked.program = "0.0.1";
  check(llama, asked, texts, "its program is '0.0.0', here it is '0.0.1'");
  check(llama, header(), random_texts(2, 20), "its sequences is '3', here it is '2'");
  check(llama, header(), random_texts(3, 21), "its tokens is '20', here it is '21'");
  check(Llama(config, TinyWeights(config), {.weights_sha256 = "food"}), header(), texts,
        "its weights is 'feed', here it is 'food'");
  check(Llama(config, TinyWeights(config), {.dtype = at::kHalf, .weights_sha256 = "feed"}), header(), texts,
        "its computation is 'cpu Float', here it is 'cpu Half'");
  SummingCalibrator same;
  calibrate(llama, same, header(), texts, out, kIgnore);
  CHECK(same.shown.size() == 2);
}

TEST_CASE("a state that is damaged is an error that names its file") {
  const Llama llama = tiny_llama(four_layers());
  const Texts texts = random_texts(2, 12);
  const TemporaryDirectory directory;
  const fs::path out = directory.path() / "a", state = directory.path() / "a.partial/state.safetensors";
  SummingCalibrator first;
  CHECK_THROWS_AS(calibrate(llama, first, header(), texts, out, interrupt_at(1, 1)), Interrupted);
  const std::string good = read_text(state);
  SummingCalibrator calibrator;
  const auto resume = [&] { calibrate(llama, calibrator, header(), texts, out, kIgnore); };
  write_text(state, good.substr(0, good.size() - 1));
  CHECK_THROWS_MATCHES(resume(), DataError, MessageMatches(ContainsSubstring("state.safetensors")));
  write_text(state, good);
  fs::remove(directory.path() / "a.partial/layer_0001.safetensors");
  CHECK_THROWS_MATCHES(resume(), DataError, MessageMatches(ContainsSubstring("layer_0001.safetensors")));
}

TEST_CASE("keys or values that are not finite name layer and sequence") {
  const LlamaConfig config = tiny_config();
  TinyWeights weights(config);
  weights.entry("model.layers.1.self_attn.v_proj.weight").values[0] = std::numeric_limits<float>::infinity();
  const Llama llama(config, weights, {});
  const TemporaryDirectory directory;
  SummingCalibrator calibrator;
  // Channel 0 of 32 for each of 9 tokens.
  CHECK_THROWS_MATCHES(calibrate(llama, calibrator, header(), random_texts(2, 9), directory.path() / "a", kIgnore),
                       DataError,
                       MessageMatches(ContainsSubstring("layer 1: 9 values of sequence 0 are NaN or infinite")));
  CHECK(calibrator.shown.size() == 1);
}

// The promise of state() and restore(), for every calibrator of the table.
TEST_CASE("every scheme's artifact is the same when its calibration was stopped, and its scheme reads it") {
  std::vector<const SchemeEntry*> calibrated;
  for (const SchemeEntry& entry : scheme_table())
    if (entry.calibrate) calibrated.push_back(&entry);
  if (calibrated.empty()) SKIP("no scheme of this build is calibrated");
  const SchemeEntry& entry = *GENERATE_REF(from_range(calibrated));
  INFO(entry.name);
  LlamaConfig config = four_layers();
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  const Llama llama(config, TinyWeights(config), {.weights_sha256 = "feed"});
  const TemporaryDirectory directory;
  const auto make = [&](const char* name, const CalibrationProgress& progress) {
    Params params(entry.name, "", {});
    const std::unique_ptr<Calibrator> calibrator = entry.calibrate(params);
    ArtifactHeader asked = header(entry.name);
    asked.params = params.resolved();
    calibrate(llama, *calibrator, asked, calibrator->reads_text() ? random_texts(4, 200) : Texts{},
              directory.path() / name, progress);
    return calibrator->report();
  };
  const std::vector<std::string> report = make("whole", kIgnore);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    INFO("stopped after layer " << layer);
    const std::string name = fmt::format("stopped{}", layer);
    CHECK_THROWS_AS(make(name.c_str(), interrupt_at(layer, 1)), Interrupted);
    CHECK(make(name.c_str(), kIgnore) == report);
    CHECK(same_bytes(directory.path() / name, directory.path() / "whole"));
  }
  const CacheContext context = llama.cache_context(64);
  const std::string file = (directory.path() / "whole").string();
  CHECK(make_scheme(entry.name, {{"artifact", file}})->make_cache(context) != nullptr);
  CacheContext other = context;
  other.weights_sha256 = "food";
  CHECK_THROWS_MATCHES(make_scheme(entry.name, {{"artifact", file}})->make_cache(other), ConfigError,
                       MessageMatches(ContainsSubstring("feed") && ContainsSubstring("food")));
}

namespace {

// A directory with a tiny model, a text and a scheme.
class Workplace {
 public:
  Workplace() {
    write_model_directory(path() / "model");
    std::string text;
    for (int i = 0; i < 400; ++i) text += fmt::format("line {} of a text. ", i * 7919 % 1000);
    fs::create_directories(path() / "data");
    write_text(path() / "data/text.txt", text);
  }
  const fs::path& path() const { return directory_.path(); }
  ProcessResult run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"--threads", "1"});
    return run_program(path(), arguments, {{"XDG_CACHE_HOME", (path() / "cache").string()}, {"OMP_NUM_THREADS", "1"}});
  }
  // `kvsweep calibrate` of a scheme, with further arguments.
  ProcessResult calibrate(const std::string& scheme, std::vector<std::string> more = {}) const {
    write_text(path() / "scheme.yaml", scheme);
    more.insert(more.begin(), {"calibrate", "model", "scheme.yaml", "--out", "out.safetensors"});
    return run(more);
  }

 private:
  TemporaryDirectory directory_;
};

// A scheme of the table whose calibrator reads text, or "".
std::string scheme_that_reads_text() {
  for (const SchemeEntry& entry : scheme_table()) {
    if (!entry.calibrate) continue;
    Params params = Params::describe(entry.name);
    if (entry.calibrate(params)->reads_text()) return entry.name;
  }
  return "";
}

}  // namespace

TEST_CASE("a person who asks for an artifact wrongly is told what is wrong, and nothing is written") {
  const Workplace place;
  const auto check = [&](const ProcessResult& result, const std::string& message) {
    INFO(result.err);
    CHECK(result.status == 2);
    CHECK_THAT(result.err, ContainsSubstring(message));
    CHECK_FALSE(fs::exists(place.path() / "out.safetensors"));
    CHECK_FALSE(fs::exists(place.path() / "out.safetensors.partial"));
  };
  check(place.calibrate("{name: uniform, k_bits: 2}"), "scheme.yaml: uniform needs no artifact; schemes that do: ");
  check(place.calibrate("{name: unifrom}"), "scheme.yaml:1: scheme 'unifrom' is not known; did you mean 'uniform'?");
  check(place.run({"calibrate", "model", "nowhere.yaml", "--out", "out.safetensors"}), "nowhere.yaml");
  check(place.run({"calibrate", "nowhere", "scheme.yaml", "--out", "out.safetensors"}), "nowhere");
  check(place.run({"calibrate", "model", "scheme.yaml"}), "--out is required");
  check(place.run({"artifact", "model/model.safetensors"}), "model.safetensors: is no artifact of `kvsweep calibrate`");
  const std::string name = scheme_that_reads_text();
  if (name.empty()) SKIP("no scheme of this build reads text to be calibrated");
  const std::string scheme = fmt::format("{{name: {}}}", name);
  check(place.calibrate(scheme), fmt::format("--text is required by {}: model", name));
  check(place.calibrate(scheme, {"--text", "wikitext2"}), "is what the task perplexity scores");
  check(place.calibrate(scheme, {"--text", "no/such.txt"}), "data 'no/such.txt' not found");
  check(place.calibrate(scheme, {"--text", "model", "--tokens", "4096"}), "--tokens 4096: the model model allows 2048");
  check(place.calibrate(scheme, {"--text", "data/text.txt", "--sequences", "1000"}),
        "--sequences 1000: data/text.txt has ");
  check(place.calibrate(fmt::format("{{name: {}, no_such_key: 1}}", name), {"--text", "model"}),
        fmt::format("scheme.yaml:1: {}.no_such_key is not a parameter", name));
}

TEST_CASE("the program makes an artifact, says what is in it, and keeps it from being made again") {
  const std::string name = scheme_that_reads_text();
  if (name.empty()) SKIP("no scheme of this build reads text to be calibrated");
  const Workplace place;
  const std::string scheme = fmt::format("{{name: {}}}", name);
  const std::vector<std::string> amount = {"--sequences", "4", "--tokens", "64", "--text"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), amount.begin(), amount.end());
    return place.calibrate(scheme, more);
  };
  const ProcessResult made = with({"text.txt", "--data", "data"});
  INFO(made.err);
  REQUIRE(made.status == 0);
  CHECK_THAT(made.out, ContainsSubstring("out.safetensors: "));
  CHECK_THAT(made.err, ContainsSubstring("4 sequences x 64 tokens of text.txt"));
  const fs::path out = place.path() / "out.safetensors", first = place.path() / "first", other = place.path() / "other";
  const ProcessResult shown = place.run({"artifact", "out.safetensors"});
  CHECK_THAT(shown.out, ContainsSubstring("text.txt, 4 sequences of 64 tokens"));
  CHECK_THAT(shown.out, ContainsSubstring(name));
  const ProcessResult again = with({"text.txt", "--data", "data"});
  CHECK(again.status == 2);
  CHECK_THAT(again.err, ContainsSubstring("out.safetensors: is there already; --force replaces it"));
  fs::copy_file(out, first);
  REQUIRE(with({"text.txt", "--data", "data", "--force"}).status == 0);
  CHECK(same_bytes(out, first));
  REQUIRE(with({"model", "--force"}).status == 0);
  CHECK_FALSE(same_bytes(out, first));
  fs::rename(out, other);
  REQUIRE(with({"model"}).status == 0);  // the text is kept, or the same again
  CHECK(same_bytes(out, other));
}

}  // namespace kvsweep::testing
