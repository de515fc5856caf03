#include "harness/files/artifact.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "kvsweep artifact 1";

// Texts and integers of a header by name, for reading and writing alike.
template <class Header, class Visit>
void visit_fields(Header& header, const Visit& visit) {
  visit("scheme", header.scheme);
  visit("model", header.model);
  visit("weights_sha256", header.weights_sha256);
  visit("layers", header.layers);
  visit("kv_heads", header.kv_heads);
  visit("head_dim", header.head_dim);
  visit("text", header.text);
  visit("text_sha256", header.text_sha256);
  visit("sequences", header.sequences);
  visit("tokens", header.tokens);
  visit("program", header.program);
}

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& why) {
  throw DataError(fmt::format("{}: {}", path.string(), why));
}

class HeaderReader {
 public:
  explicit HeaderReader(const SafetensorsFile& file) : file_(file) {}

  const std::string& text(const char* name) const {
    const auto at = file_.metadata().find(name);
    if (at == file_.metadata().end()) fail(file_.path(), fmt::format("the artifact's header lacks '{}'", name));
    return at->second;
  }
  void operator()(const char* name, std::string& value) const { value = text(name); }
  void operator()(const char* name, int64_t& value) const {
    const std::string& written = text(name);
    const auto [stop, error] = std::from_chars(written.data(), written.data() + written.size(), value);
    if (error != std::errc() || stop != written.data() + written.size())
      fail(file_.path(), fmt::format("the artifact's header has {} = '{}', not an integer", name, written));
  }

 private:
  const SafetensorsFile& file_;
};

ArtifactHeader header_of(const SafetensorsFile& file) {
  const auto format = file.metadata().find("format");
  if (format == file.metadata().end() || format->second != kFormat)
    fail(file.path(), fmt::format("is no artifact of `kvsweep calibrate`: its header does not say '{}'", kFormat));
  ArtifactHeader header;
  const HeaderReader reader(file);
  visit_fields(header, reader);
  const json params = json::parse(reader.text("params"), nullptr, /*allow_exceptions=*/false);
  if (!params.is_array()) fail(file.path(), "the artifact's header has no list 'params'");
  for (const json& item : params) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_string())
      fail(file.path(), fmt::format("the artifact's header has a parameter {}, not a pair of texts", item.dump()));
    header.params.emplace_back(item[0].get<std::string>(), item[1].get<std::string>());
  }
  return header;
}

std::string shape_text(int64_t layers, int64_t kv_heads, int64_t head_dim) {
  return fmt::format("{} layers of {} kv-heads x {} dims", layers, kv_heads, head_dim);
}

}  // namespace

const at::Tensor& Artifact::tensor(const std::string& name) const {
  const auto at = tensors.find(name);
  if (at == tensors.end()) fail(path, fmt::format("the artifact has no tensor '{}'", name));
  return at->second;
}

const at::Tensor& Artifact::tensor(int64_t layer, const std::string& name) const {
  return tensor(fmt::format("layers.{}.{}", layer, name));
}

void Artifact::check_model(const CacheContext& context) const {
  const std::string made = shape_text(header.layers, header.kv_heads, header.head_dim);
  const std::string given = shape_text(context.layers, context.kv_heads, context.head_dim);
  if (made != given)
    throw ConfigError(fmt::format("{}: the artifact was made for {} ({}), the model has {}", path.string(),
                                  header.model, made, given));
  if (!context.weights_sha256.empty() && context.weights_sha256 != header.weights_sha256)
    throw ConfigError(fmt::format("{}: the artifact was made for {} with weights {}, the model's are {}", path.string(),
                                  header.model, header.weights_sha256, context.weights_sha256));
}

ArtifactHeader read_artifact_header(const std::filesystem::path& path) {
  return header_of(SafetensorsFile(path));
}

Artifact read_artifact(const std::filesystem::path& path, const std::string& scheme) {
  const SafetensorsFile file(path);
  Artifact artifact{path, header_of(file), {}};
  if (artifact.header.scheme != scheme)
    throw ConfigError(fmt::format("{}: the artifact was made for the scheme {}, not for {}", path.string(),
                                  artifact.header.scheme, scheme));
  artifact.tensors = read_tensors(file);
  return artifact;
}

void write_artifact(const std::filesystem::path& path, const ArtifactHeader& header, const TensorMap& tensors) {
  std::map<std::string, std::string> texts = {{"format", kFormat}};
  visit_fields(header, [&texts](const char* name, const auto& value) { texts[name] = fmt::format("{}", value); });
  json params = json::array();
  for (const auto& [key, value] : header.params) params.push_back({key, value});
  texts["params"] = params.dump();
  write_tensors(path, tensors, texts);
}

}  // namespace kvsweep
