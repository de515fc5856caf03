#include "tests/support/torch/scheme_golden.h"

#include <ATen/ATen.h>

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "tests/support/golden.h"

namespace kvsweep::testing {
namespace fs = std::filesystem;
using nlohmann::json;

struct GoldenCase::Entry {
  json value;

  template <class T>
  T param(const std::string& key) const {
    INFO("parameter " << key);
    REQUIRE(value.at("params").contains(key));
    return value.at("params").at(key).get<T>();
  }
};

namespace {

constexpr int64_t kRealHeadDim = 64;

// [T, C] -> [C / 64, T, 64]; [1, H, T, D] -> [H, T, D].
at::Tensor as_heads(const at::Tensor& stored) {
  if (stored.dim() == 2 && stored.size(1) % kRealHeadDim == 0) return split_heads(stored, kRealHeadDim);
  if (stored.dim() == 4) return stored[0];
  return stored.dim() == 2 ? stored.unsqueeze(0) : stored;
}

// "[0,:,0:32]" of an array as it is stored.
at::Tensor index_stored(at::Tensor x, const std::string& text) {
  static const std::regex item(R"(^\s*(?:(\d+)?\s*(:)\s*(\d+)?|(\d+))\s*$)");
  int64_t dim = 0;
  std::stringstream list(text);
  for (std::string part; std::getline(list, part, ',');) {
    std::smatch match;
    REQUIRE(std::regex_match(part, match, item));
    if (match[4].matched) {
      x = x.select(dim, std::stoll(match[4]));
      continue;
    }
    const int64_t from = match[1].matched ? std::stoll(match[1]) : 0;
    const int64_t to = match[3].matched ? std::stoll(match[3]) : x.size(dim);
    x = x.narrow(dim++, from, to - from);
  }
  return x;
}

std::vector<int64_t> integers_in(const std::string& text) {
  static const std::regex number(R"(\d+)");
  std::vector<int64_t> all;
  for (std::sregex_iterator at(text.begin(), text.end(), number), end; at != end; ++at)
    all.push_back(std::stoll(at->str()));
  return all;
}

}  // namespace

at::Tensor merged(const at::Tensor& heads) {
  return heads.transpose(0, 1).reshape({heads.size(1), heads.size(0) * heads.size(2)});
}

at::Tensor split_heads(const at::Tensor& tokens, int64_t head_dim) {
  return tokens.reshape({tokens.size(0), -1, head_dim}).transpose(0, 1).contiguous();
}

GoldenCase::GoldenCase(const GoldenManifest& manifest, std::shared_ptr<const Entry> entry)
    : manifest_(manifest),
      entry_(std::move(entry)),
      name_(entry_->value.at("name")),
      function_(entry_->value.at("function")),
      inputs_(entry_->value.at("inputs")) {}

std::string GoldenCase::label() const {
  return manifest_.path().string() + ": " + name();
}

bool GoldenCase::has(const std::string& key) const {
  const json& params = entry_->value.at("params");
  return params.contains(key) && !params.at(key).is_null();
}
int64_t GoldenCase::integer(const std::string& key) const {
  return entry_->param<int64_t>(key);
}
double GoldenCase::number(const std::string& key) const {
  return entry_->param<double>(key);
}
bool GoldenCase::flag(const std::string& key) const {
  return entry_->param<bool>(key);
}
std::string GoldenCase::text(const std::string& key) const {
  return entry_->param<std::string>(key);
}
std::vector<double> GoldenCase::numbers(const std::string& key) const {
  return entry_->param<std::vector<double>>(key);
}
bool GoldenCase::has_output(const std::string& key) const {
  return entry_->value.at("outputs").contains(key);
}

at::Tensor GoldenCase::output(const std::string& key) const {
  INFO(label() << ", output " << key);
  REQUIRE(has_output(key));
  return manifest_.tensor(entry_->value.at("outputs").at(key).at("tensor"));
}

at::Tensor GoldenCase::input(size_t index) const {
  return resolve(inputs_.at(index));
}

at::Tensor GoldenCase::resolve(const std::string& text) const {
  INFO(label() << ", input '" << text << "'");
  static const std::regex head(R"(^(?:[XY]=)?([\w.]+)(?:\[([^\]]*)\])?)");
  static const std::regex word(
      R"(^[\s,]*(?:tokens (\d+)\.\.(\d+)|heads? (\d+(?:,\d+)*)|channels (\d+)\.\.(\d+)|)"
      R"(repeated (\d+) times along tokens|first (\d+) tokens|as \[[^\]]*\]|as [KV]|of both heads|\([^)]*\)))");
  std::smatch match;
  REQUIRE(std::regex_search(text, match, head));
  at::Tensor x = manifest_.tensor(match[1]);
  x = match[2].matched ? index_stored(x, match[2]) : x;
  x = match[2].matched && x.dim() == 2 ? x.unsqueeze(0) : as_heads(x);
  for (std::string rest = match.suffix(); !rest.empty();) {
    INFO("at '" << rest << "'");
    REQUIRE(std::regex_search(rest, match, word));
    const auto number = [&match](size_t group) { return std::stoll(match[group].str()); };
    if (match[1].matched) x = x.narrow(1, number(1), number(2) - number(1) + 1);
    if (match[3].matched) x = x.index_select(0, at::tensor(integers_in(match[3]), at::kLong));
    if (match[4].matched) x = merged(x).narrow(1, number(4), number(5) - number(4) + 1).unsqueeze(0);
    if (match[6].matched) x = x.repeat({1, number(6), 1});
    if (match[7].matched) x = x.narrow(1, 0, number(7));
    const std::string left = match.suffix();
    rest = left;
  }
  return x.to(at::kFloat).contiguous();
}

GoldenManifest::GoldenManifest(fs::path path) : path_(std::move(path)) {
  const json manifest = json::parse(read_text(path_));
  for (const json& entry : manifest.at("cases"))
    cases_.emplace_back(*this, std::make_shared<const GoldenCase::Entry>(GoldenCase::Entry{entry}));
  own_ = std::make_unique<SafetensorsFile>(path_.parent_path() / manifest.at("tensors_file").get<std::string>());
  const fs::path inputs = path_.parent_path().parent_path() / "inputs";
  if (!fs::is_directory(inputs)) return;
  for (const auto& entry : fs::directory_iterator(inputs))
    if (entry.path().extension() == ".safetensors") inputs_.push_back(std::make_unique<SafetensorsFile>(entry.path()));
}

at::Tensor GoldenManifest::tensor(const std::string& name) const {
  if (own_->tensors().contains(name)) return read_tensor(*own_, name);
  for (const auto& file : inputs_)
    if (file->tensors().contains(name)) return read_tensor(*file, name);
  FAIL(path_.string() << " refers to a tensor '" << name << "' that neither its file nor schemes/inputs has");
  return {};
}

const std::vector<std::unique_ptr<GoldenManifest>>& golden_manifests_or_skip(const std::string& folder) {
  static std::map<std::string, std::vector<std::unique_ptr<GoldenManifest>>> opened;
  auto [at, fresh] = opened.try_emplace(folder);
  if (fresh)
    for (const fs::path& path : golden_files("schemes/" + folder + "/manifest[.]json"))
      at->second.push_back(std::make_unique<GoldenManifest>(path));
  if (at->second.empty()) SKIP("no schemes/" << folder << "/manifest.json below tests/golden or $KVSWEEP_GOLDEN");
  return at->second;
}

}  // namespace kvsweep::testing
