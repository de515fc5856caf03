#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "harness/report/analysis/results.h"

namespace kvsweep {

struct LmEvalExport {
  int64_t folders = 0, tasks = 0, samples = 0;
  std::vector<std::string> gaps;  // points without results, with the reason
};

// Results in the layout of lm-evaluation-harness 0.4 (lm_eval/result_schema.py, loggers/evaluation_tracker.py): a
// folder for each model and configuration with results_<date>.json and samples_<task>_<date>.jsonl, the date being when
// the newest of its points was started. A task here is a task at one length, "needle_1024".
//
// As there: metrics are "<metric>,none" with "<metric>_stderr,none" ("N/A" for one sample), an exponential primary
// metric stands also as shown ("perplexity,none"); numbers that are none are null, such standard errors "N/A". What
// records do not keep is empty (targets, and prompts in `arguments`; `prompt_hash` is the hash of the prompt's tokens);
// what that layout does not know stands in a task's configs.metadata: view, bits, bytes a token, KL, status. A point
// that failed stands, with its reason, in `kvsweep_failed` alone: readers take every key of `configs` for results.
//
// Files of the same names are replaced. Throws DataError: cannot be written; a sample's line is gone.
LmEvalExport write_lm_eval(const Results& results, const std::filesystem::path& out);

}  // namespace kvsweep
