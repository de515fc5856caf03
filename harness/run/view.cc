#include "harness/run/view.h"

#include <fmt/format.h>

#include <charconv>

#include "harness/core/error.h"

namespace kvsweep {

View View::parse(const std::string& text) {
  constexpr int64_t kMaxChunk = int64_t{1} << 20;
  if (text == "exact") return {};
  if (text == "as_decoded")
    throw ConfigError(
        "view = as_decoded is reserved for one-pass streaming evaluation, which this version does not have; "
        "chunked:1 has the same meaning, token by token");
  const std::string prefix = "chunked:";
  if (text.starts_with(prefix)) {
    View view{Kind::kChunked, 0};
    const char* begin = text.data() + prefix.size();
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, view.chunk_tokens);
    if (error == std::errc() && stop == end && view.chunk_tokens >= 1 && view.chunk_tokens <= kMaxChunk) return view;
  }
  throw ConfigError(
      fmt::format("view = '{}' is not a view; allowed: exact, chunked:n with n in [1, {}]", text, kMaxChunk));
}

std::string View::text() const {
  return kind == Kind::kExact ? "exact" : fmt::format("chunked:{}", chunk_tokens);
}

}  // namespace kvsweep
