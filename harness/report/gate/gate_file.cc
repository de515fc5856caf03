#include "harness/report/gate/gate_file.h"

#include <fmt/format.h>
#include <fnmatch.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

using Kind = GateRule::Kind;

const std::vector<std::string> kCommonKeys = {"name", "task", "scheme", "tokens", "against", "expect"};
const std::map<Kind, std::vector<std::string>> kKeysOf = {
    {Kind::kMargin, {"metric", "max_drop", "max_ratio", "confidence", "min_items", "pooled"}},
    {Kind::kIdentical, {"metric", "identical"}},
    {Kind::kBudget, {"budget", "max_rise"}}};
constexpr const char* kForms =
    "a rule has max_drop or max_ratio (a loss within a margin), identical: true (no other score) or budget and "
    "max_rise";

std::vector<std::string> all_keys() {
  std::vector<std::string> keys = kCommonKeys;
  for (const auto& [kind, of] : kKeysOf)
    for (const std::string& key : of)
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  return keys;
}

bool any_matches(const std::vector<std::string>& globs, const std::vector<std::string>& texts) {
  return std::any_of(globs.begin(), globs.end(), [&](const std::string& glob) {
    return std::any_of(texts.begin(), texts.end(),
                       [&](const std::string& text) { return fnmatch(glob.c_str(), text.c_str(), 0) == 0; });
  });
}

class GateReader {
 public:
  explicit GateReader(std::string place) : place_(std::move(place)) {}

  std::vector<GateRule> read(const std::string& yaml) {
    const std::vector<YAML::Node> documents = YAML::LoadAll(yaml);
    if (documents.size() != 1 || !documents[0].IsSequence() || documents[0].size() == 0)
      throw ConfigError(fmt::format(
          "{}: gates are a list of at least one rule, as in - {{task: needle, scheme: kivi/*, max_drop: 0.02}}",
          place_));
    std::vector<GateRule> rules;
    std::map<std::string, int> lines;
    for (const YAML::Node& node : documents[0]) {
      GateRule rule = read_rule(node);
      const auto [first, fresh] = lines.try_emplace(rule.name, rule.line);
      if (!fresh)
        throw ConfigError(fmt::format("{}:{}: a rule on line {} is called '{}' too; give one of them another name",
                                      place_, rule.line, first->second, rule.name));
      rules.push_back(std::move(rule));
    }
    return rules;
  }

 private:
  struct Value {
    std::string key;
    YAML::Node node;
  };

  static int line_of(const YAML::Node& node) { return node.Mark().line + 1; }

  [[noreturn]] void fail(const YAML::Node& at, const std::string& what) const {
    throw ConfigError(fmt::format("{}:{}: {}", place_, line_of(at), what));
  }
  [[noreturn]] void refuse(const Value& value, const std::string& allowed) const {
    fail(value.node, fmt::format("{} = {}: {}", value.key, text_of(value.node), allowed));
  }
  static std::string text_of(const YAML::Node& node) { return node.IsScalar() ? node.Scalar() : YAML::Dump(node); }

  GateRule read_rule(const YAML::Node& node) const {
    if (!node.IsMap()) fail(node, fmt::format("a rule is a map; {}", kForms));
    const std::vector<Value> values = values_of(node);
    GateRule rule;
    rule.line = line_of(node);
    rule.kind = kind_of(node);
    rule.against_baseline = rule.kind != Kind::kMargin;
    check_keys(rule.kind, values);
    for (const Value& value : values) set(rule, value);
    if (rule.kind == Kind::kMargin && !rule.max_drop && !rule.max_ratio) fail(node, kForms);
    if (rule.kind == Kind::kBudget && (!node["budget"] || !node["max_rise"]))
      fail(node, "budget and max_rise go together, as in budget: bytes_per_token, max_rise: 5 %");
    if (rule.name.empty()) rule.name = name_of(rule);
    return rule;
  }

  std::vector<Value> values_of(const YAML::Node& map) const {
    const std::vector<std::string> known = all_keys();
    std::vector<Value> out;
    std::map<std::string, int> lines;
    for (const auto& item : map) {
      if (!item.first.IsScalar()) fail(item.first, "a key of a rule is a text, not a list or a map");
      const std::string key = item.first.Scalar();
      const auto [first, fresh] = lines.try_emplace(key, line_of(item.first));
      if (!fresh) fail(item.first, fmt::format("{} stands twice in a rule, first on line {}", key, first->second));
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        const std::string near = nearest_name(key, known);
        fail(item.first, fmt::format("{} is not a key of a rule{}; known: {}", key,
                                     near.empty() ? "" : fmt::format("; did you mean '{}'?", near), join(known)));
      }
      if (item.second.IsNull()) fail(item.first, fmt::format("{} has no value", key));
      out.push_back({key, item.second});
    }
    return out;
  }

  static Kind kind_of(const YAML::Node& rule) {
    if (rule["identical"]) return Kind::kIdentical;
    return rule["budget"] || rule["max_rise"] ? Kind::kBudget : Kind::kMargin;
  }

  void check_keys(Kind kind, const std::vector<Value>& values) const {
    const std::vector<std::string>& own = kKeysOf.at(kind);
    const char* what = kind == Kind::kMargin ? "a margin" : kind == Kind::kIdentical ? "identical" : "a budget";
    for (const Value& value : values) {
      const auto among = [&](const std::vector<std::string>& keys) {
        return std::find(keys.begin(), keys.end(), value.key) != keys.end();
      };
      if (!among(kCommonKeys) && !among(own))
        fail(value.node, fmt::format("{} does not go with {}; a rule of that kind has {} and {}", value.key, what,
                                     join(own), join(kCommonKeys)));
    }
  }

  void set(GateRule& rule, const Value& value) const {
    const std::string& key = value.key;
    if (key == "name") rule.name = text(value);
    if (key == "task") rule.tasks = texts(value);
    if (key == "scheme") rule.schemes = texts(value);
    if (key == "tokens") rule.tokens = lengths(value);
    if (key == "against") rule.against_baseline = choice(value, {"full", "baseline"}) == "baseline";
    if (key == "expect") rule.expect = choice(value, {"pass", "fail"}) == "pass" ? Verdict::kPass : Verdict::kFail;
    if (key == "metric") rule.metric = text(value);
    if (key == "max_drop")
      rule.max_drop = number(value, 0, "a number above 0, in the metric's units: 0.02 is two points of an accuracy");
    if (key == "max_ratio") rule.max_ratio = number(value, 1, "a number above 1, as in 1.02: perplexity rises by 2 %");
    if (key == "confidence") {
      rule.confidence = number(value, 0.5, "a number above 0.5 and below 1, as in 0.95");
      if (rule.confidence >= 1) refuse(value, "a number above 0.5 and below 1, as in 0.95");
    }
    if (key == "min_items") rule.min_items = integer(value);
    if (key == "pooled") rule.pooled = flag(value);
    if (key == "identical" && !flag(value)) refuse(value, "leave it out, or write true");
    if (key == "budget") rule.budget = choice(value, {std::begin(kBudgets), std::end(kBudgets)});
    if (key == "max_rise") rule.max_rise = percent(value);
  }

  std::string text(const Value& value) const {
    if (!value.node.IsScalar() || value.node.Scalar().empty()) refuse(value, "a text");
    return value.node.Scalar();
  }

  std::vector<std::string> texts(const Value& value) const {
    if (!value.node.IsSequence()) return {text(value)};
    if (value.node.size() == 0) refuse(value, "a text or a list of them");
    std::vector<std::string> out;
    for (const YAML::Node& item : value.node) out.push_back(text({value.key, item}));
    return out;
  }

  std::string choice(const Value& value, const std::vector<std::string>& allowed) const {
    const std::string given = text_of(value.node);
    if (std::find(allowed.begin(), allowed.end(), given) != allowed.end()) return given;
    const std::string near = nearest_name(given, allowed);
    refuse(value, fmt::format("one of {}{}", join(allowed), near.empty() ? "" : "; did you mean '" + near + "'?"));
  }

  bool flag(const Value& value) const { return choice(value, {"true", "false"}) == "true"; }

  template <class T>
  static std::optional<T> parsed(const std::string& text) {
    T number{};
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || stop != end) return std::nullopt;
    return number;
  }

  double number(const Value& value, double above, const std::string& allowed) const {
    const std::optional<double> given = parsed<double>(text_of(value.node));
    if (!given || !std::isfinite(*given) || !(*given > above)) refuse(value, allowed);
    return *given;
  }

  int64_t integer(const Value& value) const {
    const std::optional<int64_t> given = parsed<int64_t>(text_of(value.node));
    if (!given || *given < 1) refuse(value, "a whole number from 1");
    return *given;
  }

  std::vector<int64_t> lengths(const Value& value) const {
    if (!value.node.IsSequence()) return {integer(value)};
    if (value.node.size() == 0) refuse(value, "a length in tokens or a list of them");
    std::vector<int64_t> out;
    for (const YAML::Node& item : value.node) out.push_back(integer({value.key, item}));
    return out;
  }

  // A bare 5 could be 5 % or five times as much.
  double percent(const Value& value) const {
    const char* allowed = "a share in percent from 0, as in 5 %";
    std::string given = text_of(value.node);
    if (!given.ends_with('%')) refuse(value, allowed);
    given.pop_back();
    while (given.ends_with(' ')) given.pop_back();
    const std::optional<double> share = parsed<double>(given);
    if (!share || !std::isfinite(*share) || *share < 0) refuse(value, allowed);
    return *share / 100;
  }

  static std::string name_of(const GateRule& rule) {
    std::string what;
    if (rule.max_drop) what += fmt::format(" max_drop {}", *rule.max_drop);
    if (rule.max_ratio) what += fmt::format(" max_ratio {}", *rule.max_ratio);
    if (rule.kind == Kind::kIdentical) what += " identical";
    if (rule.kind == Kind::kBudget) what += fmt::format(" {} max_rise {:g} %", rule.budget, 100 * rule.max_rise);
    if (rule.metric != "primary") what = " " + rule.metric + what;
    const std::string tokens = rule.tokens.empty() ? "" : fmt::format(" tokens={}", fmt::join(rule.tokens, ","));
    return fmt::format("{}{} {}:{}{} against {}", join(rule.tasks, ","), tokens, join(rule.schemes, ","),
                       rule.pooled ? " pooled" : "", what, rule.against_baseline ? "baseline" : "full");
  }

  std::string place_;
};

}  // namespace

std::string GateRule::metric_of(const Record& record) const {
  if (metric == "primary") return record.primary_metric;
  for (const auto& [own_name, info] : record.metric_info)
    if (metric == own_name || metric == info.shown_as) return own_name;
  return "";
}

bool GateRule::names_scheme(const std::string& scheme_name) const {
  return std::any_of(schemes.begin(), schemes.end(), [&](const std::string& scheme) {
    return scheme.substr(0, scheme.find_first_of("/ ")) == scheme_name;
  });
}

bool GateRule::matches(const Record& record) const {
  const Point& point = record.point;
  if (!tokens.empty() && std::find(tokens.begin(), tokens.end(), point.tokens) == tokens.end()) return false;
  return any_matches(tasks, {point.task, with_params(point.task, point.task_params)}) &&
         any_matches(schemes, {point.scheme, point.scheme + "/" + params_text(point.scheme_params),
                               with_params(point.scheme, point.scheme_params)});
}

GateFile parse_gates(const std::string& yaml, const std::string& place) {
  try {
    return {place, GateReader(place).read(yaml)};
  } catch (const YAML::Exception& error) {
    throw ConfigError(fmt::format("{}:{}: not YAML: {}", place, error.mark.line + 1, error.msg));
  }
}

GateFile read_gates(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw ConfigError(fmt::format("{}: cannot be read: no such file of gate rules", path.string()));
  return parse_gates({std::istreambuf_iterator<char>(file), {}}, path.string());
}

}  // namespace kvsweep
