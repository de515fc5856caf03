#include "models/load_model.h"

#include <ATen/Context.h>
#include <fmt/format.h>
#include <malloc.h>
#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <map>

#include "harness/core/error.h"
#include "harness/core/params.h"
#include "harness/core/user_cache.h"
#include "models/tokenizer_gguf.h"
#include "models/tokenizer_load.h"
#include "models/weight_source.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

bool is_yaml(const fs::path& path) {
  return path.extension() == ".yaml" || path.extension() == ".yml";
}
bool is_gguf(const fs::path& path) {
  return path.extension() == ".gguf";
}

std::string stem_of(const fs::path& path) {
  const fs::path clean = path.has_filename() ? path : path.parent_path();
  return is_gguf(clean) ? clean.stem().string() : clean.filename().string();
}

std::map<std::string, ParamValue> read_keys(const fs::path& file) {
  YAML::Node root;
  try {
    root = YAML::LoadFile(file.string());
  } catch (const YAML::Exception& error) {
    throw ConfigError(fmt::format("{}:{}: {}", file.string(), error.mark.line + 1, error.msg));
  }
  if (!root.IsMap()) throw ConfigError(fmt::format("{}: a model file is a map of keys", file.string()));
  std::map<std::string, ParamValue> values;
  for (const auto& item : root) {
    const int line = item.first.Mark().line + 1;
    if (!item.second.IsScalar())
      throw ConfigError(
          fmt::format("{}:{}: model.{} must be a single value", file.string(), line, item.first.Scalar()));
    if (!values.emplace(item.first.Scalar(), ParamValue{item.second.Scalar(), line}).second)
      throw ConfigError(fmt::format("{}:{}: model.{} is given twice", file.string(), line, item.first.Scalar()));
  }
  return values;
}

// Relative paths: beside the YAML, in $KVSWEEP_MODELS, in the user's cache.
fs::path find_file(const fs::path& yaml, const fs::path& wanted, const std::string& key) {
  std::vector<fs::path> places = {yaml.parent_path() / wanted};  // an absolute `wanted` replaces the folder
  if (!wanted.is_absolute()) {
    if (const char* folder = std::getenv("KVSWEEP_MODELS"); folder != nullptr && *folder != 0)
      places.push_back(fs::path(folder) / wanted);
    places.push_back(user_cache() / "models" / wanted);
  }
  std::vector<std::string> looked;
  for (const fs::path& place : places) {
    if (fs::exists(place)) return place;
    looked.push_back(place.string());
  }
  throw DataError(
      fmt::format("{}: model.{} = {} was not found; looked at {}; scripts/bootstrap.sh gets the embedded model",
                  yaml.string(), key, wanted.string(), join(looked)));
}

ModelSpec read_spec(const fs::path& file) {
  Params params("model", file.string(), read_keys(file));
  ModelSpec spec;
  spec.name = params.text("name", file.stem().string(), "name in records and tables");
  const std::string path = params.text("path", std::nullopt, "a .gguf file or a Hugging Face directory");
  const std::string tokenizer = params.text("tokenizer", "", "tokenizer file or directory, when it lies elsewhere");
  const std::string sha256 = params.text("sha256", "", "expected hash of the weights");
  spec.device = params.text("device", "cpu", "cpu, cuda, cuda:<n>");
  spec.dtype = params.choice("dtype", "", {"", "float32", "bfloat16", "float16"},
                             "what the model computes in; default float32 on cpu, bfloat16 elsewhere");
  params.finish();
  spec.path = find_file(file, path, "path");
  if (!tokenizer.empty()) spec.tokenizer = find_file(file, tokenizer, "tokenizer");
  if (!sha256.empty()) spec.sha256 = sha256;
  return spec;
}

}  // namespace

ModelSpec resolve_model(const std::string& argument) {
  const fs::path path = argument;
  if (!fs::exists(path))
    throw DataError(
        fmt::format("model '{}': no such file or directory; a model is a YAML file (configs/models/*.yaml), a "
                    ".gguf file or a Hugging Face directory",
                    argument));
  if (is_yaml(path)) return read_spec(path);
  if (!fs::is_directory(path) && !is_gguf(path))
    throw DataError(fmt::format("model '{}': neither a .yaml nor a .gguf file nor a directory", argument));
  ModelSpec spec;
  spec.name = stem_of(path);
  spec.path = path;
  return spec;
}

ModelOptions model_options(const ModelSpec& spec) {
  ModelOptions options;
  try {
    options.device = at::Device(spec.device);
  } catch (const c10::Error&) {
    throw ConfigError(fmt::format("model.device = '{}' is not a device; allowed: cpu, cuda, cuda:<n>", spec.device));
  }
  if (options.device.is_cuda() && !at::globalContext().hasCUDA())
    throw ConfigError(
        fmt::format("model.device = '{}': this build or machine has no CUDA device; allowed: cpu", spec.device));
  static const std::map<std::string, at::ScalarType> dtypes = {
      {"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}};
  options.dtype = options.device.is_cpu() ? at::kFloat : at::kBFloat16;
  options.deterministic = spec.deterministic;
  if (spec.dtype.empty()) return options;
  const auto known = dtypes.find(spec.dtype);
  if (known == dtypes.end())
    throw ConfigError(fmt::format("model.dtype = '{}'; allowed: float32, bfloat16, float16", spec.dtype));
  options.dtype = known->second;
  return options;
}

LoadedModel load_model(const ModelSpec& spec) {
  LoadedModel model;
  model.spec = spec;
  ModelOptions options = model_options(spec);
  const std::unique_ptr<WeightSource> weights = open_weights(spec.path);
  model.weights_sha256 = options.weights_sha256 = weights->sha256();
  if (spec.sha256 && *spec.sha256 != model.weights_sha256)
    throw DataError(fmt::format("{}: SHA-256 is {}, the model file expects {}", spec.path.string(),
                                model.weights_sha256, *spec.sha256));
  if (is_gguf(spec.path)) {
    const GgufFile file(spec.path);
    model.chat = load_gguf_chat_template(file);
    if (!spec.tokenizer) model.tokenizer = load_gguf_tokenizer(file);
  } else {
    model.chat = load_chat_template(spec.path);
  }
  if (!model.tokenizer) model.tokenizer = load_tokenizer(spec.tokenizer.value_or(spec.path));
  model.llama = std::make_unique<Llama>(read_config(spec.path), *weights, options);
  malloc_trim(0);  // tens of thousands of metadata strings lay between what stays
  return model;
}

}  // namespace kvsweep
