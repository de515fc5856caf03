// Golden: what cat538/SKVQ's PyTorch path makes of real and synthetic tensors. Contract: bytes, artifact, settings.
#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <filesystem>
#include <set>

#include "harness/core/error.h"
#include "harness/files/artifact.h"
#include "schemes/codec/clustered.h"
#include "schemes/parts/streamed_cache.h"
#include "tests/support/golden.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

namespace fs = std::filesystem;
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

// --- helpers ------------------------------------------------------------------------------------------------------

const SchemeEntry& skvq() {
  for (const SchemeEntry& entry : scheme_table())
    if (entry.name == "skvq") return entry;
  FAIL("the table has no skvq");
  return scheme_table().front();
}

std::unique_ptr<Calibrator> make_calibrator(const Settings& settings) {
  std::map<std::string, ParamValue> values;
  for (const auto& [key, value] : settings) values[key] = {value, 0};
  Params params("skvq", "", values);
  return skvq().calibrate(params);
}

// A file in a folder of its own that goes with the object.
struct ArtifactFile {
  fs::path folder = fs::temp_directory_path() / ("kvsweep_skvq_" + std::to_string(reinterpret_cast<uintptr_t>(this)));
  fs::path path = folder / "skvq.safetensors";

  ArtifactFile() { fs::create_directories(folder); }
  ArtifactFile(const ArtifactFile&) = delete;
  ArtifactFile& operator=(const ArtifactFile&) = delete;
  ~ArtifactFile() { fs::remove_all(folder); }

  void write(const CacheContext& context, int64_t group, const TensorMap& tensors, const std::string& scheme = "skvq") {
    ArtifactHeader header;
    header.scheme = scheme;
    header.params = {{"group", std::to_string(group)}};
    header.model = "tiny";
    header.weights_sha256 = "0123";
    header.layers = context.layers;
    header.kv_heads = context.kv_heads;
    header.head_dim = context.head_dim;
    write_artifact(path, header, tensors);
  }
};

bool same(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor a = x.to(at::kFloat), b = y.to(at::kFloat);
  return a.sizes() == b.sizes() && a.eq(b).logical_or(a.isnan().logical_and(b.isnan())).all().item<bool>();
}

// --- golden -------------------------------------------------------------------------------------------------------

at::ScalarType dtype_of(const GoldenCase& golden) {
  const std::string name = golden.text("dtype");
  if (name == "fp32") return at::kFloat;
  if (name == "fp16") return at::kHalf;
  INFO("dtype " << name);
  REQUIRE(name == "bf16");
  return at::kBFloat16;
}

ClusteredOptions options_of(const GoldenCase& golden, double bits) {
  ClusteredOptions options;
  options.levels = bits == 1.5 ? 3 : int64_t{1} << static_cast<int64_t>(bits);
  options.clip = golden.number("clipping");
  options.arithmetic = dtype_of(golden);
  options.fp8 = golden.flag("fp8_params");
  options.saturate = false;
  return options;
}

ChannelClusters from_golden(const at::Tensor& order, const at::Tensor& starts) {
  return {order.to(at::kShort), starts.to(at::kShort)};
}

std::string tensor_name(const std::string& input) {
  return input.substr(0, input.find_first_of(" [("));
}

// The clusters that a case with reorder used: its own outputs, or those that another case of the manifest found in the
// same tensors.
ChannelClusters clusters_of(const GoldenManifest& manifest, const GoldenCase& golden, const std::string& side,
                            int64_t channels) {
  const int64_t group = golden.integer("group_size");
  if (!golden.flag("reorder")) return ChannelClusters::neighbours(channels, group);
  if (golden.has_output("reorder_idx")) return from_golden(golden.output("reorder_idx"), golden.output("group_start"));
  const std::string input = tensor_name(golden.inputs().at(side == "k" ? 0 : 1));
  for (const GoldenCase& other : manifest.cases())
    if (other.function() == "get_reorder_indices" && other.integer("group_size") == group &&
        tensor_name(other.inputs().at(side == "k" ? 0 : 1)) == input)
      return from_golden(other.output(side + "_reorder"), other.output(side + "_group_start"));
  FAIL(golden.label() << ": no case says how the channels of " << input << " were reordered");
  return {};
}

// The original's KIVI mode: the same arithmetic, in groups of tokens of one channel.
class ChannelwiseCodec final : public Codec {
 public:
  ChannelwiseCodec(const ClusteredOptions& options, int64_t group)
      : group_(group), groups_(options, 1, group, ChannelClusters::neighbours(group, group)) {}
  std::string name() const override { return "channelwise"; }
  int64_t group_tokens() const override { return group_; }
  double nominal_bits() const override { return groups_.nominal_bits(); }
  std::vector<PartSpec> parts() const override { return groups_.parts(); }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override {
    const int64_t heads = x.size(0), blocks = x.size(1) / group_, dim = x.size(2);
    std::vector<at::Tensor> parts = groups_.encode(
        x.reshape({heads, blocks, group_, dim}).transpose(2, 3).reshape({1, heads * blocks * dim, group_}));
    for (at::Tensor& part : parts) part = part.view({heads, blocks, dim, part.size(2)});
    return parts;
  }
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override {
    const int64_t heads = parts[0].size(0), blocks = parts[0].size(1), dim = parts[0].size(2);
    std::vector<at::Tensor> flat;
    for (const at::Tensor& part : parts) flat.push_back(part.reshape({1, heads * blocks * dim, part.size(3)}));
    return groups_.decode(flat).view({heads, blocks, dim, group_}).transpose(2, 3).reshape({heads, -1, dim});
  }

 private:
  int64_t group_;
  ClusteredCodec groups_;
};

void check_quantizer(const GoldenManifest& manifest, const GoldenCase& golden) {
  const at::Tensor x = golden.input(0).to(dtype_of(golden));
  const int64_t heads = x.size(0), tokens = x.size(1), dim = x.size(2);
  const std::string side = golden.text("tensor");
  const ClusteredCodec codec(options_of(golden, golden.number("bits")), heads, dim,
                             clusters_of(manifest, golden, side, heads * dim));
  const std::vector<at::Tensor> parts = codec.encode(x);
  CHECK(same(codec.decode(parts), golden.output("dequant")[0]));
  if (golden.has_output("codes"))
    CHECK(codec.unpack(parts[0]).equal(merged(golden.output("codes")[0]).view({1, tokens, heads * dim})));
  if (golden.has_output("scale")) CHECK(same(parts[1], golden.output("scale")));
  if (golden.has_output("zero")) CHECK(same(parts[2], golden.output("zero")));
  const std::vector<at::Tensor> by_ops = codec.encode_with_ops(x);
  for (size_t i = 0; i < parts.size(); ++i) CHECK(same(by_ops[i], parts[i]));
  CHECK(same(codec.decode_with_ops(parts), codec.decode(parts)));
}

// Sum of squared distances of channels, as points of their minimum and maximum, to the centre of their cluster.
double inertia(const at::Tensor& low, const at::Tensor& high, const at::Tensor& order, const at::Tensor& starts) {
  const at::Tensor points = at::stack({low, high}, 1).to(at::kDouble).index_select(0, order.to(at::kLong));
  double sum = 0;
  for (int64_t k = 0; k + 1 < starts.size(0); ++k) {
    const int64_t from = starts[k].item<int64_t>(), to = starts[k + 1].item<int64_t>();
    const at::Tensor own = points.narrow(0, from, to - from);
    if (to > from) sum += (own - own.mean(0, true)).square().sum().item<double>();
  }
  return sum;
}

void check_clusters(const GoldenCase& golden) {
  REQUIRE(golden.text("metric") == "minmax");
  const at::Tensor keys = golden.input(0), values = golden.input(1);
  const auto calibrator = make_calibrator({{"group", std::to_string(golden.integer("group_size"))}});
  const auto cut = [](const at::Tensor& x) {  // into two sequences
    const int64_t half = x.size(1) / 2;
    return std::vector<at::Tensor>{x.narrow(1, half, x.size(1) - half), x.narrow(1, 0, half)};
  };
  auto made = calibrator->layer({0, {}, {}, cut(keys), cut(values)});
  for (const std::string side : {"k", "v"}) {
    INFO(side);
    CHECK(made[side + "_min"].equal(golden.output(side + "_min")));
    CHECK(made[side + "_max"].equal(golden.output(side + "_max")));
    CHECK(made[side + "_starts"].size(0) == golden.integer("n_clusters") + 1);
    const auto of = [&](const at::Tensor& order, const at::Tensor& starts) {
      return inertia(golden.output(side + "_min"), golden.output(side + "_max"), order, starts);
    };
    CHECK(of(made[side + "_order"], made[side + "_starts"]) <=
          1.02 * of(golden.output(side + "_reorder"), golden.output(side + "_group_start")));
  }
}

// [exact tokens before, lossy tokens, exact tokens after]; all exact ones are `before` when none is lossy.
std::array<int64_t, 3> cut_of(const c10::SmallVector<KvRun, 3>& runs) {
  std::array<int64_t, 3> cut{};
  for (const KvRun& run : runs) {
    const bool lossy = !run.codec->exact();
    cut[lossy ? 1 : cut[1] > 0 ? 2 : 0] += run.tokens;
  }
  return cut;
}

void check_residency(const c10::SmallVector<KvRun, 3>& runs, const int32_t* sink_quantized_window) {
  const std::array<int64_t, 3> cut = cut_of(runs);
  CHECK(cut[1] == sink_quantized_window[1]);
  CHECK(cut[0] + cut[2] == sink_quantized_window[0] + sink_quantized_window[2]);
  if (cut[1] > 0) CHECK(cut[0] == sink_quantized_window[0]);
}

std::string bits_text(double bits) {
  return bits == 1.5 ? "1.5" : std::to_string(static_cast<int64_t>(bits));
}

// The scheme, or in KIVI mode streams of the same arithmetic.
std::unique_ptr<KvCache> machine_of(const GoldenManifest& manifest, const GoldenCase& golden,
                                    const CacheContext& context, ArtifactFile& artifact) {
  const int64_t channels = context.kv_heads * context.head_dim, group = golden.integer("group_size"),
                window = golden.integer("window");
  const double k_bits = golden.number("k_bits"), v_bits = golden.number("v_bits");
  if (golden.flag("KIVI_mode")) {
    const auto keys = std::make_shared<ChannelwiseCodec>(options_of(golden, k_bits), group);
    const auto values = std::make_shared<ClusteredCodec>(options_of(golden, v_bits), context.kv_heads, context.head_dim,
                                                         ChannelClusters::neighbours(channels, group));
    return std::make_unique<StreamedCache>(
        context, std::vector<LayerPlan>{
                     {{keys, {0, 0, window}}, {values, {0, window, 1}}, KeyRotation::kPending}});  // rotated already
  }
  const bool reorder = golden.flag("reorder");
  Settings settings = {{"k_bits", bits_text(k_bits)},
                       {"v_bits", bits_text(v_bits)},
                       {"group", std::to_string(group)},
                       {"clip", std::to_string(golden.number("clipping"))},
                       {"metadata", golden.flag("fp8_params") ? "fp8" : "arithmetic"},
                       {"arithmetic", golden.text("dtype")},
                       {"sink", std::to_string(golden.integer("sink"))},
                       {"window", std::to_string(window)},
                       {"reorder", reorder ? "true" : "false"}};
  if (reorder) {
    const ChannelClusters k = clusters_of(manifest, golden, "k", channels),
                          v = clusters_of(manifest, golden, "v", channels);
    artifact.write(context, group,
                   {{"layers.0.k_order", k.order},
                    {"layers.0.k_starts", k.starts},
                    {"layers.0.v_order", v.order},
                    {"layers.0.v_starts", v.starts}});
    settings["artifact"] = artifact.path.string();
  }
  return make_scheme("skvq", settings)->make_cache(context);
}

void check_machine(const GoldenManifest& manifest, const GoldenCase& golden) {
  const at::ScalarType dtype = dtype_of(golden);
  const at::Tensor keys = golden.input(0).to(dtype), values = golden.input(1).to(dtype);
  const int64_t prompt = golden.integer("prompt"), steps = golden.integer("decode");
  const CacheContext context{1, keys.size(0), keys.size(2), dtype, at::kCPU, nullptr, prompt + steps};
  ArtifactFile artifact;
  const auto cache = machine_of(manifest, golden, context, artifact);
  const at::Tensor residency = golden.output("residency").to(at::kInt).contiguous();
  REQUIRE(residency.size(0) == steps + 1);
  std::set<int64_t> kept;
  for (const double step : golden.numbers("kept_steps")) kept.insert(static_cast<int64_t>(step));
  for (int64_t step = 0; step <= steps; ++step) {
    INFO("step " << step);
    const int64_t from = step == 0 ? 0 : prompt + step - 1, to = prompt + step;
    cache->append(0, {keys.narrow(1, from, to - from), values.narrow(1, from, to - from), from});
    const KvView view = cache->read(0);
    const auto* row = residency.const_data_ptr<int32_t>() + 7 * step;
    CHECK(view.tokens() == row[0]);
    check_residency(view.keys, row + 1);
    check_residency(view.values, row + 4);
    if (!kept.contains(step)) continue;
    const std::string suffix = "_step" + std::to_string(step);
    CHECK(same(decode_runs(view.keys), golden.output("k" + suffix)[0]));
    CHECK(same(decode_runs(view.values), golden.output("v" + suffix)[0]));
  }
}

TEST_CASE("skvq gives the codes, scales and values of the original", "[golden]") {
  int64_t checked = 0;
  for (const auto& manifest : golden_manifests_or_skip("skvq"))
    for (const GoldenCase& golden : manifest->cases()) {
      if (golden.name().starts_with("quirk_")) {
        WARN("a defect of the original, not imitated: " << golden.name());
        continue;
      }
      INFO(golden.label());
      ++checked;
      if (golden.function() == "SKVQuantProcessor.quant_pytorch") {
        check_quantizer(*manifest, golden);
      } else if (golden.function() == "get_reorder_indices") {
        check_clusters(golden);
      } else if (golden.function() == "SlidingKVCacheManager.forward") {
        check_machine(*manifest, golden);
      } else {
        FAIL("unknown function " << golden.function());
      }
    }
  CHECK(checked > 0);
}

// --- contract -----------------------------------------------------------------------------------------------------

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 64, kChannels = kHeads * kDim, kTokens = 200;

struct Fixture {
  Rope rope{std::vector<float>(kDim / 2, 0.01F), 1, at::kCPU, 256};
  CacheContext context{kLayers, kHeads, kDim, at::kFloat, at::kCPU, &rope, kTokens};
  at::Tensor k = normals({kHeads, kTokens, kDim}, 1), v = normals({kHeads, kTokens, kDim}, 2);

  std::unique_ptr<KvCache> filled(const Scheme& scheme, int64_t tokens = kTokens) const {
    auto cache = scheme.make_cache(context);
    for (int64_t layer = 0; layer < kLayers; ++layer)
      cache->append(layer, {k.narrow(1, 0, tokens), v.narrow(1, 0, tokens), 0});
    return cache;
  }
  ByteLedger bytes(const Settings& settings) const {
    ByteLedger ledger;
    filled(*make_scheme("skvq", settings))->account(ledger);
    return ledger;
  }
  void refused(const Settings& settings, const std::string& why) const {
    INFO(describe("skvq", settings));
    CHECK_THROWS_MATCHES(make_scheme("skvq", settings)->make_cache(context), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  }
  // A layer whose channels have ranges of their own, one of seven a channel: class_of() + layer + 1 on either side.
  static int64_t class_of(int64_t channel, bool value) { return (value ? 3 * channel : channel) % 7; }
  CalibrationLayer layer(int64_t index) const {
    const auto ranges = [index](bool value) {
      std::vector<double> all;
      for (int64_t c = 0; c < kChannels; ++c) all.push_back(static_cast<double>(class_of(c, value) + index + 1));
      return at::tensor(all, at::kFloat).view({kHeads, 1, kDim});
    };
    CalibrationLayer layer;
    layer.index = index;
    for (uint64_t seed = 0; seed < 3; ++seed) {
      layer.keys.push_back(normals({kHeads, 40, kDim}, seed + 30).tanh() * ranges(false));
      layer.values.push_back(normals({kHeads, 40, kDim}, seed + 60).tanh() * ranges(true));
    }
    return layer;
  }
  // What `group` makes of both layers.
  TensorMap calibrated(int64_t group) const {
    const auto calibrator = make_calibrator({{"group", std::to_string(group)}});
    TensorMap tensors;
    for (int64_t index = 0; index < kLayers; ++index)
      for (const auto& [name, tensor] : calibrator->layer(layer(index)))
        tensors["layers." + std::to_string(index) + "." + name] = tensor;
    return tensors;
  }
};

const Settings kNeighbours = {{"reorder", "false"}, {"group", "64"}};

Settings neighbours_with(Settings settings) {
  settings.insert(kNeighbours.begin(), kNeighbours.end());
  return settings;
}

TEST_CASE_METHOD(Fixture, "skvq stores packed codes, a scale and a minimum a group and token, sink and window exact") {
  constexpr int64_t kExact = 5 + 128, kPacked = kTokens - kExact;
  const ByteLedger ledger = bytes(neighbours_with({{"k_bits", "3"}}));
  CHECK(ledger.live(ByteRole::kCodes) == kLayers * kPacked * (kChannels * 3 / 8 + kChannels * 2 / 8));  // K and V
  CHECK(ledger.live(ByteRole::kScales) == kLayers * kPacked * 2 * (kChannels / 64) * 2);                // of fp16
  CHECK(ledger.live(ByteRole::kZeros) == ledger.live(ByteRole::kScales));
  CHECK(ledger.live(ByteRole::kWindow) == kLayers * kExact * 2 * kChannels * 4);
}

TEST_CASE_METHOD(Fixture, "skvq with E4M3 metadata and packed ternary values stores a byte and a fifth of a byte") {
  const ByteLedger ledger = bytes(
      neighbours_with({{"metadata", "fp8"}, {"v_bits", "1.5"}, {"ternary", "packed"}, {"sink", "0"}, {"window", "0"}}));
  CHECK(ledger.live(ByteRole::kCodes) == kLayers * kTokens * (kChannels * 2 / 8 + (kChannels + 4) / 5));
  CHECK(ledger.live(ByteRole::kScales) == kLayers * kTokens * 2 * (kChannels / 64) * 1);
  CHECK(ledger.live(ByteRole::kWindow) == 0);
}

TEST_CASE_METHOD(Fixture, "the quantized part of a context costs bits + 32 / group, or bits + 16 / group with fp8") {
  const auto bits_a_value = [this](const Settings& settings) {
    const ByteLedger ledger = bytes(neighbours_with(settings));
    return 8.0 * static_cast<double>(ledger.live_bytes()) / static_cast<double>(2 * kLayers * kChannels * kTokens);
  };
  CHECK(bits_a_value({{"sink", "0"}, {"window", "0"}}) == 2 + 32.0 / 64);
  CHECK(bits_a_value({{"sink", "0"}, {"window", "0"}, {"metadata", "fp8"}}) == 2 + 16.0 / 64);
}

TEST_CASE("skvq's nominal bits are those of its payload: ternary codes take two, packed 1.6") {
  const NominalBits bits = make_scheme("skvq", neighbours_with({{"k_bits", "4"}}))->nominal_bits(kLayers);
  CHECK(bits.k == 4);
  CHECK(bits.v == 2);
  const Settings ternary = neighbours_with({{"v_bits", "1.5"}});
  CHECK(make_scheme("skvq", ternary)->nominal_bits(kLayers).v == 2);
  Settings packed = ternary;
  packed["ternary"] = "packed";
  CHECK(make_scheme("skvq", packed)->nominal_bits(kLayers).v == 1.6);
}

TEST_CASE_METHOD(Fixture, "skvq's bits may differ from layer to layer") {
  const ParamValue map{"2", 0, {{1, 1, "8", 0}}}, packed{"1.5", 0, {{0, 0, "3", 0}}};
  Params params("skvq", "night.yaml",
                {{"k_bits", map},
                 {"v_bits", packed},
                 {"reorder", {"false", 0}},
                 {"group", {"64", 0}},
                 {"ternary", {"packed", 0}}});
  const auto scheme = skvq().make(params);
  CHECK(scheme->nominal_bits(2).k == (2 + 8) / 2.0);
  CHECK(scheme->nominal_bits(4).v == Approx((3 + 3 * 1.6) / 4));
  const auto mixed = filled(*scheme), two = filled(*make_scheme("skvq", neighbours_with({{"v_bits", "3"}}))),
             eight = filled(*make_scheme("skvq", neighbours_with({{"k_bits", "8"}, {"v_bits", "1.5"}})));
  CHECK(decode_runs(mixed->read(0).keys).equal(decode_runs(two->read(0).keys)));
  CHECK(decode_runs(mixed->read(0).values).equal(decode_runs(two->read(0).values)));
  CHECK(decode_runs(mixed->read(1).keys).equal(decode_runs(eight->read(1).keys)));
  CHECK(decode_runs(mixed->read(1).values).equal(decode_runs(eight->read(1).values)));
  context.layers = 1;
  CHECK_THROWS_MATCHES(scheme->make_cache(context), ConfigError, MessageMatches(ContainsSubstring("names layer 1")));
}

// Sink 5, window 128: tokens held -> sink, quantized, window.
TEST_CASE_METHOD(Fixture, "skvq keeps the first and the newest tokens exact") {
  const auto scheme = make_scheme("skvq", kNeighbours);
  CHECK(cut_of(filled(*scheme, 5)->read(0).keys) == std::array<int64_t, 3>{5, 0, 0});
  CHECK(cut_of(filled(*scheme, 133)->read(0).keys) == std::array<int64_t, 3>{133, 0, 0});
  CHECK(cut_of(filled(*scheme, 134)->read(0).keys) == std::array<int64_t, 3>{5, 1, 128});
  CHECK(cut_of(filled(*scheme, 134)->read(1).values) == std::array<int64_t, 3>{5, 1, 128});
  CHECK(decode_runs(filled(*scheme, 133)->read(0).keys).equal(k.narrow(1, 0, 133)));
  CHECK(decode_runs(filled(*scheme, 133)->read(1).values).equal(v.narrow(1, 0, 133)));
  const auto held = filled(*scheme);
  const KvView view = held->read(0);
  for (const KvRun& run : view.keys) CHECK(run.rotation == KeyRotation::kPending);
}

TEST_CASE_METHOD(Fixture, "skvq's settings that do not fit are refused by name") {
  refused({}, "skvq.artifact = : reorder: true needs one; `kvsweep calibrate");
  refused({{"artifact", "none.safetensors"}}, "is no file");
  refused(
      {{"reorder", "false"}},
      "skvq.group = 128 does not divide the model's 192 channels (3 kv-heads x 64); these do: 2, 3, 4, 6, 8, 12, 16, "
      "24, 32, 48, 64, 96, 192");
  refused(neighbours_with({{"k_bits", "2.5"}}), "skvq.k_bits = '2.5' is not one of 1, 1.5, 2");
  refused(neighbours_with({{"v_bits", "9"}}), "skvq.v_bits");
  refused(neighbours_with({{"clip", "1.1"}}), "skvq.clip = 1.1 is outside [0.1, 1]");
  refused(neighbours_with({{"window", "-1"}}), "skvq.window");
  refused(neighbours_with({{"metadata", "e4m3"}}), "skvq.metadata");
  refused(neighbours_with({{"windows", "1"}}), "did you mean 'window'?");
  CHECK_THROWS_MATCHES(make_calibrator(kNeighbours), ConfigError, MessageMatches(ContainsSubstring("skvq.reorder")));
}

TEST_CASE_METHOD(Fixture, "an artifact of another group, model or scheme is refused, and so is one that is not read") {
  ArtifactFile file;
  const TensorMap tensors = calibrated(64);
  file.write(context, 64, tensors);
  const Settings own = {{"artifact", file.path.string()}, {"group", "64"}};
  CHECK(make_scheme("skvq", own)->traits().calibrated);
  CHECK_FALSE(make_scheme("skvq", kNeighbours)->traits().calibrated);
  refused({{"artifact", file.path.string()}}, "was made with group 64");
  refused(neighbours_with(own), "skvq.artifact = skvq.safetensors");
  CacheContext other = context;
  other.weights_sha256 = "4567";
  CHECK_THROWS_MATCHES(make_scheme("skvq", own)->make_cache(other), ConfigError,
                       MessageMatches(ContainsSubstring("0123") && ContainsSubstring("4567")));
  context.kv_heads = 4;
  refused(own, "3 kv-heads x 64 dims");
  context.kv_heads = kHeads;
  TensorMap damaged = tensors;
  damaged["layers.1.v_order"] = at::zeros({kChannels}, at::kShort);
  file.write(context, 64, damaged);
  CHECK_THROWS_MATCHES(make_scheme("skvq", own), DataError,
                       MessageMatches(ContainsSubstring("values of layer 1") && ContainsSubstring("no permutation")));
  damaged.erase("layers.1.v_order");
  file.write(context, 64, damaged);
  CHECK_THROWS_MATCHES(make_scheme("skvq", own), DataError, MessageMatches(ContainsSubstring("layers.1.v_order")));
  file.write(context, 64, tensors, "uniform");
  CHECK_THROWS_MATCHES(make_scheme("skvq", own), ConfigError, MessageMatches(ContainsSubstring("uniform")));
}

TEST_CASE_METHOD(Fixture, "skvq reads each layer's keys and values in the clusters of its artifact") {
  ArtifactFile file;
  const TensorMap tensors = calibrated(32);
  file.write(context, 32, tensors);
  const auto scheme = make_scheme("skvq", {{"artifact", file.path.string()}, {"group", "32"}, {"window", "0"}});
  const auto cache = filled(*scheme);
  ClusteredOptions options;
  options.clip = 0.92;
  int64_t index_bytes = 0;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const auto check = [&](const std::string& side, const at::Tensor& x, const c10::SmallVector<KvRun, 3>& runs) {
      const std::string name = "layers." + std::to_string(layer) + "." + side;
      const ChannelClusters clusters{tensors.at(name + "_order"), tensors.at(name + "_starts")};
      index_bytes += 2 * (kChannels + clusters.count() + 1);  // int16: an order, and starts with the end
      const ClusteredCodec codec(options, kHeads, kDim, clusters);
      const at::Tensor expected = codec.decode(codec.encode(x.narrow(1, 5, kTokens - 5)));
      CHECK(decode_runs(runs).equal(at::cat({x.narrow(1, 0, 5), expected}, 1)));
    };
    const KvView view = cache->read(layer);
    check("k", k, view.keys);
    check("v", v, view.values);
  }
  CHECK_FALSE(tensors.at("layers.0.k_order").equal(tensors.at("layers.1.k_order")));
  CHECK_FALSE(tensors.at("layers.0.k_order").equal(tensors.at("layers.0.v_order")));
  ByteLedger shared;
  scheme->account_shared(shared);
  CHECK(shared.live(ByteRole::kIndex) == index_bytes);
  CHECK(shared.live_bytes() == index_bytes);
  ByteLedger none;
  make_scheme("skvq", kNeighbours)->account_shared(none);
  CHECK(none.live_bytes() == 0);
}

TEST_CASE_METHOD(Fixture, "calibration brings channels of one range together, whatever head they are of") {
  const TensorMap tensors = calibrated(32);
  for (const std::string name : {"layers.0.k", "layers.0.v", "layers.1.k", "layers.1.v"}) {
    INFO(name);
    const int64_t layer = name[7] - '0';
    const at::Tensor order = tensors.at(name + "_order"), starts = tensors.at(name + "_starts");
    REQUIRE(starts.size(0) == kChannels / 32 + 1);
    ChannelClusters{order, starts}.check(kChannels);
    // Plain loops over the ranges: seven of them, in six clusters, so that each cluster's differ by one at most.
    for (int64_t j = 0; j + 1 < starts.size(0); ++j) {
      int64_t least = 7, most = 0, before = -1;
      std::set<int64_t> heads;
      for (int64_t at = starts[j].item<int64_t>(); at < starts[j + 1].item<int64_t>(); ++at) {
        const int64_t channel = order[at].item<int64_t>();
        CHECK(channel > before);  // stable: in their order inside a cluster
        before = channel;
        least = std::min(least, class_of(channel, name.ends_with("v")));
        most = std::max(most, class_of(channel, name.ends_with("v")));
        heads.insert(channel / kDim);
      }
      CHECK(most - least <= 1);
      CHECK(heads.size() == kHeads);
    }
    const at::Tensor low = tensors.at(name + "_min"), high = tensors.at(name + "_max");
    const CalibrationLayer given = this->layer(layer);
    for (int64_t c = 0; c < kChannels; ++c) {
      double least = 1e9, most = -1e9;
      for (const at::Tensor& x : name.ends_with("k") ? given.keys : given.values)
        for (int64_t t = 0; t < x.size(1); ++t) {
          const auto value = static_cast<double>(x[c / kDim][t][c % kDim].item<float>());
          least = std::min(least, value);
          most = std::max(most, value);
        }
      CHECK(low[c].item<float>() == static_cast<float>(least));
      CHECK(high[c].item<float>() == static_cast<float>(most));
    }
  }
}

TEST_CASE_METHOD(Fixture, "a calibration that was stopped ends in the same tensors and lines") {
  const auto whole = make_calibrator({{"group", "32"}}), first = make_calibrator({{"group", "32"}}),
             second = make_calibrator({{"group", "32"}});
  whole->layer(layer(0));
  first->layer(layer(0));
  second->restore(first->state());
  auto expected = whole->layer(layer(1)), resumed = second->layer(layer(1));
  REQUIRE(expected.size() == 8);  // order, starts, min and max of keys and of values
  for (const auto& [name, tensor] : expected) CHECK(resumed[name].equal(tensor));
  CHECK(second->report() == whole->report());
  REQUIRE(whole->report().size() == 2);
  CHECK_THAT(whole->report()[0], ContainsSubstring("keys: 12 clusters of ") && ContainsSubstring("32.0 on average"));
}

TEST_CASE_METHOD(Fixture, "calibration makes as many clusters as whole groups fit, and refuses none") {
  CHECK(calibrated(128).at("layers.0.k_starts").size(0) == 1 + 1);  // 192 / 128
  const auto too_large = make_calibrator({{"group", "193"}});
  CHECK_THROWS_MATCHES(too_large->layer(layer(0)), ConfigError,
                       MessageMatches(ContainsSubstring("skvq.group = 193 is more than the model's 192 channels")));
  CalibrationLayer bad = layer(0);
  bad.values[1] = bad.values[1].clone();
  bad.values[1][0][3][5].fill_(std::nan(""));
  CHECK_THROWS_WITH(make_calibrator({})->layer(bad), ContainsSubstring("NaN or infinity"));
}

TEST_CASE_METHOD(Fixture, "reordering helps where ranges differ, and clip where tails are long") {
  ArtifactFile file;
  file.write(context, 32, calibrated(32));
  const CalibrationLayer data = layer(0);
  k = at::cat(data.keys, 1);
  v = at::cat(data.values, 1);
  const auto loss = [&](Settings settings) {
    settings["window"] = "0";
    const auto cache = filled(*make_scheme("skvq", settings), k.size(1));
    return nmse(k, decode_runs(cache->read(0).keys)) + nmse(v, decode_runs(cache->read(0).values));
  };
  const double plain = loss({{"reorder", "false"}, {"group", "32"}});
  CHECK(loss({{"artifact", file.path.string()}, {"group", "32"}}) < 0.8 * plain);
  k = normals({kHeads, kTokens, kDim}, 1);
  v = normals({kHeads, kTokens, kDim}, 2);
  CHECK(loss(neighbours_with({})) < loss(neighbours_with({{"clip", "1"}})));
}

TEST_CASE("a file parameter that is not required resolves to nothing where it is not given") {
  Params params("skvq", "night.yaml", {});
  CHECK(params.file("artifact", "made by calibrate", false).empty());
  CHECK(params.resolved() == std::vector<std::pair<std::string, std::string>>{{"artifact", ""}});
  CHECK_FALSE(params.declarations()[0].required);
  CHECK_THROWS_MATCHES(params.file("other", "made by calibrate"), ConfigError,
                       MessageMatches(ContainsSubstring("skvq.other is required")));
}

}  // namespace
}  // namespace kvsweep::testing
