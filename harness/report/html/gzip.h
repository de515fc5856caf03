#pragma once

#include <string>
#include <string_view>

namespace kvsweep {

// Bytes as base64 of a gzip stream: what DecompressionStream("gzip") of a browser unpacks. The same on every run.
std::string gzip_base64(std::string_view bytes);

std::string base64(std::string_view bytes);

}  // namespace kvsweep
