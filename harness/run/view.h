#pragma once

#include <cstdint>
#include <string>

namespace kvsweep {

// When the compressed cache is read: the field's most common silent error, so every point names it.
struct View {
  enum class Kind {
    kExact,    // context in full precision, then compressed once; query and answer read the compressed cache
    kChunked,  // context and query pass through the cache in chunks: a chunk is appended, then its queries read the
               // cache
  };
  Kind kind = Kind::kExact;
  int64_t chunk_tokens = 0;  // kChunked

  // "exact" or "chunked:<n>", n in [1, 1048576]. Throws ConfigError that lists what is allowed.
  static View parse(const std::string& text);
  std::string text() const;
};

}  // namespace kvsweep
