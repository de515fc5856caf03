#include "harness/run/sweep_yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

// More than this from one entry is a slip of the pen, not a plan.
constexpr size_t kMaxConfigurations = 10000;
constexpr int64_t kMaxLayer = 9999;

class YamlReader {
 public:
  explicit YamlReader(std::string place) : place_(std::move(place)) {}

  SweepText read(const std::string& yaml) const {
    const std::vector<YAML::Node> documents = YAML::LoadAll(yaml);
    if (documents.size() != 1 || !documents[0].IsMap())
      throw ConfigError(fmt::format("{}: a sweep is one map with the keys {}", place_, join(kKeys)));
    const YAML::Node& root = documents[0];
    SweepText text;
    for (const auto& [key, value] : entries(root, "a sweep")) {
      if (key == "name") text.name = scalar(value, key);
      if (key == "model") text.models = list(value, key);
      if (key == "tasks") text.tasks = plugins(value, key);
      if (key == "view") text.views = views(value);
      if (key == "seed") text.seeds = list(value, key);
      if (key == "deterministic") text.deterministic = scalar(value, key);
      if (key == "attention_layers") text.attention_layers = list(value, key);
      if (key == "schemes") text.schemes = plugins(value, key);
      if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) unknown_key(value, key);
    }
    for (const char* key : {"model", "tasks", "schemes"})
      if (!root[key]) throw ConfigError(fmt::format("{}: the key {} is missing", place_, key));
    return text;
  }

  PluginEntry read_scheme(const std::string& yaml) const {
    const std::vector<YAML::Node> documents = YAML::LoadAll(yaml);
    if (documents.size() != 1 || !documents[0].IsMap() || !documents[0]["name"])
      throw ConfigError(fmt::format("{}: a scheme is one map with a name, as in {{name: uniform, k_bits: 2}}", place_));
    for (const auto& [key, value] : entries(documents[0], "a scheme"))
      if (value.IsSequence()) fail(value, fmt::format("{} is a list; here a scheme has one configuration", key));
    return plugin(documents[0], "schemes");
  }

 private:
  inline static const std::vector<std::string> kKeys = {
      "name", "model", "tasks", "view", "seed", "deterministic", "attention_layers", "schemes"};

  static int line_of(const YAML::Node& node) { return node.Mark().line + 1; }

  [[noreturn]] void fail(const YAML::Node& at, const std::string& what) const {
    throw ConfigError(fmt::format("{}:{}: {}", place_, line_of(at), what));
  }

  [[noreturn]] void unknown_key(const YAML::Node& at, const std::string& key) const {
    const std::string near = nearest_name(key, kKeys);
    fail(at, fmt::format("{} is not a key of a sweep{}; known: {}", key,
                         near.empty() ? "" : fmt::format("; did you mean '{}'?", near), join(kKeys)));
  }

  // Keys and values of a map in the order of writing.
  std::vector<std::pair<std::string, YAML::Node>> entries(const YAML::Node& map, const std::string& what) const {
    std::vector<std::pair<std::string, YAML::Node>> out;
    std::map<std::string, int> lines;
    for (const auto& item : map) {
      if (!item.first.IsScalar()) fail(item.first, fmt::format("a key of {} is a text, not a list or a map", what));
      const std::string key = item.first.Scalar();
      const auto [first, fresh] = lines.try_emplace(key, line_of(item.first));
      if (!fresh) fail(item.first, fmt::format("{} stands twice in {}, first on line {}", key, what, first->second));
      if (item.second.IsNull()) fail(item.first, fmt::format("{} has no value", key));
      out.emplace_back(key, item.second);
    }
    return out;
  }

  ParamValue scalar(const YAML::Node& node, const std::string& what) const {
    if (node.IsNull()) fail(node, fmt::format("{} has no value", what));
    if (node.IsSequence()) fail(node, fmt::format("{} is a list where a single value belongs", what));
    if (node.IsMap()) fail(node, fmt::format("{} is a map where a single value belongs", what));
    return {node.Scalar(), line_of(node)};
  }

  std::vector<ParamValue> list(const YAML::Node& node, const std::string& what) const {
    return list(node, what, [this](const YAML::Node& item, const std::string& name) { return scalar(item, name); });
  }

  template <class Read>
  std::vector<ParamValue> list(const YAML::Node& node, const std::string& what, const Read& read) const {
    if (!node.IsSequence()) return {read(node, what)};
    if (node.size() == 0) fail(node, fmt::format("{} is an empty list", what));
    std::vector<ParamValue> values;
    for (const YAML::Node& item : node) values.push_back(read(item, "an item of " + what));
    return values;
  }

  // "7", "28-29"
  std::pair<int64_t, int64_t> layer_range(const std::string& text, const YAML::Node& at) const {
    int64_t first = 0, last = 0;
    const char* end = text.data() + text.size();
    auto [stop, error] = std::from_chars(text.data(), end, first);
    last = first;
    if (error == std::errc() && stop != end && *stop == '-') {
      const auto second = std::from_chars(stop + 1, end, last);
      stop = second.ptr;
      error = second.ec;
    }
    if (error != std::errc() || stop != end || first < 0 || last < first || last > kMaxLayer)
      fail(at, fmt::format("'{}' names no layers; write a number from 0, or a range as in 28-29", text));
    return {first, last};
  }

  // A scalar, or {default: 4, layers: {0: 8, 28-29: 8}}.
  ParamValue value(const YAML::Node& node, const std::string& what) const {
    if (!node.IsMap()) return scalar(node, what);
    const std::string form = "a map of layers reads {default: 4, layers: {0: 8, 28-29: 8}}";
    ParamValue result;
    bool has_default = false;
    for (const auto& [key, item] : entries(node, what)) {
      if (key == "default") {
        result.text = scalar(item, what + ".default").text;
        has_default = true;
      } else if (key == "layers" && item.IsMap()) {
        for (const auto& [range, text] : entries(item, what + ".layers")) {
          const auto [first, last] = layer_range(range, text);
          result.layers.push_back({first, last, scalar(text, what + ".layers." + range).text, line_of(text)});
        }
      } else {
        fail(item, fmt::format("{}.{}: {}", what, key, form));
      }
    }
    if (!has_default || result.layers.empty()) fail(node, fmt::format("{}: {}", what, form));
    result.line = line_of(node);
    auto& layers = result.layers;
    std::sort(layers.begin(), layers.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t i = 1; i < layers.size(); ++i)
      if (layers[i].first <= layers[i - 1].last)
        fail(node, fmt::format("{} gives layer {} two values", what, layers[i].first));
    return result;
  }

  ParamValue view(const YAML::Node& node) const {
    if (!node.IsMap()) return scalar(node, "view");
    const auto items = entries(node, "view");
    if (items.size() != 1) fail(node, "view is a map with more than one key; write {chunked: 128}");
    return {items[0].first + ":" + scalar(items[0].second, "view." + items[0].first).text, line_of(node)};
  }

  std::vector<ParamValue> views(const YAML::Node& node) const {
    if (!node.IsSequence()) return {view(node)};
    if (node.size() == 0) fail(node, "view is an empty list");
    std::vector<ParamValue> values;
    for (const YAML::Node& item : node) values.push_back(view(item));
    return values;
  }

  PluginEntry plugin(const YAML::Node& node, const std::string& list_name) const {
    if (!node.IsMap()) fail(node, fmt::format("an entry of {} is a map with a name, as in {{name: full}}", list_name));
    PluginEntry entry;
    size_t configurations = 1;
    for (const auto& [key, item] : entries(node, "an entry of " + list_name)) {
      if (key == "name") {
        entry.name = scalar(item, "name");
        continue;
      }
      entry.axes.emplace_back(key, list(item, key, [&](const YAML::Node& one, const std::string& what) {
                                return list_name == "schemes" ? value(one, what) : scalar(one, what);
                              }));
      configurations *= entry.axes.back().second.size();
      if (configurations > kMaxConfigurations)
        fail(item, fmt::format("this entry makes more than {} configurations", kMaxConfigurations));
    }
    if (entry.name.text.empty()) fail(node, fmt::format("this entry of {} has no name", list_name));
    entry.name.line = line_of(node);
    return entry;
  }

  std::vector<PluginEntry> plugins(const YAML::Node& node, const std::string& list_name) const {
    if (!node.IsSequence() || node.size() == 0)
      fail(node, fmt::format("{} is a list of at least one map, each with a name", list_name));
    std::vector<PluginEntry> out;
    for (const YAML::Node& item : node) out.push_back(plugin(item, list_name));
    return out;
  }

  std::string place_;
};

template <class Read>
auto reading(const std::string& place, const Read& read) {
  try {
    return read();
  } catch (const YAML::Exception& error) {
    throw ConfigError(fmt::format("{}:{}: not YAML: {}", place, error.mark.line + 1, error.msg));
  }
}

}  // namespace

std::vector<std::map<std::string, ParamValue>> PluginEntry::expand() const {
  std::vector<std::map<std::string, ParamValue>> out = {{}};
  for (const auto& [key, values] : axes) {
    std::vector<std::map<std::string, ParamValue>> longer;
    for (const auto& before : out) {
      for (const ParamValue& value : values) {
        longer.push_back(before);
        longer.back()[key] = value;
      }
    }
    out = std::move(longer);
  }
  return out;
}

SweepText read_sweep_yaml(const std::string& yaml, const std::string& place) {
  return reading(place, [&] { return YamlReader(place).read(yaml); });
}

PluginEntry read_scheme_yaml(const std::string& yaml, const std::string& place) {
  return reading(place, [&] { return YamlReader(place).read_scheme(yaml); });
}

}  // namespace kvsweep
