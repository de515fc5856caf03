#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// RULER's scores of one sample (NVIDIA/RULER, scripts/eval: postprocess_pred, string_match_all, string_match_part).
// Before either the output is stripped and every control character becomes a newline, so an answer with a tab is never
// found; case is ignored. answers must not be empty.

// The share of `answers` that occur in `output`, in [0, 1].
double string_match_all(std::string_view output, const std::vector<std::string>& answers);
// 1 when any of them occurs, else 0: the question answering tasks.
double string_match_part(std::string_view output, const std::vector<std::string>& answers);

}  // namespace kvsweep
