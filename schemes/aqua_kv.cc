#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <mutex>

#include "harness/core/error.h"
#include "harness/core/scheme.h"
#include "harness/core/token_buffer.h"
#include "harness/files/artifact.h"
#include "schemes/codec/exact.h"
#include "schemes/parts/finite.h"
#include "schemes/parts/higgs_settings.h"
#include "schemes/parts/predictor.h"

namespace kvsweep {
namespace {

// AQUA-KV (arXiv 2501.19392; goodevening13/aquakv at e744183, cache_utils.py and train_predictors.py). Q is the codec
// of lattice.h over a token's channels of all heads, C = H * D, keys before RoPE; K~, V~ are what a reader gets.
//
//   layer 0   K~ = Q(K), V~ = Q(V) with 4 bits, or exact
//   layer l   P = key map of l (K~ of l - 1),              K~ = P + Q(K - P)
//             P = value map of l ([K~ of l, V~ of l - 1]), V~ = P + Q(V - P)
//
// What is coded is the distance to what a reader will predict, so errors do not add up from layer to layer. Reading a
// layer takes the codes of all layers up to it: `rebuild` says when that is done.
//
// Paper differs: its bits leave out the predictors and count norms as 16 bits; here predictors are shared bytes and
// norms have the size that they have. Summaries of the paper keep the newest 128 tokens exact (`recent_rule: slide`);
// the code compresses all that wait once 128 wait.
// Code differs: predictors are float32 by default, not of the model's type, and the sequences that a calibration holds
// out are the last eighth, not a random one.

constexpr int64_t kFirstLayerBits = 4;

struct AquaSettings {
  explicit AquaSettings(Params& params);

  HiggsSettings higgs;
  bool first_exact = false, rebuild_once = true;
  at::ScalarType predictor_type = at::kFloat;
};

AquaSettings::AquaSettings(Params& params) : higgs(params) {
  first_exact = params.choice("first_layer", "quantized", {"quantized", "exact"},
                              "layer 0, which nothing predicts: 4 bits, or exact; k_bits and v_bits are those of the "
                              "others") == "exact";
  predictor_type = params.choice("predictor_type", "fp32", {"fp32", "bf16"}, "type of the predictors") == "fp32"
                       ? at::kFloat
                       : at::kBFloat16;
  rebuild_once =
      params.choice("rebuild", "once", {"once", "each_read"},
                    "keys and values are rebuilt from codes once and held beside them, or for each read") == "once";
  for (const auto& [key, bits] : {std::pair{"k_bits", &higgs.k_bits}, std::pair{"v_bits", &higgs.v_bits}})
    if (bits->at(0) != bits->at(std::numeric_limits<int64_t>::max()))
      params.reject(key, "layer 0 is stored as first_layer says; a map names layers from 1 on");
}

// Predictors depend on these: they have to be those of the calibration.
constexpr const char* kFitted[] = {"k_bits",    "v_bits",      "grid",          "hadamard_group",
                                   "norm_type", "first_layer", "predictor_type"};

// Of layer 0: undefined.
struct LayerMaps {
  AffineMap keys, values;
};

// What a reader gets of one layer: [tokens, C].
struct Rebuilt {
  at::Tensor keys, values;
};

at::Tensor merged(const at::Tensor& x) {  // [H, T, D] -> [T, C]
  return x.transpose(0, 1).reshape({x.size(1), x.size(0) * x.size(2)});
}

at::Tensor beside(const at::Tensor& keys, const at::Tensor& values) {
  return at::cat({keys.to(at::kFloat), values.to(at::kFloat)}, 1);
}

// What a codec makes of rows [tokens, C].
at::Tensor recoded(const Codec& codec, const at::Tensor& rows) {
  return codec.decode(codec.encode(rows.unsqueeze(0)))[0];
}

// Keys or values that the cache rebuilt from codes. Part: values [H, T, D].
class RebuiltCodec final : public Codec {
 public:
  explicit RebuiltCodec(double nominal_bits) : nominal_bits_(nominal_bits) {}
  std::string name() const override { return "rebuilt"; }
  bool rebuilt() const override { return true; }
  double nominal_bits() const override { return nominal_bits_; }
  std::vector<PartSpec> parts() const override { return {{"values", ByteRole::kWindow}}; }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override { return {x}; }
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override { return parts.at(0).to(at::kFloat); }

 private:
  double nominal_bits_;
};

// How keys or values of a layer are stored: heads merged, so that a codec sees one head of C channels.
struct SidePlan {
  std::shared_ptr<const Codec> codec;
  std::shared_ptr<const Codec> shown;  // of the run that a reader sees: the codec itself when it is exact
};

struct AquaPlan {
  std::vector<std::pair<SidePlan, SidePlan>> layers;  // keys, values
  std::shared_ptr<const std::vector<LayerMaps>> maps;
  Residency residency;
  bool rebuild_once;
};

class AquaCache final : public KvCache {
 public:
  AquaCache(const CacheContext& context, AquaPlan plan);

  void append(int64_t layer, const KvSlab& slab) override;
  void finish_context() override;
  KvView read(int64_t layer) const override;
  void account(ByteLedger& ledger) const override;
  std::unique_ptr<KvCache> clone() const override;

 private:
  struct Side {
    Side(SidePlan plan, const CacheContext& context, const AquaPlan& cache);
    // What a reader gets of the body; empty where that is made for each read.
    const TokenBuffer& kept() const { return plan.codec->exact() ? body[0] : rebuilt; }

    SidePlan plan;
    TokenBuffer sink, waiting, rebuilt;  // [1, tokens, C] of the compute dtype
    std::vector<TokenBuffer> body;       // one for each of the codec's parts
  };
  struct Layer {
    Side keys, values;
    int64_t end = 0;       // of what is in sink and body
    int64_t position = 0;  // of the first token
    int64_t tokens() const { return end + keys.waiting.size(); }
    int64_t in_body() const { return end - keys.sink.size(); }
  };
  // Tokens [first, first + count) of the bodies, rebuilt up to `layer`.
  struct Scratch {
    int64_t layer = -1, first = 0, count = 0;
    Rebuilt rows;
  };

  at::Tensor predict_keys(int64_t layer, const Rebuilt& before) const;
  at::Tensor predict_values(int64_t layer, const at::Tensor& keys, const Rebuilt& before) const;
  at::Tensor sum(const at::Tensor& prediction, const at::Tensor& residual) const;
  Rebuilt rebuilt_rows(int64_t layer, int64_t first, int64_t count, Scratch& scratch) const;
  void compress(int64_t layer, int64_t count);
  at::Tensor compress(Side& side, const at::Tensor& prediction, int64_t count);
  void add_runs(const Side& side, const at::Tensor& body, c10::SmallVector<KvRun, 3>& runs) const;

  AquaPlan plan_;
  int64_t heads_, head_dim_;
  at::ScalarType dtype_;
  std::shared_ptr<const Codec> exact_;
  std::vector<Layer> layers_;
  // Of `each_read`: what the layer before left for the next one, of the tokens that are being compressed and of those
  // that are being read.
  Scratch compressing_;
  mutable Scratch reading_;
};

at::Tensor no_tokens(const CacheContext& context) {
  return at::empty({1, 0, context.kv_heads * context.head_dim}, at::dtype(context.dtype).device(context.device));
}

AquaCache::Side::Side(SidePlan side, const CacheContext& context, const AquaPlan& cache)
    : plan(std::move(side)),
      sink(no_tokens(context), std::min(cache.residency.sink, context.expected_tokens)),
      waiting(no_tokens(context),
              std::min(2 * (cache.residency.window + cache.residency.block), context.expected_tokens)),
      rebuilt(no_tokens(context), cache.rebuild_once && !plan.codec->exact() ? context.expected_tokens : 0) {
  for (const at::Tensor& part : plan.codec->encode(no_tokens(context)))
    body.emplace_back(part, context.expected_tokens);
}

AquaCache::AquaCache(const CacheContext& context, AquaPlan plan)
    : plan_(std::move(plan)),
      heads_(context.kv_heads),
      head_dim_(context.head_dim),
      dtype_(context.dtype),
      exact_(std::make_shared<ExactCodec>(context.dtype)) {
  plan_.residency.check();
  for (const auto& [keys, values] : plan_.layers)
    layers_.push_back({Side(keys, context, plan_), Side(values, context, plan_)});
}

at::Tensor AquaCache::predict_keys(int64_t layer, const Rebuilt& before) const {
  return layer == 0 ? at::Tensor() : plan_.maps->at(static_cast<size_t>(layer)).keys.apply(before.keys);
}

at::Tensor AquaCache::predict_values(int64_t layer, const at::Tensor& keys, const Rebuilt& before) const {
  if (layer == 0) return {};
  return plan_.maps->at(static_cast<size_t>(layer)).values.apply(beside(keys, before.values));
}

// In the compute dtype, as the original's model holds it. Finite where fp16 would overflow.
at::Tensor AquaCache::sum(const at::Tensor& prediction, const at::Tensor& residual) const {
  const at::Tensor rows = prediction.defined() ? prediction + residual : residual;
  return dtype_ == at::kHalf ? rows.clamp(-65504, 65504).to(dtype_) : rows.to(dtype_);
}

Rebuilt AquaCache::rebuilt_rows(int64_t layer, int64_t first, int64_t count, Scratch& scratch) const {
  const auto body = [&](int64_t index) -> const Layer& {
    const Layer& at = layers_.at(static_cast<size_t>(index));
    TORCH_CHECK(first + count <= at.in_body(), "aqua_kv: layer ", index, " has ", at.in_body(),
                " compressed tokens where another needs ", first + count, ": layers come in order");
    return at;
  };
  if (plan_.rebuild_once) {
    const Layer& at = body(layer);
    const auto rows = [&](const Side& side) { return side.kept().rows()[0].narrow(0, first, count); };
    return {rows(at.keys), rows(at.values)};
  }
  if (scratch.first != first || scratch.count != count || scratch.layer > layer) scratch = {-1, first, count, {}};
  while (scratch.layer < layer) {
    const int64_t next = scratch.layer + 1;
    const auto residual = [&](const Side& side) {
      std::vector<at::Tensor> parts;
      for (const TokenBuffer& part : side.body) parts.push_back(part.rows().narrow(1, first, count));
      return side.plan.codec->decode(parts)[0];
    };
    const Layer& at = body(next);
    const at::Tensor keys = sum(predict_keys(next, scratch.rows), residual(at.keys));
    const at::Tensor values = sum(predict_values(next, keys, scratch.rows), residual(at.values));
    scratch = {next, first, count, {keys, values}};
  }
  return scratch.rows;
}

// Moves tokens from the front of those that wait into the body.
at::Tensor AquaCache::compress(Side& side, const at::Tensor& prediction, int64_t count) {
  const at::Tensor rows = side.waiting.rows().narrow(1, 0, count);
  const std::vector<at::Tensor> parts =
      side.plan.codec->encode(prediction.defined() ? rows.to(at::kFloat) - prediction : rows);
  for (size_t i = 0; i < parts.size(); ++i) side.body[i].append(parts[i]);
  const at::Tensor rebuilt = sum(prediction, side.plan.codec->decode(parts)[0]);
  if (plan_.rebuild_once && !side.plan.codec->exact()) side.rebuilt.append(rebuilt.unsqueeze(0));
  side.waiting.drop_front(count);
  return rebuilt;
}

void AquaCache::compress(int64_t layer, int64_t count) {
  Layer& at = layers_.at(static_cast<size_t>(layer));
  const int64_t first = at.in_body();
  const Rebuilt before = layer == 0 ? Rebuilt() : rebuilt_rows(layer - 1, first, count, compressing_);
  const at::Tensor keys = compress(at.keys, predict_keys(layer, before), count);
  const at::Tensor values = compress(at.values, predict_values(layer, keys, before), count);
  at.end += count;
  if (plan_.rebuild_once) return;
  const bool last = layer + 1 == static_cast<int64_t>(layers_.size());
  compressing_ = last ? Scratch() : Scratch{layer, first, count, {keys, values}};
}

void AquaCache::append(int64_t layer, const KvSlab& slab) {
  Layer& at = layers_.at(static_cast<size_t>(layer));
  const int64_t held = at.tokens(), fresh = slab.k.size(1);
  TORCH_CHECK(slab.k.sizes() == at::IntArrayRef({heads_, fresh, head_dim_}) && slab.k.sizes() == slab.v.sizes(),
              "cache: keys of sizes ", slab.k.sizes(), " and values of sizes ", slab.v.sizes());
  if (held == 0) at.position = slab.position;
  TORCH_CHECK(slab.position == at.position + held, "cache: layer ", layer, " holds positions ", at.position, " to ",
              at.position + held - 1, "; a slab at ", slab.position, " does not follow");
  if (fresh == 0) return;
  require_finite(layer, slab);
  const int64_t to_sink = std::clamp<int64_t>(plan_.residency.sink - held, 0, fresh);
  const int64_t end = plan_.residency.next_end(at.end, held, held + fresh);
  for (const auto& [side, x] : {std::pair{&at.keys, &slab.k}, std::pair{&at.values, &slab.v}}) {
    const at::Tensor rows = merged(*x).unsqueeze(0);
    side->sink.append(rows.narrow(1, 0, to_sink));
    side->waiting.append(rows.narrow(1, to_sink, fresh - to_sink));
  }
  at.end += to_sink;
  if (end > at.end) compress(layer, end - at.end);
}

void AquaCache::finish_context() {
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const Layer& at = layers_[layer];
    const int64_t count = plan_.residency.next_end(at.end, at.tokens(), at.tokens() + 1) - at.end;
    if (count > 0 && count <= at.keys.waiting.size()) compress(static_cast<int64_t>(layer), count);
  }
}

void AquaCache::add_runs(const Side& side, const at::Tensor& body, c10::SmallVector<KvRun, 3>& runs) const {
  const auto add = [&](const Codec* codec, const at::Tensor& rows) {  // [tokens, C]
    if (rows.size(0) == 0) return;
    KvRun& run = runs.emplace_back();
    run.codec = codec;
    run.parts = {rows.view({rows.size(0), heads_, head_dim_}).transpose(0, 1)};
    run.tokens = rows.size(0);
    run.rotation = KeyRotation::kPending;
  };
  add(exact_.get(), side.sink.rows()[0]);
  add(side.plan.shown.get(), body);
  add(exact_.get(), side.waiting.rows()[0]);
}

KvView AquaCache::read(int64_t layer) const {
  const Layer& at = layers_.at(static_cast<size_t>(layer));
  const Rebuilt body = rebuilt_rows(layer, 0, at.in_body(), reading_);
  KvView view;
  add_runs(at.keys, body.keys, view.keys);
  add_runs(at.values, body.values, view.values);
  view.position = at.position;
  return view;
}

void AquaCache::account(ByteLedger& ledger) const {
  for (const Layer& layer : layers_)
    for (const Side* side : {&layer.keys, &layer.values}) {
      const std::vector<PartSpec> parts = side->plan.codec->parts();
      ledger.add(ByteRole::kWindow, side->sink.rows());
      for (size_t i = 0; i < parts.size(); ++i) ledger.add(parts[i].role, side->body[i].rows());
      ledger.add(ByteRole::kWindow, side->waiting.rows());
      ledger.add_rebuilt(side->rebuilt.rows());
    }
  for (const Rebuilt& rows : {compressing_.rows, reading_.rows}) {
    ledger.add_rebuilt(rows.keys);
    ledger.add_rebuilt(rows.values);
  }
}

std::unique_ptr<KvCache> AquaCache::clone() const {
  auto copy = std::make_unique<AquaCache>(*this);
  for (Layer& layer : copy->layers_)
    for (Side* side : {&layer.keys, &layer.values}) {
      for (TokenBuffer* rows : {&side->sink, &side->waiting, &side->rebuilt}) *rows = rows->clone();
      for (TokenBuffer& part : side->body) part = part.clone();
    }
  copy->compressing_ = copy->reading_ = {};
  return copy;
}

class AquaKv final : public Scheme {
 public:
  explicit AquaKv(Params& params);

  SchemeTraits traits() const override { return {.calibrated = true, .append_invariant = false}; }
  NominalBits nominal_bits(int64_t layers) const override;
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    const at::Tensor from = settings_.higgs.residency.compressed_from(context_tokens, tokens);
    return {from, from};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override;
  void account_shared(ByteLedger& ledger) const override;

 private:
  void load(const std::filesystem::path& path, const Params& params);
  std::shared_ptr<const std::vector<LayerMaps>> maps_on(at::Device device) const;

  AquaSettings settings_;
  Artifact artifact_;  // without its tensors
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const std::vector<LayerMaps>> maps_;  // on the device of the last cache
};

AquaKv::AquaKv(Params& params) : settings_(params) {
  const std::filesystem::path path = params.file("artifact", "predictors: `kvsweep calibrate` of this scheme");
  params.finish();
  if (!params.describing()) load(path, params);
}

std::string value_of(const std::vector<std::pair<std::string, std::string>>& params, const std::string& key) {
  const auto at = std::find_if(params.begin(), params.end(), [&key](const auto& one) { return one.first == key; });
  return at == params.end() ? "unknown" : at->second;
}

void AquaKv::load(const std::filesystem::path& path, const Params& params) {
  artifact_ = read_artifact(path, params.owner());
  for (const char* key : kFitted) {
    const std::string here = value_of(params.resolved(), key), there = value_of(artifact_.header.params, key);
    if (here != there)
      params.reject(key, fmt::format("{} was made with {} = {}: predictors fit what they were made with", path.string(),
                                     key, there));
  }
  const int64_t channels = artifact_.header.kv_heads * artifact_.header.head_dim;
  auto maps = std::make_shared<std::vector<LayerMaps>>(static_cast<size_t>(artifact_.header.layers));
  for (int64_t layer = 1; layer < artifact_.header.layers; ++layer) {
    const auto map = [&](const std::string& name, int64_t in) {
      const AffineMap read{artifact_.tensor(layer, name + "_weight"), artifact_.tensor(layer, name + "_bias")};
      if (read.weight.sizes() != at::IntArrayRef({channels, in}) || read.bias.sizes() != at::IntArrayRef({channels}))
        throw DataError(fmt::format("{}: the {} predictor of layer {} does not map {} channels to {}", path.string(),
                                    name, layer, in, channels));
      return read;
    };
    maps->at(static_cast<size_t>(layer)) = {map("key", channels), map("value", 2 * channels)};
  }
  artifact_.tensors.clear();
  maps_ = std::move(maps);
}

NominalBits AquaKv::nominal_bits(int64_t layers) const {
  const auto mean = [&](const PerLayer<int64_t>& bits) {
    const double first = settings_.first_exact ? 16 : static_cast<double>(kFirstLayerBits);
    const auto count = static_cast<double>(layers);
    return mean_of(bits, layers) + (first - static_cast<double>(bits.at(0))) / count;
  };
  return {mean(settings_.higgs.k_bits), mean(settings_.higgs.v_bits)};
}

std::shared_ptr<const std::vector<LayerMaps>> AquaKv::maps_on(at::Device device) const {
  const std::lock_guard lock(mutex_);
  if (maps_->size() > 1 && maps_->at(1).keys.weight.device() != device) {
    auto moved = std::make_shared<std::vector<LayerMaps>>(*maps_);
    for (LayerMaps& layer : *moved)
      for (AffineMap* map : {&layer.keys, &layer.values})
        if (map->weight.defined()) *map = {map->weight.to(device), map->bias.to(device)};
    maps_ = std::move(moved);
  }
  return maps_;
}

std::unique_ptr<KvCache> AquaKv::make_cache(const CacheContext& context) const {
  artifact_.check_model(context);
  const HiggsSettings& higgs = settings_.higgs;
  const auto k_bits = higgs.k_bits.values(context.layers), v_bits = higgs.v_bits.values(context.layers);
  const auto coded = [&](int64_t bits) {
    auto codec = higgs.codec(bits, 1, context.kv_heads * context.head_dim);
    return SidePlan{codec, std::make_shared<RebuiltCodec>(codec->nominal_bits())};
  };
  AquaPlan plan{{}, maps_on(context.device), higgs.residency, settings_.rebuild_once};
  const auto exact = std::make_shared<ExactCodec>(context.dtype);
  const SidePlan first = settings_.first_exact ? SidePlan{exact, exact} : coded(kFirstLayerBits);
  plan.layers.emplace_back(first, first);
  for (size_t layer = 1; layer < k_bits.size(); ++layer)
    plan.layers.emplace_back(coded(k_bits[layer]), coded(v_bits[layer]));
  return std::make_unique<AquaCache>(context, std::move(plan));
}

void AquaKv::account_shared(ByteLedger& ledger) const {
  const std::lock_guard lock(mutex_);
  for (const LayerMaps& layer : *maps_)
    for (const AffineMap* map : {&layer.keys, &layer.values}) {
      ledger.add(ByteRole::kCodebook, map->weight);
      ledger.add(ByteRole::kCodebook, map->bias);
    }
}

// Fits the maps of a layer to what the layer before was rebuilt to. Sink and window are ignored: every token is coded.
// Holds K~ and V~ of one layer, 8 C bytes a token, beside the layer that it is given (as much again) and the sums of
// predictor.h: for 2 million tokens of C = 1024 16 GiB, as much for the layer, and 0.15 GiB.
class AquaCalibrator final : public Calibrator {
 public:
  explicit AquaCalibrator(Params& params) : settings_(params) { params.finish(); }

  std::map<std::string, at::Tensor> layer(const CalibrationLayer& layer) override;
  std::map<std::string, at::Tensor> state() const override;
  void restore(const std::map<std::string, at::Tensor>& state) override;
  std::vector<std::string> report() const override;

 private:
  static constexpr double kDamping = 1e-3;
  using Inputs = std::function<at::Tensor(size_t sequence, int64_t first, int64_t count)>;

  // Sequences from this one on are held out.
  static size_t first_held_out(size_t sequences) {
    return sequences - std::max<size_t>(sequences / 8, sequences > 1 ? 1 : 0);
  }
  // Calls work(sequence, first row, targets [rows, C]).
  template <class Work>
  static void for_each_block(const std::vector<at::Tensor>& targets, const Work& work);
  AffineMap fit(const std::vector<at::Tensor>& targets, const Inputs& inputs, int64_t in) const;
  // What a reader gets of the targets; `map` undefined: nothing predicts them. Appends to errors_ otherwise.
  void rebuild(const std::vector<at::Tensor>& targets, const AffineMap& map, const Inputs& inputs, const Codec& codec,
               std::vector<at::Tensor>& rebuilt);

  AquaSettings settings_;
  std::vector<at::Tensor> keys_, values_;  // K~, V~ of the last layer: [T, C] float32, one a sequence
  std::vector<double> errors_;             // relative; layers from 1 on: of keys, of values; train, then held out
};

template <class Work>
void AquaCalibrator::for_each_block(const std::vector<at::Tensor>& targets, const Work& work) {
  for (size_t sequence = 0; sequence < targets.size(); ++sequence) {
    const int64_t tokens = targets[sequence].size(1);
    for (int64_t first = 0; first < tokens; first += RidgeFit::kRows) {
      const int64_t count = std::min(RidgeFit::kRows, tokens - first);
      work(sequence, first, merged(targets[sequence].narrow(1, first, count)).to(at::kFloat));
    }
  }
}

AffineMap AquaCalibrator::fit(const std::vector<at::Tensor>& targets, const Inputs& inputs, int64_t in) const {
  RidgeFit ridge(in, targets.at(0).size(0) * targets[0].size(2), targets[0].device());
  const size_t end = first_held_out(targets.size());
  for_each_block(targets, [&](size_t sequence, int64_t first, const at::Tensor& rows) {
    if (sequence < end) ridge.add(inputs(sequence, first, rows.size(0)), rows);
  });
  const AffineMap map = ridge.solve(kDamping);
  return {map.weight.to(settings_.predictor_type), map.bias.to(settings_.predictor_type)};
}

void AquaCalibrator::rebuild(const std::vector<at::Tensor>& targets, const AffineMap& map, const Inputs& inputs,
                             const Codec& codec, std::vector<at::Tensor>& rebuilt) {
  RelativeError train, held_out;
  at::Tensor current;
  for_each_block(targets, [&](size_t sequence, int64_t first, const at::Tensor& rows) {
    if (first == 0) current = at::empty({targets[sequence].size(1), rows.size(1)}, rows.options());
    const at::Tensor out = current.narrow(0, first, rows.size(0));
    if (map.weight.defined()) {
      const at::Tensor prediction = map.apply(inputs(sequence, first, rows.size(0)));
      (sequence < first_held_out(targets.size()) ? train : held_out).add(rows, prediction);
      out.copy_(prediction + recoded(codec, rows - prediction));
    } else {
      out.copy_(recoded(codec, rows));
    }
    if (first + rows.size(0) == current.size(0)) rebuilt[sequence] = current;
  });
  if (!map.weight.defined()) return;
  errors_.push_back(train.value());
  errors_.push_back(held_out.value());
}

std::map<std::string, at::Tensor> AquaCalibrator::layer(const CalibrationLayer& layer) {
  const size_t sequences = layer.keys.size();
  TORCH_CHECK(sequences > 0, "aqua_kv: calibration needs text");
  const int64_t channels = layer.keys[0].size(0) * layer.keys[0].size(2);
  const auto codec = [&](const PerLayer<int64_t>& bits) -> std::shared_ptr<const Codec> {
    if (layer.index == 0 && settings_.first_exact) return std::make_shared<ExactCodec>(at::kFloat);
    return settings_.higgs.codec(layer.index == 0 ? kFirstLayerBits : bits.at(layer.index), 1, channels);
  };
  const auto key_codec = codec(settings_.higgs.k_bits), value_codec = codec(settings_.higgs.v_bits);
  if (layer.index == 0) {
    keys_.resize(sequences);
    values_.resize(sequences);
    rebuild(layer.keys, {}, {}, *key_codec, keys_);
    rebuild(layer.values, {}, {}, *value_codec, values_);
    return {};
  }
  TORCH_CHECK(keys_.size() == sequences, "aqua_kv: layer ", layer.index, " has ", sequences,
              " sequences, the one before ", keys_.size());
  // Each sequence is replaced when it is done, so that one layer is held and not two.
  const Inputs keys_before = [&](size_t sequence, int64_t first, int64_t count) {
    return keys_[sequence].narrow(0, first, count);
  };
  const Inputs keys_and_values_before = [&](size_t sequence, int64_t first, int64_t count) {
    return beside(keys_[sequence].narrow(0, first, count), values_[sequence].narrow(0, first, count));
  };
  const AffineMap keys = fit(layer.keys, keys_before, channels);
  rebuild(layer.keys, keys, keys_before, *key_codec, keys_);
  const AffineMap values = fit(layer.values, keys_and_values_before, 2 * channels);
  rebuild(layer.values, values, keys_and_values_before, *value_codec, values_);
  return {{"key_weight", keys.weight},
          {"key_bias", keys.bias},
          {"value_weight", values.weight},
          {"value_bias", values.bias}};
}

std::map<std::string, at::Tensor> AquaCalibrator::state() const {
  std::map<std::string, at::Tensor> state = {{"errors", at::tensor(errors_, at::kDouble)}};
  for (size_t i = 0; i < keys_.size(); ++i) {
    state[fmt::format("keys.{}", i)] = keys_[i];
    state[fmt::format("values.{}", i)] = values_[i];
  }
  return state;
}

void AquaCalibrator::restore(const std::map<std::string, at::Tensor>& state) {
  const at::Tensor errors = state.at("errors").to(at::kCPU).contiguous();
  const auto* first = errors.const_data_ptr<double>();
  errors_.assign(first, first + errors.numel());
  keys_.clear();
  values_.clear();
  for (size_t i = 0; state.contains(fmt::format("keys.{}", i)); ++i) {
    keys_.push_back(state.at(fmt::format("keys.{}", i)));
    values_.push_back(state.at(fmt::format("values.{}", i)));
  }
}

std::vector<std::string> AquaCalibrator::report() const {
  std::vector<std::string> lines = {"equivalent bits, -log4 of a prediction's relative error: train, held out"};
  const auto bits = [](double error) { return -std::log2(error) / 2; };
  std::array<double, 4> mean{};
  const auto line = [](const std::string& name, const std::array<double, 4>& v) {
    return fmt::format("{:>8}  keys {:5.2f} {:5.2f}  values {:5.2f} {:5.2f}", name, v[0], v[1], v[2], v[3]);
  };
  const size_t layers = errors_.size() / mean.size();
  for (size_t layer = 0; layer < layers; ++layer) {
    std::array<double, 4> of_layer{};
    for (size_t i = 0; i < mean.size(); ++i) {
      of_layer[i] = bits(errors_[layer * mean.size() + i]);
      mean[i] += of_layer[i] / static_cast<double>(layers);
    }
    lines.push_back(line(fmt::format("layer {}", layer + 1), of_layer));
  }
  lines.push_back(line("mean", mean));
  return lines;
}

}  // namespace

SchemeEntry aqua_kv_entry() {
  return {"aqua_kv", "HIGGS codes of what linear predictors from layer to layer leave over; needs an artifact",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<AquaKv>(params); },
          [](Params& params) -> std::unique_ptr<Calibrator> { return std::make_unique<AquaCalibrator>(params); }};
}

}  // namespace kvsweep
