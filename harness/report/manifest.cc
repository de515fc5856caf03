#include "harness/report/manifest.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "harness/core/error.h"
#include "harness/report/append_file.h"

namespace kvsweep {

using Texts = std::map<std::string, std::string>;

Manifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / kManifestFile;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  try {
    const auto json = nlohmann::json::parse(text);
    if (json.at("schema") != 1)
      throw DataError(
          fmt::format("{}: schema is {}, this program reads schema 1", path.string(), json["schema"].dump()));
    return {json.at("points").get<Texts>(), json.at("facts").get<Texts>()};
  } catch (const nlohmann::json::exception& error) {
    throw DataError(fmt::format("{}: not a manifest: {}", path.string(), error.what()));
  }
}

void write_manifest(const std::filesystem::path& directory, const Manifest& manifest) {
  nlohmann::ordered_json json;
  json["schema"] = 1;
  json["facts"] = manifest.facts;
  json["points"] = manifest.points;
  replace_file(directory / kManifestFile,
               json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace kvsweep
