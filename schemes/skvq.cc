// SKVQ: Sliding-window Key and Value Cache Quantization (arXiv 2405.06219), code cat538/SKVQ. Keys before RoPE and
// values are quantized token by token over the channels of all heads, after channels of similar range were brought
// together; the minimum and maximum of a group are clipped; the first tokens and the newest stay exact.
//
// Defaults are those of the LongBench and needle scripts (get_quantizer_from_str with "clip" and "sink5").
//
// Paper differs: clip is one factor a group, fitted offline to the attention's output; the code has one for all, and no
//   search for it was published. Scale and minimum are E4M3; in the code where "fp8" is asked for, as here. Ternary
//   codes count as 1.5 bits; the code stores them in two, as here, unless `ternary` is packed (1.6).
// Code differs: its E4M3 cast does not saturate (NaN above 464 spoils a group), ours does. Its k-means has ten starts
//   and no seed. Its CUDA kernel rounds clip to fp16 and may fuse product and sum; this is its PyTorch path. Its
//   perplexity script has group 64, window 0, clip 0.96 and fp8, and its prefill reads the compressed cache.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/core/scheme.h"
#include "harness/files/artifact.h"
#include "schemes/codec/clustered.h"
#include "schemes/parts/kmeans.h"
#include "schemes/parts/streamed_cache.h"

namespace kvsweep {
namespace {

constexpr const char* kName = "skvq";
constexpr int64_t kMaxTokens = 1 << 20;
constexpr uint64_t kSeed = 42;  // that of the original's text samples

struct LayerClusters {
  ChannelClusters keys, values;
};

int64_t levels_of(const std::string& bits) {
  return bits == "1.5" ? 3 : int64_t{1} << std::stoi(bits);
}

// What a scheme and its calibration read alike.
struct Settings {
  explicit Settings(Params& params);

  PerLayer<std::string> k_bits, v_bits;
  int64_t group = 0;
  bool reorder = false, trits = false;
  ClusteredOptions options;  // of a layer: with levels and trits
  Residency residency;

  ClusteredOptions options_of(const std::string& bits) const {
    ClusteredOptions own = options;
    own.levels = levels_of(bits);
    own.trits = trits && own.levels == 3;
    return own;
  }
  double mean_bits(const PerLayer<std::string>& bits, int64_t layers) const {
    double sum = 0;
    for (const std::string& own : bits.values(layers))
      sum += ClusteredCodec::bits_of(levels_of(own), trits && levels_of(own) == 3);
    return sum / static_cast<double>(layers);
  }
};

Settings::Settings(Params& params) {
  const std::vector<std::string> bits = {"1", "1.5", "2", "3", "4", "5", "6", "7", "8"};
  k_bits = params.layer_choices("k_bits", "2", bits, "bits of a key's code; 1.5: three levels");
  v_bits = params.layer_choices("v_bits", "2", bits, "bits of a value's code; 1.5: three levels");
  group = params.integer("group", 128, 2, 4096, "channels that share a scale and a minimum; with reorder on average");
  reorder = params.flag("reorder", true, "group channels of similar range, as an artifact says; false: neighbours");
  options.clip = params.number("clip", 0.92, 0.1, 1, "factor of a group's minimum and maximum");
  options.fp8 = params.choice("metadata", "arithmetic", {"arithmetic", "fp8"},
                              "type of scale and minimum: that of the arithmetic, or E4M3") == "fp8";
  options.codes_from_rounded =
      params.choice("codes_from", "unrounded", {"unrounded", "rounded"},
                    "codes are made from metadata before or after it is rounded to fp8") == "rounded";
  const std::string arithmetic =
      params.choice("arithmetic", "fp16", {"fp16", "bf16", "fp32"}, "every operation is rounded to it");
  options.arithmetic = arithmetic == "fp16" ? at::kHalf : arithmetic == "bf16" ? at::kBFloat16 : at::kFloat;
  trits = params.choice("ternary", "slots", {"slots", "packed"},
                        "codes of 1.5 bits: two bits each, or five in a byte") == "packed";
  residency.sink = params.integer("sink", 5, 0, kMaxTokens, "first tokens, kept exact");
  residency.window =
      params.integer("window", 128, 0, kMaxTokens, "newest tokens, kept exact; counts the token being decoded");
}

class Skvq final : public Scheme {
 public:
  explicit Skvq(Params& params);

  SchemeTraits traits() const override { return {.calibrated = artifact_.has_value()}; }
  NominalBits nominal_bits(int64_t layers) const override {
    return {settings_.mean_bits(settings_.k_bits, layers), settings_.mean_bits(settings_.v_bits, layers)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    const at::Tensor from = settings_.residency.compressed_from(context_tokens, tokens);
    return {from, from};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override;
  void account_shared(ByteLedger& ledger) const override {
    for (const LayerClusters& layer : clusters_)
      for (const ChannelClusters* side : {&layer.keys, &layer.values})
        for (const at::Tensor& index : {side->order, side->starts}) ledger.add(ByteRole::kIndex, index);
  }

 private:
  ChannelClusters read_clusters(int64_t layer, const std::string& side) const;
  ChannelClusters neighbours(const CacheContext& context) const;

  Settings settings_;
  std::optional<Artifact> artifact_;
  std::vector<LayerClusters> clusters_;  // of the artifact's layers
};

Skvq::Skvq(Params& params) : settings_(params) {
  const std::filesystem::path file = params.file("artifact", "of `kvsweep calibrate`: orders and clusters", false);
  params.finish();
  if (params.describing()) return;
  if (!settings_.reorder) {
    if (!file.empty()) params.reject("artifact", "is not read with reorder: false");
    return;
  }
  if (file.empty())
    params.reject("artifact",
                  "reorder: true needs one; `kvsweep calibrate MODEL SCHEME.yaml --text TEXT --out FILE` makes it, and "
                  "reorder: false does without");
  artifact_ = read_artifact(file, kName);
  for (const auto& [key, value] : artifact_->header.params)
    if (key == "group" && value != fmt::to_string(settings_.group))
      params.reject("group", fmt::format("{} was made with group {}", file.string(), value));
  for (int64_t layer = 0; layer < artifact_->header.layers; ++layer)
    clusters_.push_back({read_clusters(layer, "k"), read_clusters(layer, "v")});
}

ChannelClusters Skvq::read_clusters(int64_t layer, const std::string& side) const {
  const ChannelClusters clusters{artifact_->tensor(layer, side + "_order"), artifact_->tensor(layer, side + "_starts")};
  try {
    clusters.check(artifact_->header.kv_heads * artifact_->header.head_dim);
  } catch (const c10::Error& error) {
    throw DataError(fmt::format("{}: {} of layer {}: {}", artifact_->path.string(), side == "k" ? "keys" : "values",
                                layer, error.what_without_backtrace()));
  }
  return clusters;
}

ChannelClusters Skvq::neighbours(const CacheContext& context) const {
  const int64_t channels = context.kv_heads * context.head_dim;
  if (channels % settings_.group == 0) return ChannelClusters::neighbours(channels, settings_.group);
  std::vector<std::string> divisors;
  for (int64_t group = 2; group <= channels; ++group)
    if (channels % group == 0) divisors.push_back(fmt::to_string(group));
  throw ConfigError(
      fmt::format("{}.group = {} does not divide the model's {} channels ({} kv-heads x {}); these do: "
                  "{}. With reorder: true and an artifact it need not",
                  kName, settings_.group, channels, context.kv_heads, context.head_dim, join(divisors)));
}

std::unique_ptr<KvCache> Skvq::make_cache(const CacheContext& context) const {
  if (artifact_) artifact_->check_model(context);
  const auto k_bits = settings_.k_bits.values(context.layers), v_bits = settings_.v_bits.values(context.layers);
  const auto plan = [&](const std::string& bits, const ChannelClusters& clusters) -> StreamPlan {
    return {std::make_shared<ClusteredCodec>(settings_.options_of(bits), context.kv_heads, context.head_dim, clusters,
                                             context.device),
            settings_.residency};
  };
  std::vector<LayerPlan> plans;
  for (size_t layer = 0; layer < k_bits.size(); ++layer) {
    const LayerClusters own = artifact_ ? clusters_[layer] : LayerClusters{neighbours(context), neighbours(context)};
    plans.push_back({plan(k_bits[layer], own.keys), plan(v_bits[layer], own.values), KeyRotation::kPending});
  }
  return std::make_unique<StreamedCache>(context, plans);
}

// C / group clusters (whole, as in the original) of channels by their smallest and largest value over all text.
class ChannelCalibrator final : public Calibrator {
 public:
  explicit ChannelCalibrator(int64_t group) : group_(group) {}

  std::map<std::string, at::Tensor> layer(const CalibrationLayer& layer) override {
    std::map<std::string, at::Tensor> tensors;
    add(tensors, "k", layer.index, layer.keys, keys_);
    add(tensors, "v", layer.index, layer.values, values_);
    return tensors;
  }
  std::map<std::string, at::Tensor> state() const override {
    return {{"cluster_sizes", at::tensor({keys_.count, keys_.channels, keys_.least, keys_.most, values_.count,
                                          values_.channels, values_.least, values_.most},
                                         at::kLong)}};
  }
  void restore(const std::map<std::string, at::Tensor>& state) override {
    const auto* from = state.at("cluster_sizes").const_data_ptr<int64_t>();
    keys_ = {from[0], from[1], from[2], from[3]};
    values_ = {from[4], from[5], from[6], from[7]};
  }
  std::vector<std::string> report() const override { return {keys_.line("keys"), values_.line("values")}; }

 private:
  // Clusters of all layers so far.
  struct Sizes {
    int64_t count = 0, channels = 0, least = std::numeric_limits<int64_t>::max(), most = 0;

    void add(int64_t size) {
      ++count;
      channels += size;
      least = std::min(least, size);
      most = std::max(most, size);
    }
    std::string line(const char* side) const {
      return fmt::format("{}: {} clusters of {} to {} channels, {:.1f} on average", side, count, least, most,
                         static_cast<double>(channels) / static_cast<double>(count));
    }
  };

  void add(std::map<std::string, at::Tensor>& tensors, const std::string& side, int64_t layer,
           const std::vector<at::Tensor>& sequences, Sizes& sizes) const;

  int64_t group_;
  Sizes keys_, values_;
};

void ChannelCalibrator::add(std::map<std::string, at::Tensor>& tensors, const std::string& side, int64_t layer,
                            const std::vector<at::Tensor>& sequences, Sizes& sizes) const {
  at::Tensor low, high;  // [C]
  for (const at::Tensor& x : sequences) {
    const at::Tensor own_low = x.amin(1).flatten(), own_high = x.amax(1).flatten();
    low = low.defined() ? at::minimum(low, own_low) : own_low;
    high = high.defined() ? at::maximum(high, own_high) : own_high;
  }
  TORCH_CHECK(low.defined(), kName, ": no text was read");
  const at::Tensor features = at::stack({low, high}, 1).to(at::kCPU, at::kFloat);
  TORCH_CHECK(features.isfinite().all().item<bool>(), kName, ": NaN or infinity in layer ", layer);
  const int64_t channels = features.size(0);
  if (channels < group_)
    throw ConfigError(
        fmt::format("{}.group = {} is more than the model's {} channels of a layer", kName, group_, channels));
  const Clustering found =
      kmeans(features, channels / group_, derive_seed(kSeed, fmt::format("{}/layers.{}.{}", kName, layer, side)));
  const at::Tensor labels = at::tensor(found.labels, at::kLong);
  const at::Tensor counts = labels.bincount();
  for (int64_t k = 0; k < found.count; ++k) sizes.add(counts[k].item<int64_t>());
  tensors[side + "_order"] = labels.argsort(/*stable=*/true).to(at::kShort);
  tensors[side + "_starts"] = at::constant_pad_nd(counts.cumsum(0), {1, 0}).to(at::kShort);
  tensors[side + "_min"] = features.select(1, 0).contiguous();
  tensors[side + "_max"] = features.select(1, 1).contiguous();
}

}  // namespace

SchemeEntry skvq_entry() {
  return {kName,
          "codes of 1 to 8 bits over channels of all heads, reordered by range; keys before RoPE, sink and window",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<Skvq>(params); },
          [](Params& params) -> std::unique_ptr<Calibrator> {
            const Settings settings(params);
            params.finish();
            if (!settings.reorder && !params.describing())
              params.reject("reorder", "nothing is calibrated without reordering");
            return std::make_unique<ChannelCalibrator>(settings.group);
          }};
}

}  // namespace kvsweep
