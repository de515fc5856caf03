#include "tasks/data/jsonl.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "harness/core/error.h"
#include "tasks/data/locate.h"

namespace kvsweep {

struct JsonRecord::Value {
  nlohmann::ordered_json json;
};

namespace {

using Json = nlohmann::ordered_json;

bool blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

std::string shown(const Json& json) {
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 60 ? text.substr(0, 57) + "..." : text;
}

JsonRecord parsed(std::string_view text, const std::string& place) {
  auto value = std::make_shared<JsonRecord::Value>();
  try {
    value->json = Json::parse(text);
  } catch (const Json::parse_error& error) {
    throw DataError(fmt::format("{}: not JSON: {}", place, error.what()));
  }
  if (!value->json.is_object()) throw DataError(fmt::format("{}: {} is not a JSON object", place, shown(value->json)));
  return {std::move(value), place};
}

const Json& member(const JsonRecord::Value& value, const JsonRecord& record, const std::string& key) {
  const auto at = value.json.find(key);
  if (at == value.json.end())
    throw DataError(fmt::format("{}: no '{}'; it has {}", record.place(), key, join(record.keys())));
  return *at;
}

// The end of a dotted path, from `at` on.
void follow(const Json& json, std::string_view path, const JsonRecord& record, std::string_view whole,
            JsonRecord::Texts& out) {
  const auto fail = [&](const std::string& why) {
    throw DataError(fmt::format("{}: '{}' {}", record.place(), whole, why));
  };
  if (path.empty() && json.is_array()) {
    out.list = true;
    for (const Json& item : json) {
      if (item.is_array()) fail("holds lists of lists");
      follow(item, "", record, whole, out);
    }
    return;
  }
  if (path.empty()) {
    if (json.is_string())
      out.texts.push_back(json.get<std::string>());
    else if (json.is_number() || json.is_boolean())
      out.texts.push_back(json.dump());
    else
      fail(fmt::format("leads to {}, which is no text", shown(json)));
    return;
  }
  const size_t dot = path.find('.');
  const std::string key(path.substr(0, dot));
  const std::string_view rest = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  if (json.is_array() && key == "*") {
    out.list = true;
    for (const Json& item : json) follow(item, rest, record, whole, out);
    return;
  }
  if (json.is_array()) {
    const bool number = key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!number || static_cast<size_t>(std::stoi(key)) >= json.size())
      fail(fmt::format("asks for element {} of an array of {}", key, json.size()));
    follow(json[static_cast<size_t>(std::stoi(key))], rest, record, whole, out);
    return;
  }
  if (!json.is_object()) fail(fmt::format("asks for '{}' of {}", key, shown(json)));
  const auto at = json.find(key);
  if (at == json.end()) {
    std::vector<std::string> keys;
    for (const auto& item : json.items()) keys.push_back(item.key());
    const std::string near = nearest_name(key, keys);
    throw DataError(fmt::format("{}: no '{}'{}; it has {}", record.place(), key,
                                near.empty() ? "" : fmt::format("; did you mean '{}'?", near), join(keys)));
  }
  follow(*at, rest, record, whole, out);
}

}  // namespace

JsonRecord::JsonRecord(std::shared_ptr<const Value> value, std::string place)
    : value_(std::move(value)), place_(std::move(place)) {}

void JsonRecord::fail(const std::string& key, const std::string& why) const {
  throw DataError(fmt::format("{}: '{}' is {}: {}", place_, key, shown(value_->json.value(key, Json())), why));
}

bool JsonRecord::has(const std::string& key) const {
  const auto at = value_->json.find(key);
  return at != value_->json.end() && !at->is_null();
}

std::vector<std::string> JsonRecord::keys() const {
  std::vector<std::string> keys;
  for (const auto& item : value_->json.items()) keys.push_back(item.key());
  return keys;
}

std::string JsonRecord::text(const std::string& key) const {
  const Json& json = member(*value_, *this, key);
  if (!json.is_string()) fail(key, "expected a text");
  return json.get<std::string>();
}

std::vector<std::string> JsonRecord::texts(const std::string& key) const {
  const Json& json = member(*value_, *this, key);
  if (json.is_string()) return {json.get<std::string>()};
  if (!json.is_array()) fail(key, "expected an array of texts");
  std::vector<std::string> out;
  for (const Json& item : json) {
    if (!item.is_string()) fail(key, "expected an array of texts");
    out.push_back(item.get<std::string>());
  }
  return out;
}

int64_t JsonRecord::integer(const std::string& key) const {
  const Json& json = member(*value_, *this, key);
  if (!json.is_number_integer()) fail(key, "expected an integer");
  return json.get<int64_t>();
}

double JsonRecord::number(const std::string& key) const {
  const Json& json = member(*value_, *this, key);
  if (!json.is_number()) fail(key, "expected a number");
  return json.get<double>();
}

std::vector<JsonRecord> JsonRecord::records(const std::string& key) const {
  const Json& json = member(*value_, *this, key);
  if (!json.is_array()) fail(key, "expected an array of objects");
  std::vector<JsonRecord> out;
  for (const Json& item : json) {
    if (!item.is_object()) fail(key, "expected an array of objects");
    out.emplace_back(std::make_shared<Value>(Value{item}), fmt::format("{}: {}[{}]", place_, key, out.size()));
  }
  return out;
}

JsonRecord JsonRecord::record(const std::string& key) const {
  const Json& json = member(*value_, *this, key);
  if (!json.is_object()) fail(key, "expected an object");
  return {std::make_shared<Value>(Value{json}), fmt::format("{}: {}", place_, key)};
}

JsonRecord::Texts JsonRecord::at(const std::string& path) const {
  Texts out;
  follow(value_->json, path, *this, path, out);
  return out;
}

std::string JsonRecord::filled_text(const std::string& key) const {
  std::string out = text(key);
  if (blank(out)) fail(key, "must not be empty");
  return out;
}

std::vector<std::string> JsonRecord::filled_texts(const std::string& key) const {
  std::vector<std::string> out = texts(key);
  if (out.empty()) fail(key, "must not be empty");
  for (const std::string& one : out)
    if (blank(one)) fail(key, "has an empty text");
  return out;
}

std::vector<JsonRecord> read_jsonl(const std::filesystem::path& file) {
  const std::string text = read_utf8(file);
  std::vector<JsonRecord> records;
  int64_t line = 0;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view one(text.data() + start, end - start);
    start = end + 1;
    ++line;
    if (!blank(one)) records.push_back(parsed(one, fmt::format("{}:{}", file.string(), line)));
  }
  if (records.empty()) throw DataError(file.string() + ": no records");
  return records;
}

JsonRecord read_json(const std::filesystem::path& file) {
  return parsed(read_utf8(file), file.string());
}

}  // namespace kvsweep
