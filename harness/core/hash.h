#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace kvsweep {

// Lower-case hexadecimal SHA-256.
std::string sha256_hex(std::string_view bytes);

// SHA-256 of a file's content, read in blocks. Throws DataError when the file cannot be read.
std::string sha256_file(const std::filesystem::path& path);

}  // namespace kvsweep
