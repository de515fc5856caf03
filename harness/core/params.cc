#include "harness/core/params.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "harness/core/error.h"
#include "harness/core/hash.h"

namespace kvsweep {
namespace {

template <class T>
std::optional<T> parse(const std::string& text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

template <class T>
std::string range_text(T low, T high) {
  const bool open_low = low == std::numeric_limits<T>::lowest(), open_high = high == std::numeric_limits<T>::max();
  if (open_low && open_high) return "any";
  if (open_high) return fmt::format(">= {}", low);
  if (open_low) return fmt::format("<= {}", high);
  return fmt::format("[{}, {}]", low, high);
}

std::string layers_text(const LayerText& layers) {
  return layers.first == layers.last ? fmt::to_string(layers.first) : fmt::format("{}-{}", layers.first, layers.last);
}

}  // namespace

template <class T>
std::vector<T> PerLayer<T>::values(int64_t layers) const {
  std::vector<T> all(static_cast<size_t>(layers), default_);
  for (const auto& [range, value] : layers_) {
    if (range.last >= layers)
      throw ConfigError(fmt::format("{} names layer {}; the model has layers 0 to {}", place_, range.last, layers - 1));
    std::fill(all.begin() + range.first, all.begin() + range.last + 1, value);
  }
  return all;
}

template <class T>
T PerLayer<T>::at(int64_t layer) const {
  for (const auto& [range, value] : layers_)
    if (range.first <= layer && layer <= range.last) return value;
  return default_;
}

template <class T>
std::set<T> PerLayer<T>::distinct() const {
  std::set<T> all = {default_};
  for (const auto& [range, value] : layers_) all.insert(value);
  return all;
}

template class PerLayer<int64_t>;
template class PerLayer<std::string>;

double mean_of(const PerLayer<int64_t>& values, int64_t layers) {
  double sum = 0;
  for (const int64_t value : values.values(layers)) sum += static_cast<double>(value);
  return sum / static_cast<double>(layers);
}

Params::Params(std::string owner, std::string file, std::map<std::string, ParamValue> values, int line)
    : owner_(std::move(owner)), file_(std::move(file)), values_(std::move(values)), line_(line) {}

Params Params::describe(std::string owner) {
  Params params(std::move(owner), "", {});
  params.describing_ = true;
  return params;
}

std::string Params::place(const std::string& key) const {
  const auto at = values_.find(key);
  const int line = at == values_.end() ? line_ : at->second.line;
  const std::string where = file_.empty() ? "" : line > 0 ? fmt::format("{}:{}: ", file_, line) : file_ + ": ";
  return fmt::format("{}{}.{}", where, owner_, key);
}

const ParamValue* Params::take(ParamDeclaration declaration, bool may_differ_by_layer) {
  const std::string key = declaration.name;
  const bool required = declaration.required;
  declarations_.push_back(std::move(declaration));
  const auto at = values_.find(key);
  if (at != values_.end()) {
    if (!at->second.layers.empty() && !may_differ_by_layer)
      throw ConfigError(fmt::format("{} is a map of layers; it has one value for all layers", place(key)));
    return &at->second;
  }
  if (required && !describing_)
    throw ConfigError(fmt::format("{} is required: {}", place(key), declarations_.back().help));
  return nullptr;
}

int64_t Params::parse_integer(const std::string& what, const std::string& text, int64_t low, int64_t high) const {
  const auto parsed = parse<int64_t>(text);
  if (!parsed)
    throw ConfigError(fmt::format("{} = '{}' is not an integer; allowed: {}", what, text, range_text(low, high)));
  if (*parsed < low || *parsed > high)
    throw ConfigError(fmt::format("{} = {} is outside {}", what, *parsed, range_text(low, high)));
  return *parsed;
}

std::string Params::parse_choice(const std::string& what, const std::string& text,
                                 const std::vector<std::string>& allowed) const {
  if (std::find(allowed.begin(), allowed.end(), text) != allowed.end()) return text;
  const std::string near = nearest_name(text, allowed);
  throw ConfigError(fmt::format("{} = '{}' is not one of {}{}", what, text, join(allowed),
                                near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

// Layers whose value is the default are left out and neighbours of one value joined, so that two ways to write the same
// are the same point.
template <class T, class Parse>
PerLayer<T> Params::per_layer(const std::string& key, ParamDeclaration declaration, T fallback,
                              const Parse& parse_text) {
  PerLayer<T> values(std::move(fallback));
  const ParamValue* given = take(std::move(declaration), true);
  values.place_ = place(key);
  if (given != nullptr) {
    values.default_ = parse_text(place(key), given->text);
    for (const LayerText& layers : given->layers) {
      T value = parse_text(fmt::format("{} of layers {}", place(key), layers_text(layers)), layers.text);
      if (value == values.default_) continue;
      auto& known = values.layers_;
      if (!known.empty() && known.back().first.last + 1 == layers.first && known.back().second == value) {
        known.back().first.last = layers.last;
      } else {
        known.emplace_back(layers, std::move(value));
      }
    }
  }
  std::vector<std::string> named;
  for (const auto& [layers, value] : values.layers_) named.push_back(fmt::format("{}: {}", layers_text(layers), value));
  resolve(key, named.empty() ? fmt::format("{}", values.default_)
                             : fmt::format("{{default: {}, layers: {{{}}}}}", values.default_, join(named)));
  return values;
}

PerLayer<int64_t> Params::layer_integers(const std::string& key, std::optional<int64_t> fallback, int64_t low,
                                         int64_t high, const std::string& help) {
  return per_layer<int64_t>(
      key, {key, "integer or map", fallback ? fmt::to_string(*fallback) : "", range_text(low, high), help, !fallback},
      fallback.value_or(low),
      [&](const std::string& what, const std::string& text) { return parse_integer(what, text, low, high); });
}

PerLayer<std::string> Params::layer_choices(const std::string& key, std::optional<std::string> fallback,
                                            const std::vector<std::string>& allowed, const std::string& help) {
  return per_layer<std::string>(
      key, {key, "choice or map", fallback.value_or(""), join(allowed, "|"), help, !fallback},
      fallback.value_or(allowed.front()),
      [&](const std::string& what, const std::string& text) { return parse_choice(what, text, allowed); });
}

std::filesystem::path Params::file(const std::string& key, const std::string& help, bool required) {
  namespace fs = std::filesystem;
  const ParamValue* given = take({key, "file", "", "", help, required});
  if (given == nullptr) {
    resolve(key, "");
    return {};
  }
  std::vector<std::string> looked;
  for (const fs::path& path : {fs::path(given->text), fs::path(file_).parent_path() / given->text}) {
    if (fs::is_regular_file(path)) {
      resolve(key, fmt::format("{} sha256:{}", path.filename().string(), sha256_file(path).substr(0, 16)));
      return path;
    }
    looked.push_back((fs::current_path() / path).lexically_normal().string());
  }
  looked.erase(std::unique(looked.begin(), looked.end()), looked.end());
  throw ConfigError(fmt::format("{} = '{}' is no file; looked at {}", place(key), given->text, join(looked)));
}

int64_t Params::integer(const std::string& key, std::optional<int64_t> fallback, int64_t low, int64_t high,
                        const std::string& help) {
  const ParamValue* given =
      take({key, "integer", fallback ? fmt::to_string(*fallback) : "", range_text(low, high), help, !fallback});
  const int64_t value = given == nullptr ? fallback.value_or(low) : parse_integer(place(key), given->text, low, high);
  resolve(key, fmt::to_string(value));
  return value;
}

double Params::number(const std::string& key, std::optional<double> fallback, double low, double high,
                      const std::string& help) {
  const ParamValue* given =
      take({key, "number", fallback ? fmt::format("{}", *fallback) : "", range_text(low, high), help, !fallback});
  double value = fallback.value_or(low);
  if (given != nullptr) {
    const auto parsed = parse<double>(given->text);
    if (!parsed || !std::isfinite(*parsed))
      throw ConfigError(
          fmt::format("{} = '{}' is not a number; allowed: {}", place(key), given->text, range_text(low, high)));
    value = *parsed;
    if (value < low || value > high)
      throw ConfigError(fmt::format("{} = {} is outside {}", place(key), value, range_text(low, high)));
  }
  resolve(key, fmt::format("{}", value));
  return value;
}

bool Params::flag(const std::string& key, std::optional<bool> fallback, const std::string& help) {
  const ParamValue* given =
      take({key, "flag", fallback ? (*fallback ? "true" : "false") : "", "true|false", help, !fallback});
  bool value = fallback.value_or(false);
  if (given != nullptr) {
    if (given->text != "true" && given->text != "false")
      throw ConfigError(fmt::format("{} = '{}' is neither true nor false", place(key), given->text));
    value = given->text == "true";
  }
  resolve(key, value ? "true" : "false");
  return value;
}

std::string Params::choice(const std::string& key, std::optional<std::string> fallback,
                           const std::vector<std::string>& allowed, const std::string& help) {
  const ParamValue* given = take({key, "choice", fallback.value_or(""), join(allowed, "|"), help, !fallback});
  const std::string value =
      given == nullptr ? fallback.value_or(allowed.front()) : parse_choice(place(key), given->text, allowed);
  resolve(key, value);
  return value;
}

std::string Params::text(const std::string& key, std::optional<std::string> fallback, const std::string& help) {
  const ParamValue* given = take({key, "text", fallback.value_or(""), "", help, !fallback});
  const std::string value = given != nullptr ? given->text : fallback.value_or("");
  resolve(key, value);
  return value;
}

void Params::reject(const std::string& key, const std::string& why) const {
  const auto at = std::find_if(resolved_.begin(), resolved_.end(), [&](const auto& row) { return row.first == key; });
  throw ConfigError(fmt::format("{} = {}: {}", place(key), at == resolved_.end() ? "?" : at->second, why));
}

void Params::finish() const {
  if (describing_) return;
  std::vector<std::string> known;
  for (const ParamDeclaration& declaration : declarations_) known.push_back(declaration.name);
  for (const auto& [key, value] : values_) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string near = nearest_name(key, known);
    throw ConfigError(fmt::format("{} is not a parameter of {}{}; known: {}", place(key), owner_,
                                  near.empty() ? "" : fmt::format("; did you mean '{}'?", near),
                                  known.empty() ? "none" : join(known)));
  }
}

}  // namespace kvsweep
