#include "harness/report/shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <regex>
#include <tuple>

#include "harness/core/error.h"
#include "harness/core/hash.h"

namespace kvsweep {
namespace {

using Json = nlohmann::ordered_json;  // parameters of a point keep their order

constexpr int64_t kMaxShards = 100000;

// -1 for anything else.
int64_t whole_number(std::string_view text) {
  int64_t value = -1;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && stop == text.data() + text.size() ? value : -1;
}

}  // namespace

Shard Shard::parse(const std::string& text) {
  const size_t slash = std::min(text.find('/'), text.size());
  const int64_t index = whole_number(std::string_view(text).substr(0, slash));
  const int64_t count = whole_number(std::string_view(text).substr(std::min(slash + 1, text.size())));
  if (count < 1 || count > kMaxShards || index < 1 || index > count)
    throw ConfigError(fmt::format("--shard '{}': i/n is needed, 1 <= i <= n <= {}, as in 1/4", text, kMaxShards));
  return {index, count};
}

std::string Shard::text() const {
  return fmt::format("{}/{}", index, count);
}

bool Shard::takes(const std::string& reference_id, const std::string& sample_id) const {
  // 60 bits: a remainder is uneven by less than 1e-13 for every count that is allowed.
  const std::string digits = sha256_hex(reference_id + "/" + sample_id).substr(0, 15);
  uint64_t number = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), number, 16);
  return static_cast<int64_t>(number % static_cast<uint64_t>(count)) == index - 1;
}

std::string Shard::file(const std::string& kind) const {
  return fmt::format("{}-{}-of-{}.jsonl", kind, index, count);
}

std::string Shard::lock_file() const {
  return fmt::format("lock-{}-of-{}", index, count);
}

std::vector<Shard> shards_in(const std::filesystem::path& directory, const std::string& kind) {
  std::vector<Shard> shards;
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored)) return shards;
  const std::regex pattern(kind + R"(-(\d{1,6})-of-(\d{1,6})\.jsonl)");
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    std::smatch match;
    if (std::regex_match(name, match, pattern)) shards.push_back({std::stoll(match[1]), std::stoll(match[2])});
  }
  std::sort(shards.begin(), shards.end(),
            [](const Shard& a, const Shard& b) { return std::tie(a.count, a.index) < std::tie(b.count, b.index); });
  return shards;
}

std::string to_json_line(const ShardGroup& group) {
  Json json;
  json["reference_id"] = group.reference_id;
  json["order"] = group.order;
  json["samples"] = group.samples;
  json["points"] = Json::array();
  for (const ShardPoint& point : group.points)
    json["points"].push_back(
        {{"order", point.order}, {"lossless", point.lossless}, {"record", Json::parse(to_json_line(point.record))}});
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

ShardGroup shard_group_from_json(const std::string& line, const std::string& place) {
  ShardGroup group;
  try {
    const Json json = Json::parse(line);
    json.at("reference_id").get_to(group.reference_id);
    json.at("order").get_to(group.order);
    json.at("samples").get_to(group.samples);
    for (const Json& point : json.at("points"))
      group.points.push_back({point.at("order").get<int64_t>(), point.at("lossless").get<bool>(),
                              record_from_json(point.at("record").dump(), place)});
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("{}: not a group of a sweep: {}", place, error.what()));
  }
  return group;
}

}  // namespace kvsweep
