#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// RULER's string_match_all for one sample, in [0, 1]: the share of `answers` that occur in `output`, case ignored
// (ASCII). Before that every control character of the output becomes a newline, so an answer with a tab is never found.
// Source: NVIDIA/RULER, scripts/eval (postprocess_pred, string_match_all). answers must not be empty.
double string_match_all(std::string_view output, const std::vector<std::string>& answers);

}  // namespace kvsweep
