#include "tests/support/torch/scheme_probe.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "harness/files/artifact.h"
#include "tests/support/golden.h"

namespace kvsweep::testing {
namespace {

Params params_of(const std::string& name, const Settings& settings) {
  std::map<std::string, ParamValue> values;
  for (const auto& [key, value] : settings) values[key] = {value, 0};
  return Params(name, "", values);
}

// Settings of a scheme that combine parameters in ways that single ones do not reach.
std::vector<Settings> combinations(const std::vector<ParamDeclaration>& declared) {
  const auto has = [&declared](const char* name) {
    return std::any_of(declared.begin(), declared.end(), [&](const auto& one) { return one.name == name; });
  };
  if (has("reorder")) {
    const Settings neighbours = {{"reorder", "false"}, {"group", "64"}};
    std::vector<Settings> all = {neighbours};
    for (Settings more : {Settings{{"metadata", "fp8"}, {"window", "0"}, {"sink", "0"}},
                          Settings{{"ternary", "packed"}, {"k_bits", "1.5"}, {"v_bits", "1.5"}, {"window", "7"}}}) {
      more.insert(neighbours.begin(), neighbours.end());
      all.push_back(more);
    }
    return all;
  }
  if (!has("k_axis") || !has("v_axis")) return {};
  const Settings channels = {{"k_axis", "channel"}, {"v_axis", "channel"}, {"group", "16"}};
  std::vector<Settings> all = {channels};
  for (const Settings& more : {Settings{{"sink", "4"}, {"window", "20"}}, Settings{{"window", "1"}, {"k_bits", "2"}},
                               Settings{{"sink", "5"}, {"symmetric", "true"}, {"v_bits", "3"}}}) {
    Settings both = channels;
    both.insert(more.begin(), more.end());
    all.push_back(both);
    all.push_back(more);
  }
  return all;
}

}  // namespace

at::Tensor normals(const std::vector<int64_t>& sizes, uint64_t seed) {
  Rng rng(seed);
  at::Tensor x = at::empty(sizes, at::kFloat);
  auto* out = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) out[i] = static_cast<float>(rng.normal());
  return x;
}

double nmse(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor a = x.to(at::kDouble), b = y.to(at::kDouble);
  return (a - b).square().sum().item<double>() / a.square().sum().item<double>();
}

at::Tensor decode_runs(const c10::SmallVector<KvRun, 3>& runs) {
  std::vector<at::Tensor> pieces;
  for (const KvRun& run : runs) {
    pieces.push_back(run.codec->decode(run.parts));
    TORCH_CHECK(pieces.back().size(1) == run.tokens, "a run of ", run.tokens, " tokens decodes to ",
                pieces.back().size(1));
  }
  return pieces.empty() ? at::empty({0}) : at::cat(pieces, 1);
}

at::Tensor restored_runs(const c10::SmallVector<KvRun, 3>& runs) {
  std::vector<at::Tensor> pieces;
  for (const KvRun& run : runs) {
    const at::Tensor stored = run.codec->decode(run.parts);
    pieces.push_back(run.basis.defined() ? stored.matmul(run.basis.transpose(-1, -2)) : stored);
  }
  return pieces.empty() ? at::empty({0}) : at::cat(pieces, 1);
}

at::Tensor lossy_tokens(const c10::SmallVector<KvRun, 3>& runs) {
  std::vector<at::Tensor> pieces = {at::empty({0}, at::kBool)};
  for (const KvRun& run : runs) pieces.push_back(at::full({run.tokens}, !run.codec->exact(), at::kBool));
  return at::cat(pieces);
}

Trace random_trace(int64_t layers, int64_t heads, int64_t tokens, int64_t head_dim, uint64_t seed) {
  Trace trace;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const at::Tensor both = normals({tokens, 2 * heads, head_dim}, seed + static_cast<uint64_t>(layer)).transpose(0, 1);
    trace.k.push_back(both.narrow(0, 0, heads));
    trace.v.push_back(both.narrow(0, heads, heads));
  }
  return trace;
}

Settings with_random_artifact(const SchemeEntry& entry, Settings settings, const CacheContext& context) {
  static TemporaryDirectory directory;
  static std::map<std::string, std::string> made;
  const std::string name =
      fmt::format("{} {}x{}x{}", describe(entry.name, settings), context.layers, context.kv_heads, context.head_dim);
  if (!made.contains(name)) {
    Params params = params_of(entry.name, settings);
    const std::unique_ptr<Calibrator> calibrator = entry.calibrate(params);
    std::vector<Trace> sequences;
    for (uint64_t seed = 0; calibrator->reads_text() && seed < 3; ++seed)
      sequences.push_back(random_trace(context.layers, context.kv_heads, 256, context.head_dim, 1000 + 100 * seed));
    TensorMap tensors;
    for (int64_t index = 0; index < context.layers; ++index) {
      CalibrationLayer layer;
      layer.index = index;
      layer.rope = context.rope;
      layer.key_weight = normals({context.kv_heads * context.head_dim, 96}, 500 + static_cast<uint64_t>(index));
      layer.value_weight = normals({context.kv_heads * context.head_dim, 96}, 600 + static_cast<uint64_t>(index));
      for (const Trace& trace : sequences) {
        layer.keys.push_back(trace.k[static_cast<size_t>(index)]);
        layer.values.push_back(trace.v[static_cast<size_t>(index)]);
      }
      for (const auto& [key, tensor] : calibrator->layer(layer))
        tensors.emplace(fmt::format("layers.{}.{}", index, key), tensor);
    }
    tensors.merge(calibrator->finish());
    ArtifactHeader header;
    header.scheme = entry.name;
    header.params = params.resolved();
    header.model = "random";
    header.layers = context.layers;
    header.kv_heads = context.kv_heads;
    header.head_dim = context.head_dim;
    const auto path = directory.path() / fmt::format("{}-{}.safetensors", entry.name, made.size());
    write_artifact(path, header, tensors);
    made[name] = path.string();
  }
  settings["artifact"] = made.at(name);
  return settings;
}

std::unique_ptr<Scheme> make_scheme(const std::string& name, const Settings& settings) {
  Params params = params_of(name, settings);
  for (const SchemeEntry& entry : scheme_table())
    if (entry.name == name) return entry.make(params);
  TORCH_CHECK(false, "no scheme ", name);
}

std::string describe(const std::string& name, const Settings& settings) {
  std::string text = name;
  for (const auto& [key, value] : settings) text += " " + key + "=" + value;
  return text;
}

std::vector<std::string> values_of(const ParamDeclaration& declared) {
  if (declared.type == "flag") return {"true", "false"};
  std::string allowed = declared.allowed;
  const bool range = allowed.starts_with("[");
  if (!range && !declared.type.starts_with("choice")) return {};
  if (range) allowed = allowed.substr(1, allowed.size() - 2);
  const std::string separator = range ? ", " : "|";
  std::vector<std::string> values;
  for (size_t at = 0; at <= allowed.size();) {
    const size_t stop = std::min(allowed.find(separator, at), allowed.size());
    values.push_back(allowed.substr(at, stop - at));
    at = stop + separator.size();
  }
  return values;
}

std::vector<SchemeCase> usable_cases(const SchemeEntry& entry, const Settings& settings, const CacheContext& context) {
  std::vector<SchemeCase> cases;
  const auto try_add = [&](const auto& complete) {
    try {
      const Settings full = complete();
      make_scheme(entry.name, full)->make_cache(context);
      cases.push_back({&entry, full});
    } catch (const ConfigError&) {
    }
  };
  try_add([&] { return settings; });
  if (entry.calibrate) try_add([&] { return with_random_artifact(entry, settings, context); });
  return cases;
}

std::vector<ParamDeclaration> declarations_of(const SchemeEntry& entry) {
  Params params = Params::describe(entry.name);
  entry.make(params);
  return params.declarations();
}

std::vector<SchemeCase> scheme_cases(const CacheContext& context) {
  std::vector<SchemeCase> all;
  const auto add = [&](const SchemeEntry& entry, const Settings& settings) {
    for (SchemeCase& one : usable_cases(entry, settings, context)) all.push_back(std::move(one));
  };
  for (const SchemeEntry& entry : scheme_table()) {
    const size_t before = all.size();
    const std::vector<ParamDeclaration> declared = declarations_of(entry);
    add(entry, {});
    for (const ParamDeclaration& one : declared)
      for (const std::string& value : values_of(one))
        if (value != one.default_value) add(entry, {{one.name, value}});
    for (const Settings& settings : combinations(declared)) add(entry, settings);
    INFO(entry.name << " cannot be built for " << context.kv_heads << " heads of " << context.head_dim << " dims");
    REQUIRE(all.size() > before);
  }
  return all;
}

}  // namespace kvsweep::testing
