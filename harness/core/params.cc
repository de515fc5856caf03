#include "harness/core/params.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "harness/core/error.h"

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

}  // namespace

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

const ParamValue* Params::take(ParamDeclaration declaration) {
  const std::string key = declaration.name;
  const bool required = declaration.required;
  declarations_.push_back(std::move(declaration));
  const auto at = values_.find(key);
  if (at != values_.end()) return &at->second;
  if (required && !describing_)
    throw ConfigError(fmt::format("{} is required: {}", place(key), declarations_.back().help));
  return nullptr;
}

int64_t Params::integer(const std::string& key, std::optional<int64_t> fallback, int64_t low, int64_t high,
                        const std::string& help) {
  const ParamValue* given =
      take({key, "integer", fallback ? fmt::to_string(*fallback) : "", range_text(low, high), help, !fallback});
  int64_t value = fallback.value_or(low);
  if (given != nullptr) {
    const auto parsed = parse<int64_t>(given->text);
    if (!parsed)
      throw ConfigError(
          fmt::format("{} = '{}' is not an integer; allowed: {}", place(key), given->text, range_text(low, high)));
    value = *parsed;
    if (value < low || value > high)
      throw ConfigError(fmt::format("{} = {} is outside {}", place(key), value, range_text(low, high)));
  }
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
  std::string value = fallback.value_or(allowed.front());
  if (given != nullptr) {
    value = given->text;
    if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
      const std::string near = nearest_name(value, allowed);
      throw ConfigError(fmt::format("{} = '{}' is not one of {}{}", place(key), value, join(allowed),
                                    near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
    }
  }
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
