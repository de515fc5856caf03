#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// What a person wrote is wrong: a YAML value, a command line. The message says where, what came and what is allowed.
struct ConfigError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a file holds is wrong or missing: a model, a data set, a results directory. Same rule for the message.
struct DataError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The entry of `allowed` nearest to `word` in edit distance, or "" when none is within a third of its length (at least
// 2).
std::string nearest_name(std::string_view word, const std::vector<std::string>& allowed);

// "a, b, c"
std::string join(const std::vector<std::string>& words, std::string_view separator = ", ");

}  // namespace kvsweep
