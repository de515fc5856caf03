#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace kvsweep {

// manifest.json of a results directory.
struct Manifest {
  std::map<std::string, std::string> points;  // id -> label
  std::map<std::string, std::string> facts;   // what every session must share: SHA-256 of weights and data

  bool operator==(const Manifest&) const = default;
};

inline constexpr const char* kManifestFile = "manifest.json";

// An empty one where the directory has none. Throws DataError when it is damaged or of another schema.
Manifest read_manifest(const std::filesystem::path& directory);

// In one step. Throws DataError.
void write_manifest(const std::filesystem::path& directory, const Manifest& manifest);

}  // namespace kvsweep
