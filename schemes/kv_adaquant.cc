#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "harness/core/error.h"
#include "harness/core/scheme.h"
#include "harness/files/artifact.h"
#include "schemes/codec/hqq.h"
#include "schemes/codec/quanto.h"
#include "schemes/parts/bit_allocation.h"
#include "schemes/parts/requantized_cache.h"

namespace kvsweep {
namespace {

// KV-AdaQuant, "Quantize What Counts: More for Keys, Less for Values" (arXiv 2502.15075; package kvq of
// mohsenhariri/spectral-kv, e9ed423). Bits of each layer's keys and values are allocated under a budget from the norms
// of their projections' weights (Theorem 2: an error of ||M||^2 4^-b; kvq/bit_pattern.py, group_pattern.py:
// parts/bit_allocation.h). The cache is KVQ's: parts/requantized_cache.h with HQQ, or with quanto, with which the
// paper's Table 2 was made. Defaults are those of KVQConfig, with the bits and the budget of its evaluation
// (lm_eval: budget 4 over 1, 1.58, 2, 4, 6, 8); fixed bits, its `nbits`, are `budget: 0` with k_bits and v_bits.
// Nominal bits are those that were allocated, as budgets count them; slots in memory are larger: codec/hqq.h.
//
// Paper differs: its HQQ tables use groups of 128, the code's default is 64 (group: 128). It calls HQQ's groups
// "channel-wise"; axis 1, the code's default, cuts each token along its channels. Its budgets leave metadata out. It
// rests on ||W_K|| > ||W_V||, which models that normalise keys after the projection (Qwen3) do not have: there the rule
// takes bits from the keys.
//
// Code differs: its configuration takes budgets and bits only from HQQ's list; a budget may lie between here, as the
// allocator allows. Its own default list holds 3.5 bits, which HQQ refuses. Norms are its shipped JSON files; here
// those of the model that is run, in double, out of the artifact.
constexpr const char* kNorms = "norms";  // of a layer: [2, 2] double, K and V by Frobenius and spectral norm

const std::vector<std::string>& bit_names() {
  static const std::vector<std::string> names = {"1", "1.58", "2", "3", "4", "5", "6", "8"};
  return names;
}

// What scheme and calibrator both read.
struct Settings {
  bool quanto = false, spectral = false;
  double budget = 0;
  std::vector<double> range;
  PerLayer<std::string> k_bits, v_bits;
  int64_t group_budget = 0;
  GroupCut cut = GroupCut::kConsecutive;
  RequantizedParams cache;

  explicit Settings(Params& params);
  bool allocates() const { return budget > 0 || group_budget > 0; }
};

Settings::Settings(Params& params) {
  quanto = params.choice("backend", "hqq", {"hqq", "quanto"}, "quantizer of the cache") == "quanto";
  budget =
      params.number("budget", 4, 0, 8, "mean bits a value, allocated by norms; 0: k_bits and v_bits as they stand");
  const std::string allowed = quanto ? "2,4" : "1,1.58,2,4,6,8";
  const std::string list = params.text("bit_range", allowed, "bits that may be allocated, with commas between them");
  spectral = params.choice("score", "frobenius", {"frobenius", "spectral"}, "norm of the projections") == "spectral";
  std::vector<std::string> fixed = {"auto"};
  fixed.insert(fixed.end(), bit_names().begin(), bit_names().end());
  k_bits = params.layer_choices("k_bits", "auto", fixed, "bits of a key's code; auto: allocated");
  v_bits = params.layer_choices("v_bits", "auto", fixed, "bits of a value's code; auto: allocated");
  cache = RequantizedParams::read(params, 64, "bf16");
  group_budget = params.integer("group_budget", 0, 0, 256,
                                "group sizes out of 16, 32, 64, 128, 256, by norms, with the metadata that groups of "
                                "this size have; 0: group for all");
  const bool strided =
      params.choice("axis", "1", {"0", "1"},
                    "groups of HQQ: 1 channels of a token, 0 values far apart, of tokens and heads") == "0";
  if (strided && quanto) params.reject("axis", "quanto groups channels of a token here; allowed: 1");
  if (strided) cut = GroupCut::kStrided;
  if (group_budget > 0 && group_budget < 16) params.reject("group_budget", "allowed: 0 and [16, 256]");

  const std::vector<std::string> known = quanto ? std::vector<std::string>{"2", "4"} : bit_names();
  for (size_t at = 0; at <= list.size();) {
    const size_t stop = std::min(list.find(',', at), list.size());
    std::string item = list.substr(at, stop - at);
    item.erase(0, item.find_first_not_of(' '));
    item.erase(item.find_last_not_of(' ') + 1);
    if (std::find(known.begin(), known.end(), item) == known.end())
      params.reject("bit_range", fmt::format("'{}' is none of {}", item, join(known)));
    range.push_back(std::stod(item));
    at = stop + 1;
  }
  if (budget > 0 && budget < *std::min_element(range.begin(), range.end()))
    params.reject("budget", "is below the fewest bits of bit_range");
  for (const auto& [key, bits] : {std::pair{"k_bits", k_bits}, std::pair{"v_bits", v_bits}})
    for (const std::string& text : bits.distinct()) {
      if (budget > 0 && text != "auto") params.reject(key, "bits are allocated under `budget`; 0 there fixes them");
      if (budget == 0 && text == "auto") params.reject(key, "a budget of 0 needs bits here");
      if (text != "auto" && std::find(known.begin(), known.end(), text) == known.end())
        params.reject(key, fmt::format("{} lacks {} bits; allowed: {}", quanto ? "quanto" : "hqq", text, join(known)));
    }
}

struct Allocation {
  std::vector<double> k_bits, v_bits;     // [layers]; empty: fixed
  std::vector<int64_t> k_group, v_group;  // the same
};

// norms: [2, 2] of each layer.
Allocation allocate(const Settings& settings, const std::vector<at::Tensor>& norms) {
  std::vector<double> sensitivities;
  for (const at::Tensor& layer : norms)
    for (const int64_t side : {0, 1}) sensitivities.push_back(layer[side][settings.spectral ? 1 : 0].item<double>());
  const auto count = static_cast<double>(sensitivities.size());
  Allocation made;
  const auto deal = [](const auto& all, auto& keys, auto& values) {
    for (size_t i = 0; i < all.size(); ++i) (i % 2 == 0 ? keys : values).push_back(all[i]);
  };
  if (settings.budget > 0)
    deal(allocate_bits_greedy(sensitivities, settings.budget * count, settings.range), made.k_bits, made.v_bits);
  if (settings.group_budget > 0)
    deal(allocate_groups_greedy(sensitivities, count / static_cast<double>(settings.group_budget),
                                {16, 32, 64, 128, 256}),
         made.k_group, made.v_group);
  return made;
}

// [2]: Frobenius and spectral norm of [C, hidden], in double.
at::Tensor norms_of(const at::Tensor& weight) {
  const at::Tensor w = weight.to(at::kCPU, at::kDouble);
  const at::Tensor gram = w.size(0) <= w.size(1) ? w.matmul(w.t()) : w.t().matmul(w);
  return at::stack({w.square().sum().sqrt(), at::linalg_eigvalsh(gram).max().sqrt()});
}

class NormCalibrator final : public Calibrator {
 public:
  explicit NormCalibrator(Params& params) : settings_(params) {
    params.finish();
    if (!settings_.allocates()) params.reject("budget", "nothing is allocated by norms, no artifact is needed");
  }

  bool reads_text() const override { return false; }
  std::map<std::string, at::Tensor> layer(const CalibrationLayer& layer) override {
    norms_.push_back(at::stack({norms_of(layer.key_weight), norms_of(layer.value_weight)}));
    return {{kNorms, norms_.back()}};
  }
  std::map<std::string, at::Tensor> finish() override {
    const Allocation made = allocate(settings_, norms_);
    std::map<std::string, at::Tensor> tensors;
    if (settings_.budget > 0) {
      tensors["k_bits"] = at::tensor(made.k_bits, at::kDouble);
      tensors["v_bits"] = at::tensor(made.v_bits, at::kDouble);
    }
    if (settings_.group_budget > 0) {
      tensors["k_group"] = at::tensor(made.k_group, at::kLong);
      tensors["v_group"] = at::tensor(made.v_group, at::kLong);
    }
    return tensors;
  }
  std::map<std::string, at::Tensor> state() const override {
    if (norms_.empty()) return {};
    return {{kNorms, at::stack(norms_)}};
  }
  void restore(const std::map<std::string, at::Tensor>& state) override {
    norms_.clear();
    if (const auto all = state.find(kNorms); all != state.end())
      for (int64_t i = 0; i < all->second.size(0); ++i) norms_.push_back(all->second[i]);
  }
  std::vector<std::string> report() const override;

 private:
  Settings settings_;
  std::vector<at::Tensor> norms_;  // [2, 2] of each layer so far
};

std::vector<std::string> NormCalibrator::report() const {
  const Allocation made = allocate(settings_, norms_);
  const bool bits = !made.k_bits.empty(), groups = !made.k_group.empty();
  std::vector<std::string> lines = {fmt::format("layer  |W_K|  |W_V|{}{}   ({} norms)", bits ? "  K bits  V bits" : "",
                                                groups ? "  K group  V group" : "",
                                                settings_.spectral ? "spectral" : "Frobenius")};
  double sum = 0;
  for (size_t i = 0; i < norms_.size(); ++i) {
    const auto norm = [&](int64_t side) { return norms_[i][side][settings_.spectral ? 1 : 0].item<double>(); };
    std::string line = fmt::format("{:>5}  {:>5.4g}  {:>5.4g}", i, norm(0), norm(1));
    if (bits) line += fmt::format("  {:>6}  {:>6}", made.k_bits[i], made.v_bits[i]);
    if (groups) line += fmt::format("  {:>7}  {:>7}", made.k_group[i], made.v_group[i]);
    if (bits) sum += made.k_bits[i] + made.v_bits[i];
    lines.push_back(line);
  }
  if (bits)
    lines.push_back(fmt::format("mean bits {:.4g} of a budget of {:.4g}",
                                sum / (2 * static_cast<double>(norms_.size())), settings_.budget));
  return lines;
}

class KvAdaquant final : public Scheme {
 public:
  explicit KvAdaquant(Params& params) : settings_(params) {
    if (settings_.allocates() || params.describing()) {
      const std::filesystem::path path = params.file("artifact", "norms of the model's projections: kvsweep calibrate");
      if (!params.describing()) artifact_ = read_artifact(path, "kv_adaquant");
    }
    params.finish();
    if (!artifact_) return;
    std::vector<at::Tensor> norms;
    for (int64_t layer = 0; layer < artifact_->header.layers; ++layer)
      norms.push_back(artifact_->tensor(layer, kNorms));
    allocation_ = allocate(settings_, norms);
  }

  SchemeTraits traits() const override {
    return {.calibrated = artifact_.has_value(), .append_invariant = false, .one_pass = false};
  }
  NominalBits nominal_bits(int64_t layers) const override {
    const auto mean = [layers](const std::vector<double>& allocated, const PerLayer<std::string>& fixed) {
      if (allocated.empty()) return mean_bits(fixed, layers);
      double sum = 0;
      for (const double bits : allocated) sum += bits;
      return sum / static_cast<double>(allocated.size());
    };
    return {mean(allocation_.k_bits, settings_.k_bits), mean(allocation_.v_bits, settings_.v_bits)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    return RequantizedCache::compressed_from(settings_.cache.residual_length, context_tokens, tokens);
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override;

 private:
  std::shared_ptr<const Codec> codec(const CacheContext& context, double bits, int64_t group) const {
    const at::ScalarType dtype = settings_.cache.dtype;
    if (settings_.quanto)
      return std::make_shared<QuantoCodec>(QuantoOptions{static_cast<int64_t>(bits), settings_.cut, group, dtype},
                                           context.kv_heads, context.head_dim);
    return std::make_shared<HqqCodec>(HqqOptions{bits, settings_.cut, group, dtype}, context.kv_heads,
                                      context.head_dim);
  }

  Settings settings_;
  std::optional<Artifact> artifact_;
  Allocation allocation_;
};

std::unique_ptr<KvCache> KvAdaquant::make_cache(const CacheContext& context) const {
  if (artifact_) artifact_->check_model(context);
  const auto bits_of = [&](std::vector<double> allocated, const PerLayer<std::string>& fixed) {
    if (allocated.empty())
      for (const std::string& text : fixed.values(context.layers)) allocated.push_back(std::stod(text));
    return allocated;
  };
  const auto groups_of = [&](const std::vector<int64_t>& allocated) {
    return allocated.empty() ? std::vector(static_cast<size_t>(context.layers), settings_.cache.group) : allocated;
  };
  const std::vector<double> k_bits = bits_of(allocation_.k_bits, settings_.k_bits);
  const std::vector<double> v_bits = bits_of(allocation_.v_bits, settings_.v_bits);
  const std::vector<int64_t> k_group = groups_of(allocation_.k_group), v_group = groups_of(allocation_.v_group);
  std::vector<RequantizedPlan> plans;
  for (size_t i = 0; i < k_bits.size(); ++i)
    plans.push_back({codec(context, k_bits[i], k_group[i]), codec(context, v_bits[i], v_group[i])});
  return std::make_unique<RequantizedCache>(context, plans, settings_.cache.residual_length);
}

}  // namespace

SchemeEntry kv_adaquant_entry() {
  return {"kv_adaquant", "bits of keys and values by the norms of their projections, under a budget; HQQ or quanto",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<KvAdaquant>(params); },
          [](Params& params) -> std::unique_ptr<Calibrator> { return std::make_unique<NormCalibrator>(params); }};
}

}  // namespace kvsweep
