#include "harness/run/calibration.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/core/log.h"
#include "harness/core/random.h"
#include "harness/core/stopwatch.h"
#include "harness/files/tensor_file.h"
#include "harness/report/record.h"
#include "harness/run/interrupt.h"
#include "harness/run/plan.h"
#include "harness/run/progress.h"
#include "harness/run/provenance.h"
#include "harness/run/reference.h"
#include "harness/run/runner.h"
#include "harness/run/sampling.h"
#include "harness/run/sweep.h"
#include "models/load_model.h"
#include "tasks/data/locate.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;
using Texts = std::vector<std::vector<int32_t>>;

constexpr const char* kModelText = "model";
constexpr uint64_t kTextSeed = 17;
constexpr const char* kHidden = "hidden";
constexpr const char* kNextLayer = "next_layer";
constexpr std::string_view kCalibratorPrefix = "calibrator.";

fs::path partial_of(const fs::path& out) {
  return out.string() + ".partial";
}

// The pass over the layers, and the directory that it can go on from: a file for each finished layer, and "state",
// which is replaced when a layer's file is there and says which layer comes next.
class LayerPass {
 public:
  LayerPass(const Llama& llama, Calibrator& calibrator, const ArtifactHeader& header, const Texts& text,
            fs::path folder)
      : llama_(llama), calibrator_(calibrator), text_(text), folder_(std::move(folder)) {
    const ModelOptions options = llama.options();
    identity_ = {{"scheme", header.scheme},
                 {"parameters", params_text(header.params)},
                 {"model", header.model},
                 {"weights", header.weights_sha256},
                 {"computation", fmt::format("{} {}", options.device.str(), c10::toString(options.dtype))},
                 {"text", header.text},
                 {"text's sha256", header.text_sha256},
                 {"sequences", fmt::to_string(header.sequences)},
                 {"tokens", fmt::to_string(header.tokens)},
                 {"program", header.program}};
  }

  // -> the artifact's tensors
  TensorMap run(const CalibrationProgress& progress) {
    if (fs::exists(state_file())) {
      resume();
    } else {
      begin();
    }
    for (; next_ < llama_.config().layers; ++next_) {
      const TensorMap made = calibrator_.layer(forward(progress));
      write_tensors(layer_file(next_), made, {});
      write_state();
      keep(next_, made);
      progress(next_, 1);
    }
    tensors_.merge(calibrator_.finish());
    return std::move(tensors_);
  }

 private:
  fs::path state_file() const { return folder_ / "state.safetensors"; }
  fs::path layer_file(int64_t layer) const { return folder_ / fmt::format("layer_{:04}.safetensors", layer); }

  void begin() {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) throw DataError(fmt::format("{}: cannot be made: {}", folder_.string(), error.message()));
    if (text_.empty()) return;
    const auto tokens = static_cast<int64_t>(text_.front().size());
    hidden_ = at::empty({std::ssize(text_), tokens, llama_.config().hidden}, llama_.options().dtype);
    for (int64_t i = 0; i < hidden_.size(0); ++i)
      hidden_.select(0, i).copy_(llama_.start_prefill(text_[static_cast<size_t>(i)]));
  }

  void resume() {
    const SafetensorsFile file(state_file());
    check_identity(file.metadata());
    const std::string& next = file.metadata().at(kNextLayer);
    std::from_chars(next.data(), next.data() + next.size(), next_);
    for (int64_t layer = 0; layer < next_; ++layer) keep(layer, read_tensors(SafetensorsFile(layer_file(layer))));
    if (!text_.empty() && next_ < llama_.config().layers) hidden_ = read_tensor(file, kHidden);
    TensorMap state;
    for (const auto& [name, entry] : file.tensors())
      if (name.starts_with(kCalibratorPrefix))
        state.emplace(name.substr(kCalibratorPrefix.size()), read_tensor(file, name));
    calibrator_.restore(state);
  }

  void check_identity(const std::map<std::string, std::string>& found) const {
    std::vector<std::string> differences;
    for (const auto& [key, mine] : identity_) {
      const auto theirs = found.find(key);
      if (theirs == found.end() || theirs->second != mine)
        differences.push_back(
            fmt::format("its {} is '{}', here it is '{}'", key, theirs == found.end() ? "" : theirs->second, mine));
    }
    if (!differences.empty())
      throw ConfigError(fmt::format("{}: was left by another calibration: {}; remove it or choose another artifact",
                                    folder_.string(), join(differences, "; ")));
  }

  CalibrationLayer forward(const CalibrationProgress& progress) {
    CalibrationLayer layer;
    layer.index = next_;
    layer.rope = &llama_.rope();
    layer.key_weight = llama_.key_weight(next_).to(at::kCPU);
    layer.value_weight = llama_.value_weight(next_).to(at::kCPU);
    for (int64_t i = 0; i < std::ssize(text_); ++i) {
      const at::Tensor kept = hidden_.select(0, i);
      at::Tensor hidden = kept.to(llama_.options().device);  // on the CPU the same tensor
      llama_.prefill_layer(next_, hidden, [&](int64_t, const KvSlab& slab) {
        layer.keys.push_back(taken(slab.k, "keys", i));
        layer.values.push_back(taken(slab.v, "values", i));
      });
      if (!hidden.is_alias_of(kept)) kept.copy_(hidden);
      progress(next_, static_cast<double>(i + 1) / static_cast<double>(std::ssize(text_) + 1));
    }
    return layer;
  }

  at::Tensor taken(const at::Tensor& x, const char* what, int64_t sequence) const {
    at::Tensor copy = x.to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    if (const int64_t bad = copy.numel() - at::isfinite(copy).sum().item<int64_t>(); bad > 0)
      throw DataError(fmt::format("layer {}: {} {} of sequence {} are NaN or infinite; such a model has no artifact",
                                  next_, bad, what, sequence));
    return copy;
  }

  void write_state() const {
    TensorMap state;
    if (hidden_.defined() && next_ + 1 < llama_.config().layers) state.emplace(kHidden, hidden_);
    for (const auto& [name, tensor] : calibrator_.state()) state.emplace(std::string(kCalibratorPrefix) + name, tensor);
    std::map<std::string, std::string> metadata(identity_.begin(), identity_.end());
    metadata[kNextLayer] = fmt::to_string(next_ + 1);
    write_tensors(state_file(), state, metadata);
  }

  void keep(int64_t layer, const TensorMap& made) {
    for (const auto& [name, tensor] : made) tensors_.emplace(fmt::format("layers.{}.{}", layer, name), tensor);
  }

  const Llama& llama_;
  Calibrator& calibrator_;
  const Texts& text_;
  fs::path folder_;
  std::vector<std::pair<std::string, std::string>> identity_;  // what the directory must agree with
  at::Tensor hidden_;                                          // [N, T, hidden] before layer next_, CPU, compute dtype
  TensorMap tensors_;
  int64_t next_ = 0;
};

// What `kvsweep calibrate` was asked for.
class CalibrationRun {
 public:
  CalibrationRun(const std::string& model, const fs::path& scheme_file, CalibrationOptions options)
      : spec_(resolve_model(model)), options_(std::move(options)), reference_(find_reference()) {
    SchemeText scheme = load_scheme(scheme_file, scheme_table());
    if (!scheme.entry->calibrate) throw ConfigError(needs_no_artifact(scheme_file, scheme.entry->name));
    calibrator_ = scheme.entry->calibrate(scheme.params);
    scheme.params.finish();
    header_.scheme = scheme.entry->name;
    header_.params = scheme.params.resolved();
    header_.model = spec_.name;
    header_.program = program_version();
  }

  void run();

 private:
  static std::string needs_no_artifact(const fs::path& file, const std::string& name) {
    std::vector<std::string> others;
    for (const SchemeEntry& entry : scheme_table())
      if (entry.calibrate) others.push_back(entry.name);
    return fmt::format("{}: {} needs no artifact; schemes that do: {}", file.string(), name,
                       others.empty() ? "none" : join(others));
  }

  void check_before_start() const;
  Texts read_text(const LoadedModel& model);
  Texts cut(const LoadedModel& model, const fs::path& file) const;
  void print_plan(const LoadedModel& model) const;

  ModelSpec spec_;
  CalibrationOptions options_;
  Reference reference_;
  std::unique_ptr<Calibrator> calibrator_;
  ArtifactHeader header_;
};

void CalibrationRun::check_before_start() const {
  if (fs::exists(options_.out) && !options_.force)
    throw ConfigError(
        fmt::format("{}: is there already; --force replaces it, --out names another", options_.out.string()));
  if (!calibrator_->reads_text()) {
    if (!options_.text.empty())
      throw ConfigError(
          fmt::format("--text {}: {} looks at weights only; leave it out", options_.text, header_.scheme));
    return;
  }
  const std::string allowed = "model (sampled from it), or a text file as named or below a data root";
  if (options_.text.empty()) throw ConfigError(fmt::format("--text is required by {}: {}", header_.scheme, allowed));
  if (options_.text == "wikitext2")
    throw ConfigError(
        fmt::format("--text wikitext2 is what the task perplexity scores, and would flatter the scheme "
                    "there; allowed: {}",
                    allowed));
  const int64_t longest = read_config(spec_.path).max_positions;
  if (options_.tokens > longest)
    throw ConfigError(fmt::format("--tokens {}: the model {} allows {}", options_.tokens, spec_.name, longest));
}

// The beginning of a file, tokenized once.
Texts CalibrationRun::cut(const LoadedModel& model, const fs::path& file) const {
  const std::vector<int32_t> ids = encode_with_bos(*model.tokenizer, read_utf8(file), false);
  const int64_t whole = std::ssize(ids) / options_.tokens;
  if (options_.sequences > whole)
    throw ConfigError(fmt::format("--sequences {}: {} has {} tokens, {} sequences of --tokens {}", options_.sequences,
                                  file.string(), ids.size(), whole, options_.tokens));
  Texts texts;
  for (int64_t i = 0; i < options_.sequences; ++i)
    texts.emplace_back(ids.begin() + i * options_.tokens, ids.begin() + (i + 1) * options_.tokens);
  return texts;
}

Texts CalibrationRun::read_text(const LoadedModel& model) {
  if (!calibrator_->reads_text()) return {};
  header_.text = options_.text;
  if (options_.text != kModelText) {
    const fs::path file = fs::is_regular_file(options_.text)
                              ? fs::path(options_.text)
                              : DataLocator(default_data_roots(options_.data)).find(options_.text);
    header_.text_sha256 = sha256_file(file);
    return cut(model, file);
  }
  Texts texts = model_texts(model, *reference_.scheme, options_.sequences, options_.tokens,
                            derive_seed(kTextSeed, "calibrate/model_text"));
  std::string lines;
  for (const auto& text : texts) lines += fmt::format("{}\n", fmt::join(text, " "));
  header_.text_sha256 = sha256_hex(lines);
  return texts;
}

void CalibrationRun::print_plan(const LoadedModel& model) const {
  const LlamaConfig& config = model.llama->config();
  const ModelOptions compute = model.llama->options();
  const auto bytes = [](int64_t count) { return human_bytes(static_cast<double>(count)); };
  const int64_t weights = model.llama->weight_bytes();
  fmt::print(stderr, "plan for {} ({}, {} of weights)\n", spec_.name, compute.device.str(), bytes(weights));
  const std::string what = fmt::format("  {}: {} layers, ", with_params(header_.scheme, header_.params), config.layers);
  if (!calibrator_->reads_text()) {
    fmt::print(stderr, "{}weights only\n", what);
    return;
  }
  const int64_t sequences = options_.sequences, tokens = options_.tokens, all = sequences * tokens;
  const Speed speed = measure_speed(*model.llama, *reference_.scheme);
  fmt::print(stderr, "{}{} sequences x {} tokens of {}, about {}, and what {} makes of it\n", what, sequences, tokens,
             options_.text, human_duration(1e-3 * speed.prefill_ms_per_token * static_cast<double>(all)),
             header_.scheme);
  const auto element = static_cast<int64_t>(c10::elementSize(compute.dtype));
  const int64_t kv_values = 2 * config.kv_heads * config.head_dim;  // of a token in a layer
  const int64_t hidden = all * config.hidden * element, shown = all * kv_values * 4;
  int64_t peak = hidden + shown + 4 * tokens * (2 * config.intermediate + 4 * config.hidden);
  if (options_.text == kModelText) {
    const int64_t caches = all * config.layers * kv_values * element;
    const double steps = speed.step_ms + static_cast<double>(sequences - 1) * speed.step_ms_per_row;
    fmt::print(stderr, "  before that {} and {} of caches to sample the text, unless it is kept from before\n",
               human_duration(1e-3 * steps * static_cast<double>(tokens)), bytes(caches));
    peak = std::max(peak, caches);
  }
  fmt::print(stderr, "  {} of memory at the peak ({} hidden states, {} keys and values of a layer), {} on disk\n",
             bytes(compute.device.is_cpu() ? weights + peak : peak), bytes(hidden), bytes(shown), bytes(hidden));
  if (const int64_t available = available_memory_bytes(); compute.device.is_cpu() && peak > available)
    warn(fmt::format("activations and caches need {}, {} are free; fewer --sequences need less", bytes(peak),
                     bytes(available)));
}

void CalibrationRun::run() {
  check_before_start();
  const LoadedModel model = load_model(spec_);
  for (const std::string& warning : model.llama->weight_warnings()) warn(warning);
  print_plan(model);
  const Stopwatch watch(at::kCPU);
  const Texts text = read_text(model);
  const int64_t layers = model.llama->config().layers;
  Progress progress(static_cast<double>(layers), layers, "layers");
  progress.label(header_.scheme + " on " + spec_.name);
  double at = -1;
  const CalibrationProgress follow = [&](int64_t layer, double done) {
    if (at < 0) {
      at = static_cast<double>(layer);
      progress.skip(at, layer);
    }
    const double now = static_cast<double>(layer) + done;
    progress.advance(now - at, done == 1 ? 1 : 0);
    at = now;
    check_interrupt();
  };
  calibrate(*model.llama, *calibrator_, header_, text, options_.out, follow);
  progress.finish();
  for (const std::string& line : calibrator_->report()) fmt::print("{}\n", line);
  fmt::print("{}: {}, {}\n", options_.out.string(), human_bytes(static_cast<double>(fs::file_size(options_.out))),
             human_duration(1e-3 * watch.ms()));
}

}  // namespace

void calibrate(const Llama& llama, Calibrator& calibrator, ArtifactHeader header, const Texts& text,
               const fs::path& out, const CalibrationProgress& progress) {
  const LlamaConfig& config = llama.config();
  header.weights_sha256 = llama.options().weights_sha256;
  header.layers = config.layers;
  header.kv_heads = config.kv_heads;
  header.head_dim = config.head_dim;
  header.sequences = std::ssize(text);
  header.tokens = text.empty() ? 0 : std::ssize(text.front());
  const fs::path partial = partial_of(out);
  write_artifact(out, header, LayerPass(llama, calibrator, header, text, partial).run(progress));
  fs::remove_all(partial);
}

int run_calibration(const std::string& model, const fs::path& scheme_file, const CalibrationOptions& options) {
  const c10::InferenceMode no_autograd;
  watch_interrupts();
  try {
    CalibrationRun(model, scheme_file, options).run();
    return kExitOk;
  } catch (const Interrupted&) {
    const fs::path partial = partial_of(options.out);
    log(fs::exists(partial) ? fmt::format("interrupted; finished layers are kept in {}, the same command goes on from "
                                          "there",
                                          partial.string())
                            : "interrupted before the first layer");
    return kExitInterrupted;
  }
}

}  // namespace kvsweep
