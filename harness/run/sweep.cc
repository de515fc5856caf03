#include "harness/run/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/run/sweep_yaml.h"

namespace kvsweep {
namespace {

constexpr uint64_t kDefaultSeed = 17;
constexpr int64_t kMaxChunkTokens = 1 << 20;
constexpr size_t kMaxPoints = 100000;

// Something that a sweep names, where it stands, and what tells it from others of its kind.
template <class T>
struct Item {
  T value;
  int line = 0;
  std::string identity;
};

struct Model {
  std::string argument, name;
};

struct BuiltTask {
  std::string name;
  int version = 1;
  Fields params;
  std::shared_ptr<const Task> task;
};

struct BuiltScheme {
  std::string name;
  Fields params;
  std::shared_ptr<const Scheme> scheme;
};

template <class T>
std::optional<T> parse_integer(std::string_view text) {
  T value{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string identity(const std::string& name, const Fields& params) {
  std::string out = name;
  for (const auto& [key, value] : params) out += fmt::format(" {}={}", key, value);
  return out;
}

// The entry that a plug-in's name stands for.
template <class Entry>
const Entry& lookup(const std::string& place, const char* kind, const ParamValue& name,
                    const std::vector<Entry>& table) {
  std::vector<std::string> known;
  for (const Entry& entry : table) {
    if (entry.name == name.text) return entry;
    known.push_back(entry.name);
  }
  const std::string near = nearest_name(name.text, known);
  throw ConfigError(fmt::format("{}:{}: {} '{}' is not known{}; known: {}", place, name.line, kind, name.text,
                                near.empty() ? "" : fmt::format("; did you mean '{}'?", near),
                                known.empty() ? "none" : join(known)));
}

std::string read_file(const std::filesystem::path& file, const char* what) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file))
    throw DataError(fmt::format("{}: is not a {} file that can be read", file.string(), what));
  return {std::istreambuf_iterator<char>(in), {}};
}

class Expander {
 public:
  Expander(std::string place, const SweepTables& tables) : place_(std::move(place)), tables_(tables) {}

  Sweep expand(const SweepText& text) const {
    Sweep sweep;
    sweep.name = name(text);
    if (text.deterministic) sweep.deterministic = flag("deterministic", *text.deterministic);
    for (const ParamValue& value : text.attention_layers) sweep.attention_layers.push_back(layer(value));
    const auto models = unique("model", text.models, &Expander::model);
    const auto tasks = plugins<BuiltTask>("task", text.tasks, tables_.tasks);
    const auto views = text.views.empty() ? std::vector<Item<View>>(1) : unique("view", text.views, &Expander::view);
    const auto seeds = text.seeds.empty() ? std::vector<Item<uint64_t>>{{kDefaultSeed, 0, ""}}
                                          : unique("seed", text.seeds, &Expander::seed);
    const auto schemes = plugins<BuiltScheme>("scheme", text.schemes, tables_.schemes);
    const size_t points = models.size() * tasks.size() * views.size() * seeds.size() * schemes.size();
    if (points > kMaxPoints)
      throw ConfigError(fmt::format("{}: the sweep has {} points; allowed: up to {}", place_, points, kMaxPoints));
    for (const auto& model : models)
      for (const auto& task : tasks)
        for (const auto& view : views)
          for (const auto& seed : seeds)
            sweep.groups.push_back(group(model.value, task, view.value, seed.value, schemes));
    sweep.hash = hash(sweep);
    return sweep;
  }

 private:
  [[noreturn]] void fail(int line, const std::string& what) const {
    throw ConfigError(fmt::format("{}:{}: {}", place_, line, what));
  }

  std::string name(const SweepText& text) const {
    const std::string name = text.name ? text.name->text : std::filesystem::path(place_).stem().string();
    const auto allowed = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
    };
    if (!name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), allowed)) return name;
    fail(text.name ? text.name->line : 1,
         fmt::format("name = '{}' names the results directory: letters, digits and . _ - are allowed, no . in front",
                     name));
  }

  // The same thing twice would be the same points twice, run once and counted twice.
  template <class T>
  void check_new(const char* kind, const std::vector<Item<T>>& items, const Item<T>& item) const {
    for (const Item<T>& before : items)
      if (before.identity == item.identity)
        fail(item.line, fmt::format("{} '{}' is the same as on line {}", kind, item.identity, before.line));
  }

  template <class T>
  std::vector<Item<T>> unique(const char* kind, const std::vector<ParamValue>& values,
                              Item<T> (Expander::*parse)(const ParamValue&) const) const {
    std::vector<Item<T>> items;
    for (const ParamValue& value : values) {
      Item<T> item = (this->*parse)(value);
      check_new(kind, items, item);
      items.push_back(std::move(item));
    }
    return items;
  }

  bool flag(const char* key, const ParamValue& value) const {
    if (value.text != "true" && value.text != "false")
      fail(value.line, fmt::format("{} = '{}': allowed: true, false", key, value.text));
    return value.text == "true";
  }

  int64_t layer(const ParamValue& value) const {
    const auto layer = parse_integer<int64_t>(value.text);
    if (!layer || *layer < 0)
      fail(value.line,
           fmt::format("attention_layers = '{}' is not a layer: integers from 0 on are allowed", value.text));
    return *layer;
  }

  Item<Model> model(const ParamValue& value) const {
    const std::string name = tables_.model_name(value.text);
    return {{value.text, name}, value.line, name};
  }

  Item<View> view(const ParamValue& value) const {
    const std::string& text = value.text;
    const size_t colon = text.find(':');
    const std::string kind = text.substr(0, colon);
    if (text == "exact") return {{}, value.line, text};
    if (text == "as_decoded") return {{.as_decoded = true}, value.line, text};
    if (kind != "chunked") {
      const std::string near = nearest_name(kind, {"exact", "as_decoded", "chunked"});
      fail(value.line, fmt::format("view = '{}' is not known{}; allowed: exact, as_decoded, chunked:<n>", text,
                                   near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
    }
    std::string_view count = colon == std::string::npos ? "" : std::string_view(text).substr(colon + 1);
    count.remove_prefix(std::min(count.find_first_not_of(' '), count.size()));
    const auto tokens = parse_integer<int64_t>(count);
    if (!tokens || *tokens < 1 || *tokens > kMaxChunkTokens)
      fail(value.line, fmt::format("view = '{}': chunked needs a number of tokens in [1, {}], as in chunked:128", text,
                                   kMaxChunkTokens));
    const View view{*tokens};
    return {view, value.line, view.text()};
  }

  Item<uint64_t> seed(const ParamValue& value) const {
    const auto seed = parse_integer<uint64_t>(value.text);
    if (!seed) fail(value.line, fmt::format("seed = '{}' is not an integer in [0, {}]", value.text, UINT64_MAX));
    return {*seed, value.line, fmt::to_string(*seed)};
  }

  static BuiltTask build(const TaskEntry& entry, Params& params) {
    std::shared_ptr<const Task> task = entry.make(params);
    return {entry.name, entry.version, params.resolved(), std::move(task)};
  }
  static BuiltScheme build(const SchemeEntry& entry, Params& params) {
    std::shared_ptr<const Scheme> scheme = entry.make(params);
    return {entry.name, params.resolved(), std::move(scheme)};
  }

  template <class Built, class Entry>
  std::vector<Item<Built>> plugins(const char* kind, const std::vector<PluginEntry>& entries,
                                   const std::vector<Entry>& table) const {
    std::vector<Item<Built>> items;
    for (const PluginEntry& written : entries) {
      const Entry& entry = lookup(place_, kind, written.name, table);
      for (const auto& values : written.expand()) {
        Params params(entry.name, place_, values, written.name.line);
        Item<Built> item{build(entry, params), written.name.line, identity(entry.name, params.resolved())};
        params.finish();
        check_new(kind, items, item);
        items.push_back(std::move(item));
      }
    }
    return items;
  }

  static SweepGroup group(const Model& model, const Item<BuiltTask>& task, const View& view, uint64_t seed,
                          const std::vector<Item<BuiltScheme>>& schemes) {
    SweepGroup group{model.argument, task.value.task, task.line, view, seed, {}};
    for (const Item<BuiltScheme>& scheme : schemes) {
      SweepPoint& point = group.points.emplace_back();
      point.point = {model.name,
                     task.value.name,
                     task.value.version,
                     task.value.params,
                     task.value.task->tokens(),
                     scheme.value.name,
                     scheme.value.params,
                     view.text(),
                     seed};
      point.id = point.point.id();
      point.scheme = scheme.value.scheme;
      point.line = scheme.line;
    }
    return group;
  }

  static std::string hash(const Sweep& sweep) {
    std::string ids;
    for (const auto& [id, label] : sweep.ids()) ids += id + "\n";
    return sha256_hex(ids);
  }

  std::string place_;
  const SweepTables& tables_;
};

}  // namespace

std::string View::text() const {
  if (as_decoded) return "as_decoded";
  return chunk_tokens == 0 ? "exact" : fmt::format("chunked:{}", chunk_tokens);
}

std::map<std::string, std::string> Sweep::ids() const {
  std::map<std::string, std::string> ids;
  for (const SweepGroup& group : groups)
    for (const SweepPoint& point : group.points) ids[point.id] = point.point.label();
  return ids;
}

Sweep parse_sweep(const std::string& yaml, const std::string& place, const SweepTables& tables) {
  return Expander(place, tables).expand(read_sweep_yaml(yaml, place));
}

Sweep load_sweep(const std::filesystem::path& file, const SweepTables& tables) {
  Sweep sweep = parse_sweep(read_file(file, "sweep"), file.string(), tables);
  sweep.file = file;
  return sweep;
}

SchemeText load_scheme(const std::filesystem::path& file, const std::vector<SchemeEntry>& schemes) {
  const PluginEntry written = read_scheme_yaml(read_file(file, "scheme"), file.string());
  const SchemeEntry& entry = lookup(file.string(), "scheme", written.name, schemes);
  return {&entry, Params(entry.name, file.string(), written.expand().front(), written.name.line)};
}

}  // namespace kvsweep
